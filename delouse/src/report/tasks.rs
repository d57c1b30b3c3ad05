//! The answer of `/stacktrace/tokio`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::Capture;
use crate::tasks::Task;
use crate::tasks::engine::{EngineName, TaskList};

use super::Filter;
use super::task_text::{TextOptions, text};

/// Every task of every runtime.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TasksAnswer {
    /// All of it as text for people: identical stacks in groups, the largest first.
    pub stacktrace: String,
    /// Who found the tasks.
    pub engine: EngineName,
    /// How the capture went.
    pub capture: Capture,
    /// How many tasks there are, of which those that fit the request are listed.
    pub total: usize,
    /// The tasks, ordered by id.
    pub tasks: Vec<Task>,
}

impl TasksAnswer {
    /// `full` for text that leaves out nothing.
    pub(crate) fn new((engine, list): (EngineName, TaskList), filter: &Filter, full: bool) -> Self {
        let TaskList { mut tasks, capture, .. } = list;
        let total = tasks.len();
        let selection = filter.apply(&mut tasks);
        let stacktrace = text(&tasks, &capture.notes, &TextOptions { full, selection });
        Self { stacktrace, engine, capture, total, tasks }
    }
}
