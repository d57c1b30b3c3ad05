//! What is in a unit: its entries, and the strings, addresses and lists that they refer to.

use std::sync::{Arc, OnceLock};

use gimli::{
    AttributeValue, DebugAddrIndex, DebugLocListsIndex, DebugRngListsIndex, DebugStrOffsetsIndex, DwOp,
    Dwarf, LocListIter, LocationListsOffset, RawRangeListsOffset, RngListIter, Section as _, constants as dw,
};

use super::dwo::Slice;
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::entries::{Entries, Entry, Value, bytes};

/// The content of one unit.
pub(super) struct Content<'a> {
    pub(super) dwarf: Arc<Dwarf<Slice<'a>>>,
    pub(super) unit: gimli::Unit<Slice<'a>>,
    entries: OnceLock<Option<Entries<'a>>>,
    /// `.debug_str`.
    strings: &'a [u8],
}

/// Where the name of an entry is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name {
    /// At this offset in `.debug_str`.
    Str(u32),
    /// In the entry at this offset, in another form.
    Of(u32),
}

impl<'a> Content<'a> {
    pub(super) fn new(dwarf: Arc<Dwarf<Slice<'a>>>, unit: gimli::Unit<Slice<'a>>) -> Self {
        let strings = dwarf.debug_str.reader().slice();
        Self { dwarf, unit, entries: OnceLock::new(), strings }
    }

    /// The entries of this unit.
    pub(super) fn entries(&self) -> Option<&Entries<'a>> {
        let read = || {
            let [info, abbreviations] = [self.dwarf.debug_info.reader(), self.dwarf.debug_abbrev.reader()];
            Entries::of(&self.unit.header, info.slice(), abbreviations.slice())
        };
        self.entries.get_or_init(read).as_ref()
    }

    /// The entry at `offset`.
    pub(super) fn entry(&self, offset: u32) -> Option<Entry<'_, 'a>> {
        self.entries()?.at(offset)
    }

    /// The bytes of a string attribute.
    pub(super) fn string(&self, value: Value<'a>) -> Option<&'a [u8]> {
        let offset = match value {
            Value::Text(text) => return Some(text),
            Value::LineStr(offset) => {
                let lines = self.dwarf.debug_line_str.reader().slice();
                return lines.get(usize::try_from(offset).ok()?..).map(bytes::until_zero);
            }
            Value::Str(offset) => usize::try_from(offset).ok()?,
            Value::StrIndex(index) => self.string_by_index(index)?,
            _ => return None,
        };
        self.strings.get(offset..).map(bytes::until_zero)
    }

    /// The offset of a string in `.debug_str`.
    fn string_by_index(&self, index: u64) -> Option<usize> {
        let index = DebugStrOffsetsIndex(usize::try_from(index).ok()?);
        Some(self.dwarf.string_offset(&self.unit, index).ok()?.0)
    }

    /// What a string attribute begins with: something may follow behind a zero.
    #[inline(always)]
    pub(super) fn text_at(&self, value: Value<'a>) -> &'a [u8] {
        match value {
            Value::Str(offset) => self.strings.get(offset as usize..).unwrap_or_default(),
            other => self.string(other).unwrap_or_default(),
        }
    }

    /// How to find a string attribute of the entry at `entry` again.
    #[inline(always)]
    pub(super) fn name_at(&self, value: Value<'a>, entry: u32) -> Name {
        let offset = match value {
            Value::Str(offset) => Some(offset),
            Value::StrIndex(index) => self.string_by_index(index).map(|offset| offset as u64),
            _ => None,
        };
        match offset {
            Some(offset) if offset <= u32::MAX as u64 => Name::Str(offset as u32),
            _ => Name::Of(entry),
        }
    }

    /// The name of an entry.
    pub(super) fn name(&self, name: Name) -> &'a [u8] {
        self.text(name, dw::DW_AT_name)
    }

    /// The linkage name of an entry.
    pub(super) fn linkage_name(&self, name: Name) -> &'a [u8] {
        self.text(name, dw::DW_AT_linkage_name)
    }

    fn text(&self, name: Name, attribute: gimli::DwAt) -> &'a [u8] {
        match name {
            Name::Str(offset) => self.strings.get(offset as usize..).map(bytes::until_zero),
            Name::Of(entry) => self.entry(entry).and_then(|entry| self.string(entry.attr(attribute)?)),
        }
        .unwrap_or_default()
    }

    /// Whether that attribute of an entry is `wanted`.
    pub(super) fn is_text(&self, name: Name, attribute: gimli::DwAt, wanted: &[u8]) -> bool {
        let Name::Str(offset) = name else { return self.text(name, attribute) == wanted };
        let Some(text) = self.strings.get(offset as usize..) else { return false };
        // Most differ in the first byte, which costs nothing to compare.
        match (text, wanted) {
            ([first, ..], [expected, ..]) if first != expected => false,
            _ => text.get(wanted.len()) == Some(&0) && text.starts_with(wanted),
        }
    }

    /// An attribute that is an address.
    pub(super) fn address_at(&self, value: Value<'a>) -> Option<u64> {
        match value {
            Value::Address(address) => Some(address),
            Value::AddressIndex(index) => {
                let index = DebugAddrIndex(usize::try_from(index).ok()?);
                self.dwarf.address(&self.unit, index).ok()
            }
            _ => None,
        }
    }

    /// The address of a variable with that location, if it is at a fixed one.
    pub(super) fn fixed_address(&self, location: Option<Value<'a>>) -> Option<FileAddress> {
        let Some(Value::Block([operation, rest @ ..])) = location else { return None };
        let mut rest = rest;
        let address = match DwOp(*operation) {
            dw::DW_OP_addr => bytes::unsigned(&mut rest, usize::from(self.unit.encoding().address_size)),
            dw::DW_OP_addrx | dw::DW_OP_GNU_addr_index => {
                self.address_at(Value::AddressIndex(bytes::uleb(&mut rest)?))
            }
            _ => None,
        };
        address.map(FileAddress::new)
    }

    /// The list of locations that an attribute leads to.
    pub(super) fn locations(&self, value: Value<'a>) -> Option<LocListIter<Slice<'a>>> {
        let value = match value {
            // As a number: DWARF 3 and older.
            Value::Section(offset) | Value::Number(offset) => {
                AttributeValue::LocationListsRef(LocationListsOffset(usize::try_from(offset).ok()?))
            }
            Value::Locations(index) => {
                AttributeValue::DebugLocListsIndex(DebugLocListsIndex(usize::try_from(index).ok()?))
            }
            _ => return None,
        };
        self.dwarf.attr_locations(&self.unit, value).ok()?
    }

    /// The list of ranges that an attribute leads to.
    pub(super) fn ranges(&self, value: Value<'a>) -> Option<RngListIter<Slice<'a>>> {
        let value = match value {
            // As a number: DWARF 3 and older.
            Value::Section(offset) | Value::Number(offset) => {
                AttributeValue::RangeListsRef(RawRangeListsOffset(usize::try_from(offset).ok()?))
            }
            Value::Ranges(index) => {
                AttributeValue::DebugRngListsIndex(DebugRngListsIndex(usize::try_from(index).ok()?))
            }
            _ => return None,
        };
        self.dwarf.attr_ranges(&self.unit, value).ok()?
    }
}
