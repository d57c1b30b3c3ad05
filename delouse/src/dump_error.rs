//! Why a dump failed. Here in every build, so that user code needs no `cfg`.

use std::fmt;

/// Why there is no dump, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DumpError {
    /// Another one is being written.
    Busy,
    /// No thread could be started for it: a limit on them (`pids.max`, `RLIMIT_NPROC`) is reached.
    NoThread,
    /// There is not enough address space for it (`RLIMIT_AS`, the system's commit limit).
    NoRoom,
    /// The program may open hardly any more files (`RLIMIT_NOFILE`), which are left to it.
    NoFiles,
    /// It takes longer than anybody should wait. It is printed when it is there.
    Late,
    /// stderr does not take it.
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
            Self::Late => f.write_str("the dump takes long: it will be printed when it is there"),
            Self::Stderr(kind) => write!(f, "stderr does not take the dump: {kind}"),
            Self::Failed => f.write_str("the dump failed; the program is not affected"),
        }
    }
}

impl std::error::Error for DumpError {}
