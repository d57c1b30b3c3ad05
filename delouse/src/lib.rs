//! A debugging companion for async Rust services.
//!
//! Use `#[delouse::main]` instead of `#[tokio::main]`. With the feature `debug`, a server on 127.0.0.1:7132 then reports
//! what every task and every thread of the program is doing, and what each waits for.
//!
#![cfg_attr(feature = "main", doc = "```no_run")]
#![cfg_attr(not(feature = "main"), doc = "```ignore")]
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
//! - `/diagnosis` reports what is wrong, worst first: deadlocks, blocked workers, tasks that keep each other alive, futures
//!   that are not polled. It takes several samples if one could have caught a passing state.
//! - `/waits` shows what each task waits for, and which task holds it in which variable; `?format=dot` draws the graph.
//! - `/stacktrace/tokio` forks an image of the program and reads every task from it, using the types in the debug
//!   information: each async function, down to the resource that the innermost one waits for. It polls no future and
//!   takes no lock of the program.
//! - `/stacktrace/rust` has each thread copy its registers and its stack, one after the other, and unwinds the copies.
//! - `/core` streams a core file of the running program; `/coredump` ends the program with one.
//! - `/elf/info` shows how the binary was built, and therefore how good the other answers are.
//! - [`dump`](dump()) prints tasks and threads to stderr, and so does the first SIGQUIT (Ctrl-\\), for programs that `curl`
//!   cannot reach.
//! - `offline` (with the feature `engine`) reads the tasks of a core file, or of another process.
//!
//! The server has its own threads and its own runtime, so that it answers while all workers of the program are blocked.
//!
//! # Requirements
//!
//! Tasks need full debug information (`debug = "full"`, the default of dev builds); threads need line tables. Neither
//! needs `tokio_unstable` or a feature of tokio. [`Config`] has the settings.
//!
//! # Cost
//!
//! With the features off: none. The attribute expands to the same code as `#[tokio::main]`, and the crate depends only on
//! tokio and the macro. With `debug` on: two sleeping threads, and no cost per poll. A capture of threads stops each
//! thread for some microseconds. A capture of tasks, or a core file, stops the program for one `fork`: about 2 ms with 50 MB
//! of memory, 50 ms with 1 GB. Above a budget, tasks are read without stopping the program, and core files are refused.
//! Debug information takes tens of megabytes of memory, which are released after a minute without requests.
//!
//! # Limitations
//!
//! - It does not record: it shows the current state. Use tokio-console or tracing for the past; all can be used together.
//! - It is not safe to expose to a network: clients see all memory in a core file, and may end the program. The server only
//!   listens on loopback addresses, unless there is a token.
//! - On systems other than Linux on x86_64 everything compiles, and answers report what is missing.
//!
//! # Features
//!
//! - `main`, the default: the attribute, [`Config`], [`register`] and [`dump`](dump()). They have no effect without `dump`.
//! - `dump`: the effect of [`dump`](dump()) and of SIGQUIT, without the server and the hundred crates that it needs.
//! - `debug`: the server and `dump`.
//! - `cli`: the command `delouse`, which reads other processes and core files, and serves them. Contains `debug`.
//! - `engine`: `offline` and `model` alone, without tokio. `dump` and `debug` contain it.
//! - `taskdump`: tokio's own task dump as a second engine, for `?engine=taskdump` and for binaries without types.
//!   Needs `--cfg tokio_unstable`. It polls every task, and is known to freeze runtimes.
#![cfg_attr(not(feature = "engine"), forbid(unsafe_code))]
#![cfg_attr(feature = "engine", deny(unsafe_code))]
// A layer is compiled as a whole. With `cli`, where all of it is used, dead code is reported.
#![cfg_attr(all(feature = "engine", not(feature = "cli")), allow(dead_code, unused_imports))]

