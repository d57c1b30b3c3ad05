//! Lines and inlined functions of an address, from DWARF, split DWARF included.

use std::path::Path;

use self_cell::self_cell;

use crate::debuginfo::address::FileAddress;
use crate::debuginfo::image::Image;
use crate::debuginfo::object_file::ObjectFile;
#[cfg(test)]
use crate::debuginfo::types::Work;
use crate::debuginfo::types::{CodeLine, CodeLines};
use crate::host::memory_budget::Shortage;

self_cell!(
    struct Opened {
        owner: Image,
        #[not_covariant]
        dependent: CodeLines,
    }
);

/// The debug information of one file.
pub(super) struct Dwarf(Opened);

impl Dwarf {
    /// Reads the headers of units; `None` if there are no lines, or no memory for them. `file` is the path of the executable,
    /// beside which its `.dwp` is.
    pub(super) fn of(object: &ObjectFile, file: &Path) -> Option<Self> {
        object.section_addresses(".debug_line")?;
        let image = Image::with_lines(object.clone(), file);
        image.shortage().is_none().then(|| Self(Opened::new(image, |image| CodeLines::open(image))))
    }

    /// The functions at `address`, innermost first; empty if nothing is known.
    pub(super) fn find(&self, address: FileAddress) -> Vec<CodeLine> {
        self.0.with_dependent(|_, lines| lines.find(address))
    }

    /// Why something was not read.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        self.0.borrow_owner().shortage()
    }

    /// What was read so far.
    #[cfg(test)]
    pub(super) fn work(&self) -> Work {
        self.0.with_dependent(|_, lines| lines.work())
    }
}
