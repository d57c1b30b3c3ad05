//! What the engines that list tasks return.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Task;
use crate::snapshot::{Capture, Thread};

/// What an engine found.
#[derive(Debug, Default)]
pub(crate) struct TaskList {
    pub(crate) tasks: Vec<Task>,
    pub(crate) capture: Capture,
    /// The threads that run tasks, with copies of their stacks.
    pub(crate) threads: Vec<Thread>,
    /// The debug information has no types: another engine may see more.
    pub(crate) without_types: bool,
}

/// The engines by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EngineName {
    /// An image of the program's memory, read by the types in its debug information.
    Memory,
    /// tokio's own task dump, which polls every task once more.
    Taskdump,
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Taskdump => f.write_str("taskdump"),
        }
    }
}

/// Why an engine returns no tasks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// This build does not have it. The message has the settings to add.
    #[allow(dead_code, reason = "made in builds without the task dump only")]
    #[error("{0}")]
    NotBuilt(&'static str),
    /// It cannot list them now, for this reason; a later request may succeed.
    #[error("{0}")]
    Refused(String),
}
