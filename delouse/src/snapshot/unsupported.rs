//! Where there is no engine: other systems, other processors. The same names, and an error for an answer.

use super::{Capture, Limits, Mapping, Prediction, Snapshot, SnapshotError, Thread};

/// A snapshot that does not exist here.
#[derive(Debug)]
pub(crate) enum Live {}

/// A forked image that does not exist here.
pub(crate) type Image = Live;

impl Live {
    /// Always [`SnapshotError::Unsupported`].
    pub(crate) fn now() -> Result<Self, SnapshotError> {
        Err(SnapshotError::Unsupported)
    }

    /// Never called.
    pub(crate) fn intact(&self) -> Result<(), SnapshotError> {
        match *self {}
    }
}

impl Snapshot for Live {
    fn read(&self, _: u64, _: &mut [u8]) -> usize {
        match *self {}
    }

    fn mappings(&self) -> &[Mapping] {
        match *self {}
    }

    fn threads(&self) -> &[Thread] {
        match *self {}
    }

    fn capture(&self) -> &Capture {
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
pub(crate) fn fork(_: Limits) -> Result<Image, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Always [`SnapshotError::Unsupported`].
pub(crate) fn fork_with_threads(_: Limits) -> Result<Image, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Always [`SnapshotError::Unsupported`].
pub(crate) fn freeze_fork_thaw(_: Limits) -> Result<Image, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Always [`SnapshotError::Unsupported`].
pub(crate) fn predict(_: usize) -> Result<Prediction, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Not known here.
pub(crate) fn monotonic_nanos() -> Option<u64> {
    None
}
