//! A debugging companion for async Rust services.

mod config;
#[cfg(feature = "debug")]
mod debuginfo;
mod dispatch;
#[cfg(feature = "debug")]
mod runtime;
#[cfg(feature = "debug")]
mod snapshot;
#[cfg(feature = "debug")]
mod tasks;
#[cfg(feature = "debug")]
mod threads;

pub use config::Config;
pub use delouse_macros::main;
#[cfg(feature = "debug")]
pub use snapshot::Capture;
#[cfg(feature = "debug")]
pub use tasks::{Frame, ResourceKind, Task, TaskKind, TaskState, WaitsOn};
#[cfg(feature = "debug")]
pub use threads::{StackFrame, ThreadStack};

/// What the expansion of [`main`](macro@main) calls; no part of the interface.
#[cfg(feature = "debug")]
#[doc(hidden)]
pub mod __private {
    pub use crate::runtime::{block_on, block_on_local};
}
