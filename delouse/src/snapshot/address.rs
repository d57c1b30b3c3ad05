//! Addresses in the memory of the captured process, and positions in the files that are mapped there.

use std::fmt;
use std::ops::Range;

use schemars::JsonSchema;
use schemars::r#gen::SchemaGenerator;
use schemars::schema::Schema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An address in the memory of the program. In text and JSON, which has no numbers of 64 bits, it is `"0x7f…"`.
///
/// Words that are read from memory or registers become addresses where they are used as such. Code that runs in a signal
/// handler, while threads are stopped or in a forked child (`targets/this_process`) has plain words.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Address(u64);

impl Address {
    /// The address of nothing: the end of a list, an empty `Option`.
    pub(crate) const NULL: Self = Self(0);

    /// The address with that number.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    pub(crate) fn checked_sub(self, bytes: u64) -> Option<Self> {
        self.0.checked_sub(bytes).map(Self)
    }

    pub(crate) fn checked_add_signed(self, bytes: i64) -> Option<Self> {
        self.0.checked_add_signed(bytes).map(Self)
    }

    pub(crate) fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    pub(crate) fn saturating_sub(self, bytes: u64) -> Self {
        Self(self.0.saturating_sub(bytes))
    }

    pub(crate) fn wrapping_add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// How many bytes it is behind `start`; `None` if it is before.
    pub(crate) fn offset_from(self, start: Self) -> Option<u64> {
        self.0.checked_sub(start.0)
    }

    /// The same, wrapping: more than any size if it is before.
    pub(crate) fn wrapping_offset_from(self, start: Self) -> u64 {
        self.0.wrapping_sub(start.0)
    }

    pub(crate) fn is_null(self) -> bool {
        self.0 == 0
    }

    /// Whether it is a multiple of `align`.
    pub(crate) fn is_aligned(self, align: u64) -> bool {
        self.0.is_multiple_of(align)
    }

    /// The first multiple of `align`, which is not 0, that is not before it.
    pub(crate) fn align_up(self, align: u64) -> Option<Self> {
        self.0.checked_next_multiple_of(align).map(Self)
    }

    /// The addresses of the aligned words in a range.
    pub(crate) fn word_places(range: &Range<Self>) -> impl Iterator<Item = Self> + use<> {
        let start = range.start.align_up(8).map_or(range.end.0, Self::get);
        (start..range.end.0).step_by(8).map(Self)
    }

    /// A range of plain words as addresses.
    pub(crate) fn range(words: Range<u64>) -> Range<Self> {
        Self(words.start)..Self(words.end)
    }

    /// A range of addresses as plain words.
    pub(crate) fn words(range: &Range<Self>) -> Range<u64> {
        range.start.0..range.end.0
    }
}

/// A position in a file, in bytes from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct FileOffset(u64);

impl FileOffset {
    pub(crate) const fn new(offset: u64) -> Self {
        Self(offset)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    pub(crate) fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// How many bytes it is behind `start`; `None` if it is before.
    pub(crate) fn offset_from(self, start: Self) -> Option<u64> {
        self.0.checked_sub(start.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").ok_or_else(|| de::Error::custom("an address begins with 0x"))?;
        u64::from_str_radix(digits, 16).map(Self).map_err(de::Error::custom)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> String {
        String::schema_name()
    }

    fn is_referenceable() -> bool {
        false
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by it")]
    use super::*;

    #[test]
    fn hexadecimal_there_and_back() {
        let address = Address::new(0x7f00_dead_beef_0008);
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(json, "\"0x7f00deadbeef0008\"");
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        for no_address in ["\"7f00\"", "\"0x\"", "12", "\"0x1_0000\"", "\"0xfffffffffffffffff\""] {
            assert!(serde_json::from_str::<Address>(no_address).is_err(), "{no_address}");
        }
    }
}
