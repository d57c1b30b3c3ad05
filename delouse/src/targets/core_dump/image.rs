//! What a core file is written from.

use std::fs::File;

use object::elf::NoteType;

use crate::snapshot::{Mapping, Snapshot};
use crate::targets::SnapshotError;

/// What a core file says about its process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProcessIds {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// A process whose core file can be written.
pub(crate) trait CoreImage: Snapshot {
    fn ids(&self) -> ProcessIds;

    /// The auxiliary vector; empty if it cannot be read.
    fn auxv(&self) -> Vec<u8>;

    /// The mappings by the paths that the process has for them: [`Snapshot::mappings`] may have paths that open the files
    /// from here.
    fn listed_mappings(&self) -> &[Mapping];

    /// The page table of the memory that is read.
    fn pagemap(&self) -> Option<&File>;

    /// The page table of the process itself: that of an image has no entries for shared memory.
    fn living_pagemap(&self) -> Option<File>;

    /// The threads with registers, which are in the order of `elf_gregset_t` (linux/elfcore.h).
    fn registers(&self) -> Vec<(i32, &[u64])>;

    /// The notes with further registers of the thread at this place in [`CoreImage::registers`].
    fn thread_notes(&self, index: usize) -> Vec<ThreadNote>;

    /// Checks that memory could be read until now.
    fn intact(&self) -> Result<(), SnapshotError>;
}

/// A note with registers of a thread.
pub(crate) struct ThreadNote {
    pub(in crate::targets) name: &'static [u8],
    pub(in crate::targets) kind: NoteType,
    pub(in crate::targets) contents: Vec<u8>,
}
