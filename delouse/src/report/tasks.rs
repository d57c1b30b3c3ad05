//! The answer of `/stacktrace/tokio`.

use std::collections::HashMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Capture, Thread};
use crate::tasks::Task;
use crate::tasks::engine::{EngineName, TaskList};
use crate::threads::ThreadStack;

use super::Filter;
use super::formats::{Document, FOLDED, JSON, PPROF, Renderer, Renders};
use super::json;
use super::profile::{Profile, document, folded};
use super::task_groups::{self, Groups, TaskGroup};
use super::task_text::{TextOptions, head, text};

/// Every task of every runtime.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct TasksAnswer {
    /// All of it as text for people: identical stacks in groups, the largest first. With `groups`, only how many there are.
    pub stacktrace: String,
    /// The engine that found the tasks.
    pub engine: EngineName,
    /// How the capture went.
    pub capture: Capture,
    /// How many tasks there are, of which those that fit the request are listed.
    pub total: usize,
    /// How many tasks fit the request, whether they are listed or not.
    #[serde(default)]
    pub matching: usize,
    /// With `?groups=true`, instead of `tasks`: those that fit the request, in groups of equal stacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<TaskGroup>,
    /// How many groups follow those in `groups`: `?offset=` asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_groups: Option<usize>,
    /// The threads that run some of these tasks: what those do right now.
    pub threads: Vec<ThreadStack>,
    /// The tasks, ordered by id. The last field: the list is written while the client reads it.
    pub tasks: Vec<Task>,
}

/// Which part of the tasks that fit an answer has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Text leaves out nothing.
    pub(crate) full: bool,
    /// Groups instead of tasks.
    pub(crate) groups: bool,
    /// Only the tasks of the group with this key.
    pub(crate) group: Option<String>,
    /// How many tasks or groups are left out at the beginning.
    pub(crate) offset: usize,
    /// How many tasks or groups follow, at most.
    pub(crate) limit: Option<usize>,
}

/// What was asked for, as in a request: `groups=true limit=100`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { full, groups, group, offset, limit } = self;
        let mut parts = Vec::new();
        parts.extend(full.then(|| "full=true".to_owned()));
        parts.extend(groups.then(|| "groups=true".to_owned()));
        parts.extend(group.as_ref().map(|key| format!("group={}", key.escape_debug())));
        parts.extend((*offset > 0).then(|| format!("offset={offset}")));
        parts.extend(limit.map(|limit| format!("limit={limit}")));
        f.write_str(&parts.join(" "))
    }
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
        Renderer { format: FOLDED, render: |answer| Ok(folded(&Profile::of_tasks(&answer.tasks)).into()) },
        Renderer { format: PPROF, render: |answer| document(&Profile::of_tasks(&answer.tasks), "goroutine") },
    ];

    fn text(&self) -> String {
        self.stacktrace.clone()
    }
}

impl TasksAnswer {
    /// `stacks_of` unwinds the threads that run tasks of the answer; `full` for text that leaves out nothing.
    pub(crate) fn new(
        list: (EngineName, TaskList),
        stacks_of: impl FnOnce(Vec<Thread>) -> Vec<ThreadStack>,
        filter: &Filter,
        full: bool,
    ) -> Self {
        let (engine, TaskList { mut tasks, capture, threads: mut running, .. }) = list;
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
        let (matching, threads) = (tasks.len(), options.threads);
        Self {
            stacktrace,
            engine,
            capture,
            total,
            matching,
            groups: Vec::new(),
            more_groups: None,
            threads,
            tasks,
        }
    }

    /// Leaves a part of the tasks.
    pub(crate) fn take(&mut self, part: &Part) {
        if *part == (Part { full: part.full, ..Part::default() }) {
            return;
        }
        let selection = self.stacktrace.lines().next().filter(|_| self.tasks.len() < self.total);
        let selection = selection.map(str::to_owned);
        let threads = std::mem::take(&mut self.threads);
        let options = TextOptions { full: part.full, selection, threads };
        if let Some(key) = &part.group {
            task_groups::retain(&mut self.tasks, &options, key);
        }
        self.matching = self.tasks.len();
        let limit = part.limit.unwrap_or(usize::MAX);
        if part.groups {
            let Groups { groups, more } = Groups::of(&self.tasks, &options, part.offset, limit);
            self.stacktrace = head(&self.tasks, &options);
            self.groups = groups;
            self.more_groups = Some(more);
            self.tasks = Vec::new();
        } else {
            self.tasks.drain(..part.offset.min(self.matching));
            self.tasks.truncate(limit);
            self.stacktrace = text(&self.tasks, &self.capture.notes, &options);
            self.threads = options.threads;
        }
    }
}
