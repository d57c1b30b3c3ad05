//! Every OS thread's stack.

pub(crate) mod portable;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One OS thread and its stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThreadStack {
    /// The kernel's thread id.
    pub tid: i32,
    /// The thread's name (at most 15 bytes reach the kernel).
    pub name: String,
    /// `running`, `sleeping`, `uninterruptible`, …
    pub state: Option<String>,
    /// The task that it polls right now, where that can be known.
    pub runs_task: Option<u64>,
    /// Why there are no frames, where there are none.
    pub unavailable: Option<String>,
    /// The stack, innermost frame first.
    pub frames: Vec<StackFrame>,
}

/// One frame of a thread's stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct StackFrame {
    /// The function as its author wrote it: no hash, no crate disambiguator.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
    /// File name of the module (executable, library) that holds the code.
    pub module: Option<String>,
    /// Program counter, hexadecimal; the same for all functions inlined at one place.
    pub address: String,
}
