//! Why a snapshot cannot be taken.

use std::time::Duration;
use std::{fmt, io};

use crate::host::limits;
use crate::host::memory_budget::Shortage;

/// Why a snapshot cannot be taken. The program is unchanged, and none of its threads is stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// Not Linux on x86_64 or aarch64.
    #[allow(dead_code, reason = "constructed on other systems only")]
    #[error("captures need Linux on x86_64 or aarch64")]
    Unsupported,
    /// A file of `/proc` cannot be read: the file and the error number.
    #[error(fmt = proc_text)]
    Proc(&'static str, i32),
    /// The program handles SIGURG and all real-time signals itself.
    #[error("no signal is free: the program handles SIGURG and all real-time signals")]
    NoSignal,
    /// Threads have not left the signal handlers of earlier captures: no further captures are started.
    #[error("threads are stuck in earlier captures: restart the program to capture again")]
    Stuck,
    /// Memory for the capture cannot be mapped: the error number.
    #[error("no memory for the capture: {}", error_text(*.0))]
    NoMemory(i32),
    /// The capture would exceed the memory budget.
    #[error("no memory for the capture: {0}")]
    Short(#[from] Shortage),
    /// The fork would stop the program for longer than the budget.
    #[error(
        "a fork would stop the program for about {} ms ({} MB of memory), more than the {} ms allowed: join its memory into \
         huge pages first (POST /huge-pages), or raise DELOUSE_PAUSE_BUDGET_MS",
        .predicted.as_millis(), .anonymous >> 20, .budget.as_millis()
    )]
    OverBudget {
        predicted: Duration,
        budget: Duration,
        /// Anonymous memory of the program, in bytes.
        anonymous: u64,
    },
    /// After the fork, the program might run out of memory and be killed.
    #[error(
        "a forked image may need {} MB, {limit} leaves {} MB: give the program more memory",
        .needed >> 20, .available >> 20
    )]
    NoHeadroom {
        /// Bytes that the image may need.
        needed: u64,
        available: u64,
        /// A name of the limit that applies.
        limit: &'static str,
    },
    /// The kernel has no transparent huge pages, or no way to request them.
    #[error(
        "huge pages are not available: they need Linux 6.1 or newer, with transparent huge pages enabled"
    )]
    NoHugePages,
    /// `clone` failed: the error number.
    #[error(fmt = fork_text)]
    Fork(i32),
    /// The forked child has ended: the reason.
    #[error("the forked image has ended: {0}")]
    ImageLost(&'static str),
}

impl SnapshotError {
    /// For a file of `/proc` that cannot be read.
    pub(super) fn proc(file: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Proc(file, error.raw_os_error().unwrap_or(libc::EIO))
    }
}

fn proc_text(file: &str, errno: &i32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match *errno {
        libc::EMFILE => too_many_files(f),
        errno => write!(f, "cannot read {file}: {}; is /proc mounted?", error_text(errno)),
    }
}

fn fork_text(errno: &i32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match *errno {
        libc::EMFILE => too_many_files(f),
        libc::EAGAIN => f.write_str(
            "cannot fork: no more processes are allowed; raise the limit (pids.max of the cgroup, or RLIMIT_NPROC)",
        ),
        libc::ETIMEDOUT => f.write_str(
            "cannot fork: the thread that forks has not started within half a second; the machine is busy, or a \
             network file system hangs",
        ),
        errno => write!(f, "cannot fork: {}", error_text(errno)),
    }
}

fn too_many_files(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "the program has as many files open as RLIMIT_NOFILE allows: raise the limit while it runs with {}",
        limits::more_files()
    )
}

/// The system's message for an error number.
fn error_text(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
