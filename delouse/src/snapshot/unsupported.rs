//! Where there is no engine: other systems, other processors. The same names, and an error for an answer.

use super::{Capture, Joined, Limits, Mapping, OpenFile, Snapshot, SnapshotError, Thread};

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

    /// Always [`SnapshotError::Unsupported`].
    pub(crate) fn of(_: Vec<Thread>) -> Result<Self, SnapshotError> {
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

/// Never known.
pub(crate) fn memory_left() -> Option<(u64, &'static str)> {
    None
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
pub(crate) fn join_huge_pages() -> Result<Joined, SnapshotError> {
    Err(SnapshotError::Unsupported)
}

/// Threads are scheduled as they are.
pub(crate) fn give_way() {}

/// Core files need an image.
pub(crate) mod core_writer {
    use std::fmt;
    use std::io::Write;

    use super::Image;
    use crate::snapshot::{Prediction, SnapshotError};

    /// What a core file of now would cost.
    pub(crate) struct Estimate {
        /// About its size in bytes, uncompressed.
        pub(crate) bytes: u64,
        /// The stop, and the memory that it takes.
        pub(crate) prediction: Prediction,
    }

    /// There is none without an image.
    #[derive(Debug)]
    pub(crate) enum CoreError {}

    impl fmt::Display for CoreError {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            match *self {}
        }
    }

    /// Always [`SnapshotError::Unsupported`].
    pub(crate) fn estimate() -> Result<Estimate, SnapshotError> {
        Err(SnapshotError::Unsupported)
    }

    /// Never called.
    pub(crate) fn write(image: &Image, _: &mut dyn Write) -> Result<(), CoreError> {
        match *image {}
    }
}

/// Not known here.
pub(crate) fn own_mappings() -> std::io::Result<Vec<Mapping>> {
    Err(std::io::ErrorKind::Unsupported.into())
}

pub(crate) fn monotonic_nanos() -> Option<u64> {
    None
}

/// Runs `start`, with nothing around it.
pub(crate) fn shielded<T>(start: impl FnOnce() -> T) -> T {
    start()
}

/// Does not exist here.
pub(crate) enum Quits {}

/// SIGQUIT is left alone here.
pub(crate) fn quits() -> Option<Quits> {
    None
}

impl Quits {
    /// Never called.
    pub(crate) fn reader(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        match *self {}
    }
}

/// Not known here.
pub(crate) fn open_file(_: i32) -> Option<OpenFile> {
    None
}
