//! What a thread does, in words: one row for each activity.

use crate::threads::Activity;

/// A verb, and what follows it.
pub(super) struct Doing {
    /// Of one thread: `waits`; of several: `wait`; as a participle: `waiting`.
    verb: [&'static str; 3],
    rest: &'static str,
}

impl Doing {
    /// `waits for a child process`.
    pub(super) fn one(&self) -> String {
        format!("{}{}", self.verb[0], self.rest)
    }

    /// `wait for a child process`.
    pub(super) fn several(&self) -> String {
        format!("{}{}", self.verb[1], self.rest)
    }

    /// `waiting for a child process`.
    pub(super) fn now(&self) -> String {
        format!("{}{}", self.verb[2], self.rest)
    }
}

/// The table.
pub(super) fn doing(activity: Activity) -> Doing {
    const BE: [&str; 3] = ["is ", "are ", ""];
    let waiting = |rest| Doing { verb: ["waits ", "wait ", "waiting "], rest };
    let other = |verb| Doing { verb, rest: "" };
    match activity {
        Activity::Running => other(["computes", "compute", "running"]),
        Activity::Lock => waiting("for a lock"),
        Activity::AsyncLock => waiting("for an async lock by a blocking call"),
        Activity::FileLock => waiting("for a lock on a file"),
        Activity::Condvar => waiting("for a condition variable"),
        Activity::Channel => waiting("at a channel"),
        Activity::Barrier => waiting("for other threads at a barrier"),
        Activity::Once => waiting("for an initialisation by another thread"),
        Activity::Pool => waiting("for a job of a thread pool"),
        Activity::PoolObject => waiting("for a connection or another object of a pool"),
        Activity::BlockOn => waiting("in block_on for a future"),
        Activity::Shutdown => waiting("for the shutdown of a runtime"),
        Activity::Sleep => other(["sleeps", "sleep", "sleeping"]),
        Activity::Join => waiting("for another thread to end"),
        Activity::Child => waiting("for a child process"),
        Activity::Park => Doing { verb: BE, rest: "parked" },
        Activity::Io => waiting("for input or output"),
        Activity::Signal => waiting("for a signal"),
        Activity::Futex => waiting("on a futex"),
        Activity::Syscall => Doing { verb: BE, rest: "in a system call" },
        Activity::Idle => Doing { verb: BE, rest: "idle" },
        Activity::Unknown => Doing { verb: BE, rest: "without a stack" },
    }
}
