//! A debugging companion for async Rust services.

#[cfg(feature = "debug")]
mod debuginfo;
#[cfg(feature = "debug")]
mod report;
#[cfg(feature = "debug")]
mod snapshot;
#[cfg(feature = "debug")]
mod tasks;
#[cfg(feature = "debug")]
mod threads;

#[cfg(feature = "debug")]
pub use snapshot::Capture;
#[cfg(feature = "debug")]
pub use tasks::{Frame, ResourceKind, Task, TaskKind, TaskState, WaitsOn};
#[cfg(feature = "debug")]
pub use threads::{Activity, StackFrame, ThreadRole, ThreadStack};