/// Reports on stderr that a test cannot run here. `println!` would not do: libtest hides what passing tests print.
#[cfg(all(test, feature = "engine"))]
macro_rules! skipped {
    ($($reason:tt)+) => {{
        use std::io::Write as _;
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {}", format_args!($($reason)+));
    }};
}

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "engine")]
mod debuginfo;
#[cfg(feature = "engine")]
#[expect(unsafe_code, reason = "maps files, and asks the system for limits")]
mod host;
#[cfg(feature = "engine")]
mod inspector;
#[cfg(all(test, feature = "engine"))]
mod isolation;
#[cfg(feature = "engine")]
pub mod offline;
#[cfg(feature = "engine")]
mod report;
#[cfg(feature = "engine")]
mod snapshot;
#[cfg(feature = "engine")]
#[allow(unsafe_code, reason = "the one layer that touches live processes; other systems have none")]
mod targets;
#[cfg(feature = "engine")]
mod tasks;
#[cfg(feature = "engine")]
mod threads;
#[cfg(feature = "engine")]
mod waits;

#[cfg(feature = "main")]
mod config;
#[cfg(feature = "main")]
mod dispatch;
#[cfg(feature = "main")]
mod dump_error;
#[cfg(feature = "main")]
mod duration;
#[cfg(any(feature = "main", feature = "engine"))]
mod finding_change;
#[cfg(feature = "main")]
mod finding_event;
#[cfg(feature = "main")]
#[cfg_attr(not(feature = "dump"), path = "disabled.rs")]
mod runtime;
#[cfg(feature = "main")]
mod started;
#[cfg(feature = "main")]
mod test_run;

#[cfg(feature = "dump")]
mod dump;
#[cfg(feature = "dump")]
mod log;
#[cfg(feature = "dump")]
mod own_threads;
#[cfg(feature = "dump")]
mod panic_hook;
#[cfg(feature = "dump")]
mod registry;
#[cfg(feature = "dump")]
#[cfg_attr(not(feature = "debug"), path = "no_server.rs")]
mod server;
#[cfg(feature = "dump")]
mod settings;
#[cfg(feature = "dump")]
mod shutdown;
#[cfg(feature = "dump")]
mod signal_listener;
#[cfg(feature = "dump")]
mod stderr_dump;
#[cfg(feature = "dump")]
mod watch;

#[cfg(feature = "main")]
pub use {
    config::{Config, init},
    delouse_macros::{main, test},
    dump_error::DumpError,
    finding_change::FindingChange,
    finding_event::FindingEvent,
    runtime::{register, unregister},
    started::Started,
};

#[cfg(feature = "dump")]
pub use dump::dump;
#[cfg(all(feature = "main", not(feature = "dump")))]
pub use runtime::dump;

/// The types of answers: each endpoint's JSON is one of these.
#[cfg(feature = "engine")]
pub mod model {
    pub use crate::finding_change::FindingChange;
    pub use crate::report::{
        DiagnosisAnswer, FindingReport, HistoryAnswer, HistoryEvent, NotJudged, ObservationReport, TaskGroup,
        TasksAnswer, ThreadGroup, ThreadSummary, ThreadsAnswer, WaitsAnswer, WatchReport,
    };
    pub use crate::snapshot::Capture;
    pub use crate::tasks::engine::EngineName;
    pub use crate::tasks::{
        Address, BlockingCall, Connection, Direction, Driven, Frame, Io, Listing, Origin, ResourceKind, Task,
        TaskKind, TaskState, Waiting, WaitsOn,
    };
    pub use crate::threads::{Activity, StackFrame, ThreadRole, ThreadStack};
    pub use crate::waits::{
        CodeLocation, Doubt, Edge, Evidence, FindingKind, Gap, Holder, ObservationKind, Party, Resource,
        Scope, Severity, TaskIds, TaskWait, ThreadAt, Unjudged, WaitGraph,
    };
}

/// Used by the expansion of the attributes. Not for users, and not stable.
#[cfg(feature = "main")]
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "dump")]
    pub use crate::runtime::{block_on, block_on_local};
    pub use crate::test_run::{Leaks, Test, run_test, run_test_local};
}
