//! Why a dump failed. Compiled in every build, so that user code needs no `cfg`.

use std::fmt;

/// Why a dump was not printed, or not completely.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DumpError {
    /// Another dump is being written.
    Busy,
    /// No thread could be started: a limit (`pids.max`, `RLIMIT_NPROC`) is reached.
    NoThread,
    /// There is not enough address space (`RLIMIT_AS`, the system's commit limit).
    NoRoom,
    /// The program can open only few more files (`RLIMIT_NOFILE`), which are reserved for it.
    NoFiles,
    /// The dump takes longer than the caller waits. It will be printed when it is complete.
    Late,
    /// Writing to stderr failed.
    Stderr(std::io::ErrorKind),
    /// delouse failed; the program is not affected.
    Failed,
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("another dump is being written"),
            Self::NoThread => f.write_str(
                "no thread for the dump: raise the limit (pids.max of the cgroup, or RLIMIT_NPROC)",
            ),
            Self::NoRoom => f.write_str("not enough address space for the dump: raise RLIMIT_AS"),
            Self::NoFiles => f.write_str("not enough files can be opened for the dump: raise RLIMIT_NOFILE"),
            Self::Late => f.write_str("the dump takes long: it will be printed when it is complete"),
            Self::Stderr(kind) => write!(f, "cannot write the dump to stderr: {kind}"),
            Self::Failed => f.write_str("the dump failed; the program is not affected"),
        }
    }
}

impl std::error::Error for DumpError {}
