//! `.debug_aranges`: the addresses of units (DWARF 5, 6.1.2).

use super::bytes;

/// Functions of a unit that are closer to each other are one range: nothing is in between but padding, in bytes.
const PADDING: u64 = 16;

/// The ranges of one unit.
#[derive(Debug)]
pub(in crate::debuginfo) struct Set<'a> {
    /// Where the unit is in `.debug_info`.
    pub(in crate::debuginfo) unit: usize,
    address_size: usize,
    pairs: &'a [u8],
}

impl<'a> Set<'a> {
    /// The next one; `None` at the end, and where it cannot be read.
    pub(in crate::debuginfo) fn next(input: &mut &'a [u8]) -> Option<Self> {
        loop {
            let before = input.len();
            let (mut length, mut offset_size) = (u64::from(bytes::u32(input)?), 4);
            if length == u64::from(u32::MAX) {
                (length, offset_size) = (bytes::u64(input)?, 8);
            }
            let (mut set, rest) = input.split_at_checked(usize::try_from(length).ok()?)?;
            let header = before - input.len();
            *input = rest;
            if let Some(set) = Self::parse(&mut set, header, offset_size) {
                return Some(set);
            }
        }
    }

    fn parse(set: &mut &'a [u8], header: usize, offset_size: usize) -> Option<Self> {
        let whole = set.len();
        let _version = bytes::u16(set)?;
        let unit = usize::try_from(bytes::unsigned(set, offset_size)?).ok()?;
        let (address_size, segment_size) = (usize::from(bytes::u8(set)?), bytes::u8(set)?);
        if !matches!(address_size, 4 | 8) || segment_size != 0 {
            return None;
        }
        // Pairs are aligned to their size, from the beginning of the set.
        let read = header + whole - set.len();
        let pairs = set.get(read.next_multiple_of(2 * address_size) - read..)?;
        Some(Self { unit, address_size, pairs })
    }

    /// Calls `visit` with the start and the end of each range. Those of functions that the linker dropped, which begin at
    /// 0, are left out, and functions that follow each other are one range.
    pub(in crate::debuginfo) fn each(&self, mut visit: impl FnMut(u64, u64)) {
        let mut rest = self.pairs;
        let (mut first, mut last) = (0, 0);
        while let (Some(start), Some(length)) =
            (bytes::unsigned(&mut rest, self.address_size), bytes::unsigned(&mut rest, self.address_size))
        {
            if start == 0 && length == 0 {
                break;
            }
            let end = start.saturating_add(length);
            if start == 0 || length == 0 {
                continue;
            }
            if start >= last && start - last < PADDING {
                last = end;
                continue;
            }
            if last > 0 {
                visit(first, last);
            }
            (first, last) = (start, end);
        }
        if last > 0 {
            visit(first, last);
        }
    }
}
