//! One executable or library, and where it is in memory.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::address::{FileAddress, LoadBias};
use super::object_file::ObjectFile;
use crate::snapshot::Address;

/// One executable or library in memory.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its file, or the kernel's name (`[vdso]`).
    pub(crate) path: PathBuf,
    /// The last part of `path`.
    pub(crate) name: String,
    /// Addresses from its first to its last segment.
    pub(crate) range: Range<Address>,
    pub(crate) bias: LoadBias,
    /// Its contents.
    pub(crate) object: Arc<ObjectFile>,
    /// Whether it comes from the system's library directories.
    pub(crate) system: bool,
}

impl Module {
    /// The address that the file states for what is at `address` of the process.
    pub(crate) fn file_address(&self, address: Address) -> FileAddress {
        self.bias.file_address(address)
    }
}
