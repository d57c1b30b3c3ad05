//! A debugging companion for async Rust services.
//!
//! `#[delouse::main]` in place of `#[tokio::main]`; with the feature `debug`, a server on 127.0.0.1:7132 tells
//! whoever asks with `curl` what every task and every thread of the program is doing, and what each waits for.
//!
//! ```no_run
//! #[delouse::main]
//! async fn main() {
//!     let heart = tokio::spawn(async {
//!         loop {
//!             tokio::time::sleep(std::time::Duration::from_secs(1)).await;
//!         }
//!     });
//!     let _ = heart.await;
//! }
//! ```
//!
//! ```text
//! cargo run --features debug
//! curl 'localhost:7132/?format=text'
//! ```
//!
//! # What it does
//!
//! - `/diagnosis` tells what is wrong, worst first: deadlocks, workers that do not come back, tasks that keep one
//!   another alive, futures that nobody polls. It looks twice where one look may have caught a passing moment.
//! - `/waits` tells who waits for what, and which task holds it in which variable; `?format=dot` draws it.
//! - `/stacktrace/tokio` forks an image of the program and reads every task out of it, by the types in the
//!   debug information: async function by async function, down to the resource that the innermost one waits
//!   for. No future is polled, no lock of the program is taken.
//! - `/stacktrace/rust` has every thread copy its registers and its stack, one after the other, and unwinds the
//!   copies.
//! - `/core` streams a core file of the program, which goes on; `/coredump` ends it with one.
//! - `/elf/info` tells how the binary was built, and so how good the other answers are.
//! - [`dump`](dump()) prints tasks and threads to stderr from inside, and so does SIGQUIT (Ctrl-\\), the first time:
//!   for the days when no `curl` reaches the program.
//! - `offline` (with the feature `debug`) reads the tasks of a core file, or of another process.
//!
//! All of it lives on threads and on a runtime of its own, and answers while every worker of the program is
//! blocked.
//!
//! # What the program must bring
//!
//! Full debug information (`debug = "full"`, the default of dev builds) for tasks; line tables are enough for
//! threads. Nothing else: no `tokio_unstable`, no feature of tokio. [`Config`] has the settings.
//!
//! # What it costs
//!
//! With the feature off: nothing. The attribute expands to what `#[tokio::main]` expands to, and the crate is
//! tokio and the macro. With it on: two threads that sleep, and no cost per poll. A capture of threads stops each
//! of them for some microseconds; a capture of tasks, or a core, stops the program for one `fork` (about 2 ms at
//! 50 MB of memory, 50 ms at 1 GB), or is refused, or read without stopping, above a budget. What is read of the
//! debug information takes tens of megabytes and is given back after a minute.
//!
//! # What it is not for
//!
//! - Recording: it shows what is, not what was. tokio-console and tracing do that; they go together.
//! - Production behind no firewall: whoever may ask sees all memory in a core and may end the program. It listens
//!   on loopback only, unless there is a token.
//! - Systems other than Linux on x86_64: everything compiles there, and says what is missing.
//!
//! # Features
//!
//! - `debug`: the server and all captures.
//! - `taskdump`: tokio's own task dump as a second engine, for `?engine=taskdump` and for binaries without types.
//!   Needs `--cfg tokio_unstable`. It polls every task and is known to freeze runtimes.
#![cfg_attr(not(feature = "debug"), forbid(unsafe_code))]
#![cfg_attr(feature = "debug", deny(unsafe_code))]

mod config;
mod dispatch;
mod dump_error;

#[cfg(feature = "debug")]
mod debuginfo;
#[cfg(feature = "debug")]
mod dump;
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
#[cfg(feature = "debug")]
mod waits;

#[cfg(not(feature = "debug"))]
mod disabled;

pub use config::Config;
pub use delouse_macros::main;
#[cfg(not(feature = "debug"))]
pub use disabled::{dump, register};
#[cfg(feature = "debug")]
pub use dump::dump;
pub use dump_error::DumpError;
#[cfg(feature = "debug")]
pub use report::{DiagnosisAnswer, TasksAnswer, ThreadsAnswer, WaitsAnswer};
#[cfg(feature = "debug")]
pub use runtime::register;
#[cfg(feature = "debug")]
pub use snapshot::Capture;
#[cfg(feature = "debug")]
pub use tasks::engine::EngineName;
#[cfg(feature = "debug")]
pub use tasks::{
    Address, Connection, Direction, Frame, Io, Listing, Origin, ResourceKind, Task, TaskKind, TaskState,
    WaitsOn,
};
#[cfg(feature = "debug")]
pub use threads::{Activity, StackFrame, ThreadRole, ThreadStack};
#[cfg(feature = "debug")]
pub use waits::{
    Edge, Finding, FindingKind, Gap, Holder, LookedAt, NotJudged, Resource, Severity, WaitGraph,
};

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
