//! The interface of `this_process` for other systems and architectures, where each capture fails.

use std::time::Duration;

use super::never::Never;
use super::{Joined, Limits, SnapshotError};
use crate::snapshot::{HalfClosed, OpenFile, OwnConnection, Thread};

/// A snapshot. Never constructed.
pub(crate) type Live = Never;

/// A forked image. Never constructed.
pub(crate) type ForkedImage = Never;

impl Never {
    /// Always [`SnapshotError::Unsupported`].
    pub(crate) fn now() -> Result<Self, SnapshotError> {
        Err(SnapshotError::Unsupported)
    }

    /// Always [`SnapshotError::Unsupported`].
    pub(crate) fn with_threads(_: Vec<Thread>) -> Result<Self, SnapshotError> {
        Err(SnapshotError::Unsupported)
    }

    /// Never called.
    pub(crate) fn end(self) -> Self {
        match self {}
    }

    /// Never called.
    pub(crate) fn keep_for_analysis(&self) {
        match *self {}
    }

    /// Never called.
    pub(crate) fn intact(&self) -> Result<(), SnapshotError> {
        match *self {}
    }
}

/// Always [`SnapshotError::Unsupported`].
pub(crate) fn rolling() -> Result<Live, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Always [`SnapshotError::Unsupported`].
pub(crate) fn freeze() -> Result<Live, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Always [`SnapshotError::Unsupported`].
pub(crate) fn fork(_: Limits) -> Result<ForkedImage, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Always [`SnapshotError::Unsupported`].
pub(crate) fn fork_with_threads(_: Limits) -> Result<ForkedImage, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Always [`SnapshotError::Unsupported`].
pub(crate) fn freeze_fork_thaw(_: Limits) -> Result<ForkedImage, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Always [`SnapshotError::Unsupported`].
pub(crate) fn join_huge_pages() -> Result<Joined, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Does nothing.
pub(crate) fn yield_to_program() {}

/// Core files are written from a forked image.
pub(crate) mod core_writer {
    use crate::targets::{Prediction, SnapshotError};

    /// The cost of a core file. Never constructed.
    pub(crate) struct Estimate {
        pub(crate) bytes: u64,
        pub(crate) prediction: Prediction,
    }

    /// Always [`SnapshotError::Unsupported`].
    pub(crate) fn estimate() -> Result<Estimate, SnapshotError> {
        Err(SnapshotError::Unsupported)
    }
}

pub(crate) fn monotonic_nanos() -> Option<u64> {
    None
}

/// Runs `start`.
pub(crate) fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    start()
}

/// Never constructed.
#[derive(Debug)]
pub(crate) enum QuitSignals {}

/// Always `None`: SIGQUIT keeps its default action.
pub(crate) fn listen_for_quit() -> Option<QuitSignals> {
    None
}

impl QuitSignals {
    /// Never comes.
    pub(crate) fn count() -> u32 {
        0
    }
}

/// Never constructed.
#[derive(Debug)]
pub(crate) enum TermSignals {}

/// Always `None`: SIGTERM keeps its default action.
pub(crate) fn listen_for_term() -> Option<TermSignals> {
    None
}

/// Always `None`.
pub(crate) fn defer_term() -> Option<TermSignals> {
    None
}

/// Never called.
pub(crate) fn end_by_sigterm() {}

impl TermSignals {
    /// Never comes.
    pub(crate) fn count() -> u32 {
        0
    }

    /// Never comes.
    pub(crate) fn is_deferred() -> bool {
        false
    }
}

/// Wakes of the thread that waits for signals.
pub(crate) struct SignalWakes;

impl SignalWakes {
    /// No signal wakes it.
    pub(crate) fn count() -> u32 {
        0
    }

    /// Ends no wait, as there is no signal to wait for.
    pub(crate) fn wake() {}

    /// Waits for this time, a second at most.
    pub(crate) fn wait(seen: u32, time: Duration) -> u32 {
        std::thread::sleep(time.min(Duration::from_secs(1)));
        seen
    }
}

/// Always `None`.
pub(crate) fn open_file(_: i32) -> Option<OpenFile> {
    None
}

/// Not supported here.
pub(crate) fn closed_by_peer(_: usize) -> Vec<HalfClosed> {
    Vec::new()
}

/// Not supported here.
pub(crate) fn own_connections(_: &[i32]) -> Vec<OwnConnection> {
    Vec::new()
}

/// Not known here.
pub(crate) fn writes_to_a_full_pipe(_: i32) -> bool {
    false
}
