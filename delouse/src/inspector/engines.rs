//! The engines that list tasks, and which of them answers.

use super::memory_engine::MemoryEngine;
use super::taskdump::Taskdump;
use crate::registry::Roots;
use crate::snapshot::Capture;
use crate::targets::Limits;
use crate::tasks::Examination;
use crate::tasks::engine::{EngineError, EngineName, TaskList};

/// All engines.
pub(crate) struct Engines {
    memory: MemoryEngine,
    taskdump: Taskdump,
}

impl Engines {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { memory: MemoryEngine::new(limits), taskdump: Taskdump::default() }
    }

    /// Captures the tasks by the memory engine and returns what `look` returns for them. May take seconds.
    pub(crate) fn examine<R>(
        &self,
        roots: &Roots,
        look: impl FnOnce(Examination<'_, '_, '_>) -> R,
    ) -> Result<(R, Capture), EngineError> {
        self.memory.examine(roots, true, look)
    }

    /// Drops everything that is kept for the next request.
    pub(crate) fn release(&self) {
        self.memory.release();
    }

    /// The tasks by the engine that was asked for; by memory where none was, and by the task dump where
    /// memory cannot be read for lack of types. One caller at a time; may take seconds, but always returns.
    pub(crate) fn list(
        &self,
        asked: Option<EngineName>,
        roots: &Roots,
    ) -> Result<(EngineName, TaskList), EngineError> {
        let memory = || Ok((EngineName::Memory, self.memory.list(roots)?));
        let taskdump = || Ok((EngineName::Taskdump, self.taskdump.list(roots)?));
        match asked {
            Some(EngineName::Taskdump) => taskdump(),
            Some(EngineName::Memory) => memory(),
            None => {
                let (name, list) = memory()?;
                if !list.without_types {
                    return Ok((name, list));
                }
                match taskdump() {
                    Ok((name, mut dump)) => {
                        dump.capture.notes.extend(list.capture.notes);
                        Ok((name, dump))
                    }
                    // What memory has without types is better than nothing, and says what to add.
                    Err(EngineError::NotBuilt(_) | EngineError::Refused(_)) => Ok((name, list)),
                }
            }
        }
    }
}
