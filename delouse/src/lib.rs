//! A debugging companion for async Rust services.

#[cfg(feature = "debug")]
mod debuginfo;
#[cfg(feature = "debug")]
pub mod offline;
#[cfg(feature = "debug")]
mod snapshot;
#[cfg(feature = "debug")]
mod tasks;
#[cfg(feature = "debug")]
mod threads;

#[cfg(feature = "debug")]
pub use snapshot::Capture;
#[cfg(feature = "debug")]
pub use tasks::{Frame, Origin, ResourceKind, Task, TaskKind, TaskList, TaskState, WaitsOn};
#[cfg(feature = "debug")]
pub use threads::{StackFrame, ThreadStack};
