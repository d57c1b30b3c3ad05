//! The ways to list tasks. Each is an [`Engine`]; [`Engines`] picks the one that answers.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::memory_engine::MemoryEngine;
use super::roots::Roots;
use super::taskdump::Taskdump;
use super::{Examination, Task};
use crate::snapshot::{Capture, Limits, Thread};

/// One way to list tasks.
pub(crate) trait Engine: Send + Sync {
    /// Its name in requests and answers.
    fn name(&self) -> EngineName;

    /// Lists the tasks of all runtimes. Called on a thread of delouse's own, by one caller at a time; may
    /// take seconds, but always comes back.
    fn list(&self, roots: &Roots) -> Result<TaskList, EngineError>;
}

/// What an engine found.
#[derive(Debug, Default)]
pub(crate) struct TaskList {
    pub(crate) tasks: Vec<Task>,
    pub(crate) capture: Capture,
    /// The threads that run some of the tasks, with copies of their stacks.
    pub(crate) threads: Vec<Thread>,
    /// The debug information has no types: another engine may see more.
    pub(crate) without_types: bool,
}

/// The engines by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
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

impl FromStr for EngineName {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "memory" => Ok(Self::Memory),
            "taskdump" => Ok(Self::Taskdump),
            _ => Err(()),
        }
    }
}

/// Why an engine gave no tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineError {
    /// This build does not have it. The message says which setting to add, word for word.
    #[allow(dead_code, reason = "made in builds without the task dump only")]
    NotBuilt(&'static str),
    /// It will not ask now, for this reason; asking again later may help.
    Refused(String),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt(setting) => f.write_str(setting),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

/// All engines.
pub(crate) struct Engines {
    memory: MemoryEngine,
    taskdump: Taskdump,
}

impl Engines {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { memory: MemoryEngine::new(limits), taskdump: Taskdump::default() }
    }

    /// Captures the tasks by the memory engine and lets `look` see them together with what they were read
    /// with. Nothing else sees as much.
    pub(crate) fn examine<R, F>(&self, roots: &Roots, look: F) -> Result<(R, Capture), EngineError>
    where
        F: FnOnce(Examination<'_, '_, '_>) -> R + Send + 'static,
        R: Send + 'static,
    {
        self.memory.examine(roots, look)
    }

    /// Has everything forgotten that is kept for the next request.
    pub(crate) fn release(&self) {
        self.memory.release();
    }

    /// The tasks by the engine that was asked for; by memory where none was, and by the task dump where
    /// memory cannot be read for lack of types.
    pub(crate) fn list(
        &self,
        asked: Option<EngineName>,
        roots: &Roots,
    ) -> Result<(EngineName, TaskList), EngineError> {
        match asked {
            Some(EngineName::Taskdump) => with_name(&self.taskdump, roots),
            Some(EngineName::Memory) => with_name(&self.memory, roots),
            None => {
                let (name, list) = with_name(&self.memory, roots)?;
                if !list.without_types {
                    return Ok((name, list));
                }
                match with_name(&self.taskdump, roots) {
                    Ok((name, mut dump)) => {
                        dump.capture.notes.extend(list.capture.notes);
                        Ok((name, dump))
                    }
                    // What memory tells without types is better than nothing, and says what to add.
                    Err(_) => Ok((name, list)),
                }
            }
        }
    }
}

fn with_name(engine: &dyn Engine, roots: &Roots) -> Result<(EngineName, TaskList), EngineError> {
    engine.list(roots).map(|list| (engine.name(), list))
}
