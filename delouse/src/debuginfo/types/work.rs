//! How much of the debug information was read: to be compared, where times could not.

use std::ops::Add;

/// What was read of the debug information of one file, for all answers so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Units of which an index was made, by a pass over all of their entries.
    pub(crate) units: usize,
    /// Bytes of these units.
    pub(crate) bytes: usize,
    /// Entries of these units whose attributes were read.
    pub(crate) entries: usize,
    /// Bytes of line tables.
    pub(crate) lines: usize,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            units: self.units + other.units,
            bytes: self.bytes + other.bytes,
            entries: self.entries + other.entries,
            lines: self.lines + other.lines,
        }
    }
}
