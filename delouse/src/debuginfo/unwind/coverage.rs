//! Which code a table of unwind information describes.

use std::ops::Range;

use gimli::{BaseAddresses, CieOrFde, DebugFrame, EhFrame, EhFrameOffset, LittleEndian, UnwindSection};

use crate::debuginfo::address::FileAddress;
use crate::debuginfo::object_file::UnwindTables;
use crate::host::shared_bytes::SharedBytes;

/// A large program has some hundred thousand functions.
const MAX_ENTRIES: usize = 4 << 20;
/// The size of the header of `.eh_frame_hdr`, and of its entries (LSB core 10.6).
const HEADER: usize = 12;
const ENTRY: usize = 8;

/// The code that a table describes.
pub(super) enum Coverage {
    /// By the sorted index of `.eh_frame`, whose entries are read when they are needed.
    Index { index: SharedBytes, index_start: FileAddress, eh_frame: SharedBytes, eh_frame_start: FileAddress },
    /// Ranges in ascending order.
    Ranges(Vec<Range<u64>>),
}

impl Coverage {
    /// Of `.eh_frame`, with an index that is known to be sound, or without one.
    pub(super) fn of_eh_frame(tables: &UnwindTables) -> Self {
        let Some((eh_frame, addresses)) = tables.eh_frame.clone() else { return Self::Ranges(Vec::new()) };
        match tables.eh_frame_hdr.clone() {
            Some((index, index_addresses)) => Self::Index {
                index,
                index_start: index_addresses.start,
                eh_frame,
                eh_frame_start: addresses.start,
            },
            None => Self::ranges(&EhFrame::new(&eh_frame, LittleEndian), addresses.start),
        }
    }

    /// Of `.debug_frame`.
    pub(super) fn of_debug_frame(bytes: &[u8]) -> Self {
        let mut section = DebugFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        Self::ranges(&section, FileAddress::default())
    }

    /// Reads a whole table.
    fn ranges<'b, S>(section: &S, start: FileAddress) -> Self
    where
        S: UnwindSection<gimli::EndianSlice<'b, LittleEndian>>,
    {
        let bases = BaseAddresses::default().set_eh_frame(start.get());
        let mut entries = section.entries(&bases);
        let mut ranges = Vec::new();
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let Ok(function) = partial.parse(S::cie_from_offset) else { continue };
            let end = function.initial_address().saturating_add(function.len());
            ranges.push(function.initial_address()..end);
            if ranges.len() >= MAX_ENTRIES {
                break;
            }
        }
        ranges.sort_by_key(|range| range.start);
        Self::Ranges(ranges)
    }

    /// Whether the table describes the code at `address`.
    pub(super) fn contains(&self, address: FileAddress) -> bool {
        match self {
            Self::Index { index, index_start, eh_frame, eh_frame_start } => {
                let entry = index_entry(index, *index_start, address);
                let is_inside = |entry: FileAddress| {
                    let bases = BaseAddresses::default().set_eh_frame(eh_frame_start.get());
                    let section = EhFrame::new(eh_frame, LittleEndian);
                    let offset = usize::try_from(entry.offset_from(*eh_frame_start)?).ok()?;
                    let offset = EhFrameOffset(offset);
                    let function = section.fde_from_offset(&bases, offset, EhFrame::cie_from_offset).ok()?;
                    let within = address.get().checked_sub(function.initial_address())?;
                    Some(within < function.len())
                };
                entry.and_then(is_inside).unwrap_or(false)
            }
            Self::Ranges(ranges) => {
                let after = ranges.partition_point(|range| range.start <= address.get());
                let last = after.checked_sub(1).and_then(|last| ranges.get(last));
                last.is_some_and(|range| range.contains(&address.get()))
            }
        }
    }
}

/// The address of the entry in `.eh_frame` for the last function that does not begin after `address`.
fn index_entry(index: &[u8], base: FileAddress, address: FileAddress) -> Option<FileAddress> {
    let count = index.get(8..HEADER)?.first_chunk().map(|count| u32::from_le_bytes(*count))?;
    let table = index.get(HEADER..)?;
    let count = usize::try_from(count).ok()?.min(table.len() / ENTRY);
    let entry = |number: usize| {
        let [start, at] = *table.get(number.checked_mul(ENTRY)?..)?.as_chunks::<4>().0.first_chunk()?;
        let place =
            |offset| FileAddress::new(base.get().wrapping_add_signed(i64::from(i32::from_le_bytes(offset))));
        Some((place(start), place(at)))
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match entry(middle)?.0 <= address {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    Some(entry(low.checked_sub(1)?)?.1)
}
