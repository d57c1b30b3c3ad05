//! The answer of `/stacktrace/tokio`.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Capture, Thread};
use crate::tasks::Task;
use crate::tasks::engine::{EngineName, TaskList};
use crate::threads::ThreadStack;

use super::Filter;
use super::formats::{Document, JSON, Renderer, Renders};
use super::json;
use super::task_text::{TextOptions, text};

/// Every task of every runtime.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct TasksAnswer {
    /// All of it as text for people: identical stacks in groups, the largest first.
    pub stacktrace: String,
    /// The engine that found the tasks.
    pub engine: EngineName,
    /// How the capture went.
    pub capture: Capture,
    /// How many tasks there are, of which those that fit the request are listed.
    pub total: usize,
    /// The threads that run some of these tasks: what those do right now.
    pub threads: Vec<ThreadStack>,
    /// The tasks, ordered by id. The last field: the list is written while the client reads it.
    pub tasks: Vec<Task>,
}

impl Renders for TasksAnswer {
    const RENDERERS: &'static [Renderer<Self>] = &[
        Renderer {
            format: JSON,
            render: |answer| {
                let tasks = std::mem::take(&mut answer.tasks);
                Ok(Document::List(json::list(answer, "tasks", tasks)?))
            },
        },
        Renderer::TEXT,
    ];

    fn text(&self) -> String {
        self.stacktrace.clone()
    }
}

impl TasksAnswer {
    /// `stacks_of` unwinds the threads that run tasks of the answer; `full` for text that leaves out nothing.
    pub(crate) fn new(
        (engine, list): (EngineName, TaskList),
        stacks_of: impl FnOnce(Vec<Thread>) -> Vec<ThreadStack>,
        filter: &Filter,
        full: bool,
    ) -> Self {
        let TaskList { mut tasks, capture, threads: mut running, .. } = list;
        let total = tasks.len();
        let selection = filter.apply(&mut tasks);
        let task_of: HashMap<i32, u64> =
            tasks.iter().filter_map(|task| Some((task.thread?, task.id))).collect();
        running.retain(|thread| task_of.contains_key(&thread.tid));
        let mut threads = stacks_of(running);
        for thread in &mut threads {
            thread.runs_task = task_of.get(&thread.tid).copied();
        }
        let options = TextOptions { full, selection, threads };
        let stacktrace = text(&tasks, &capture.notes, &options);
        Self { stacktrace, engine, capture, total, threads: options.threads, tasks }
    }
}
