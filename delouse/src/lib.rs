//! A debugging companion for async Rust services.
#![cfg_attr(not(feature = "debug"), forbid(unsafe_code))]
#![cfg_attr(feature = "debug", deny(unsafe_code))]

mod config;
mod dispatch;

#[cfg(feature = "debug")]
mod debuginfo;
#[cfg(feature = "debug")]
pub mod offline;
#[cfg(feature = "debug")]
mod report;
#[cfg(feature = "debug")]
mod runtime;
#[cfg(feature = "debug")]
mod server;
#[cfg(feature = "debug")]
mod settings;
#[cfg(feature = "debug")]
#[expect(unsafe_code, reason = "the one layer that touches the live process")]
mod snapshot;
#[cfg(feature = "debug")]
mod tasks;
#[cfg(feature = "debug")]
mod threads;

#[cfg(not(feature = "debug"))]
mod disabled;

pub use config::Config;
pub use delouse_macros::main;
#[cfg(not(feature = "debug"))]
pub use disabled::register;
#[cfg(feature = "debug")]
pub use report::{TasksAnswer, ThreadsAnswer};
#[cfg(feature = "debug")]
pub use runtime::register;
#[cfg(feature = "debug")]
pub use snapshot::Capture;
#[cfg(feature = "debug")]
pub use tasks::engine::EngineName;
#[cfg(feature = "debug")]
pub use tasks::{Frame, Listing, Origin, ResourceKind, Task, TaskKind, TaskState, WaitsOn};
#[cfg(feature = "debug")]
pub use threads::{Activity, StackFrame, ThreadRole, ThreadStack};

/// [`Config::init`] with the defaults.
pub fn init() -> Option<std::net::SocketAddr> {
    Config::new().init()
}

/// What the attribute expands to. Not for users, and not stable.
#[cfg(feature = "debug")]
#[doc(hidden)]
pub mod __private {
    pub use crate::runtime::{block_on, block_on_local};
}
