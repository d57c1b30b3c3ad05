//! Where there is no engine: other systems, other processors. The same names, and an error for an answer.

use std::time::Duration;

use super::{Capture, Mapping, Snapshot, SnapshotError, Thread};

/// What a capture may cost the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The longest stop.
    pub(crate) budget: Duration,
    /// Go on whatever was predicted.
    pub(crate) force: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { budget: Duration::from_millis(50), force: false }
    }
}

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
