//! Descriptors of other processes, on systems where they cannot be described.

use std::io;

use crate::snapshot::{HalfClosed, OpenFile, OwnConnection};

/// The descriptors of another process.
pub(crate) struct OtherFiles;

impl OtherFiles {
    /// Not supported here.
    pub(crate) fn of(_: u32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Not known here.
    pub(crate) fn describe(&self, _: i32) -> Option<OpenFile> {
        None
    }

    /// Not known here.
    pub(crate) fn closed_by_peer(&self, _: usize) -> Vec<HalfClosed> {
        Vec::new()
    }

    /// Not known here.
    pub(crate) fn own_connections(&self, _: &[i32]) -> Vec<OwnConnection> {
        Vec::new()
    }
}

/// Not known here.
pub(crate) fn writes_to_a_full_pipe(_: i32) -> bool {
    false
}
