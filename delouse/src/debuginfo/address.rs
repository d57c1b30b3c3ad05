//! Addresses in a file, and how the loader turned them into addresses of the process.

use std::fmt;
use std::ops::Range;

use crate::snapshot::Address;

/// An address as a file states it: in its headers, symbols and debug information.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub(crate) struct FileAddress(u64);

impl FileAddress {
    pub(crate) const fn new(address: u64) -> Self {
        Self(address)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// How many bytes it is behind `start`; `None` if it is before.
    pub(crate) fn offset_from(self, start: Self) -> Option<u64> {
        self.0.checked_sub(start.0)
    }
}

impl fmt::LowerHex for FileAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Debug for FileAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What the loader added (wrapping) to the addresses that a file states: 0 for an executable that is not
/// position-independent. Nothing else in delouse adds or subtracts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LoadBias(u64);

impl LoadBias {
    /// Of a file that has at `file` what is at `process` in memory.
    pub(crate) fn between(file: FileAddress, process: Address) -> Self {
        Self(process.get().wrapping_sub(file.0))
    }

    /// The address that the file states for what is at `address` of the process.
    #[inline]
    pub(crate) fn file_address(self, address: Address) -> FileAddress {
        FileAddress(address.get().wrapping_sub(self.0))
    }

    /// The address in the process of what the file has at `address`.
    #[inline]
    pub(crate) fn process_address(self, address: FileAddress) -> Address {
        Address::new(address.0.wrapping_add(self.0))
    }

    /// The same for the start and the end of a range.
    pub(crate) fn process_range(self, range: &Range<FileAddress>) -> Range<Address> {
        self.process_address(range.start)..self.process_address(range.end)
    }
}
