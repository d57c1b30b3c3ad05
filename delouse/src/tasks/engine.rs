//! The ways to list tasks. Each is an [`Engine`]; [`Engines`] picks the one that answers.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Task;
use super::roots::Roots;
use super::taskdump::Taskdump;
use crate::snapshot::Capture;

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
}

/// The engines by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// tokio's own task dump, which polls every task once more.
    Taskdump,
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taskdump => f.write_str("taskdump"),
        }
    }
}

impl FromStr for EngineName {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "taskdump" => Ok(Self::Taskdump),
            _ => Err(()),
        }
    }
}

/// Why an engine gave no tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineError {
    /// This build does not have it. The message says which setting to add, word for word.
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

/// All engines, the preferred one first.
pub(crate) struct Engines(Vec<Box<dyn Engine>>);

impl Engines {
    pub(crate) fn new() -> Self {
        Self(vec![Box::new(Taskdump::default())])
    }

    /// The engine of that name, or else the preferred one.
    pub(crate) fn pick(&self, name: Option<EngineName>) -> Option<&dyn Engine> {
        self.0.iter().map(Box::as_ref).find(|e| name.is_none_or(|name| e.name() == name))
    }
}
