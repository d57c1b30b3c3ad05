//! Why there is no snapshot.

use std::fmt;
use std::time::Duration;

use super::limits;
use super::room::Shortage;

/// Why there is no snapshot. Nothing was changed in the program, and nothing stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SnapshotError {
    /// Not Linux on x86_64 or aarch64.
    #[allow(dead_code, reason = "made on other systems only")]
    Unsupported,
    /// Something of `/proc` cannot be read: the file and the error number.
    Proc(&'static str, i32),
    /// The program uses SIGURG and every real-time signal itself.
    NoSignal,
    /// Threads never came back from earlier captures: no more are started.
    Stuck,
    /// Not enough address space for the capture's slots: the error number.
    NoMemory(i32),
    /// They would take too much of what is left to the program.
    Short(Shortage),
    /// The fork would stop the program for longer than the budget.
    OverBudget {
        /// The predicted stop.
        predicted: Duration,
        /// What was allowed.
        budget: Duration,
        /// Anonymous memory of the program, in bytes.
        anonymous: u64,
    },
    /// The fork might get the program killed for lack of memory.
    NoHeadroom {
        /// Bytes that the image may come to need.
        needed: u64,
        /// Bytes that are left.
        available: u64,
        /// Who sets the limit.
        limit: &'static str,
    },
    /// The kernel has no huge pages, or none that can be asked for.
    NoHugePages,
    /// `clone` failed: the error number.
    Fork(i32),
    /// The forked image is gone, and why where that is known.
    ImageLost(&'static str),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("captures need Linux on x86_64 or aarch64"),
            Self::Proc(_, libc::EMFILE) | Self::Fork(libc::EMFILE) => write!(
                f,
                "the program has as many files open as it may (RLIMIT_NOFILE): raise the limit while it runs, with {}",
                limits::more_files()
            ),
            Self::Proc(file, errno) => {
                write!(f, "cannot read {file}: {}; is /proc mounted?", error_text(*errno))
            }
            Self::NoSignal => {
                f.write_str("no signal is free: the program handles SIGURG and all real-time signals")
            }
            Self::Stuck => {
                f.write_str("threads are stuck in earlier captures: restart the program to capture again")
            }
            Self::Short(shortage) => write!(f, "no memory for the capture: {shortage}"),
            Self::NoMemory(errno) => write!(f, "no memory for the capture: {}", error_text(*errno)),
            Self::OverBudget { predicted, budget, anonymous } => write!(
                f,
                "a fork would stop the program for about {} ms ({} MB of memory), more than the {} ms allowed: \
                 join its memory into huge pages first (POST /huge-pages), or raise DELOUSE_PAUSE_BUDGET_MS",
                predicted.as_millis(),
                anonymous >> 20,
                budget.as_millis()
            ),
            Self::NoHeadroom { needed, available, limit } => write!(
                f,
                "a forked image may need {} MB, {limit} leaves {} MB: give the program more memory",
                needed >> 20,
                available >> 20
            ),
            Self::NoHugePages => f.write_str(
                "huge pages cannot be had here: Linux 6.1 or newer with transparent huge pages (which may be off)",
            ),
            Self::Fork(libc::EAGAIN) => f.write_str(
                "cannot fork: no more processes are allowed; raise the limit (pids.max of the cgroup, or \
                 RLIMIT_NPROC)",
            ),
            Self::Fork(libc::ETIMEDOUT) => f.write_str(
                "cannot fork: the thread that does so has not answered for half a second; the machine is busy, or a \
                 network file system hangs",
            ),
            Self::Fork(errno) => write!(f, "cannot fork: {}", error_text(*errno)),
            Self::ImageLost(why) => write!(f, "the forked image is gone: {why}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// The system's words for an error number.
fn error_text(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}
