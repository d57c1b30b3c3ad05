//! Which pages of an address space are there: `/proc/PID/pagemap` (Linux admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::page_size;

/// In memory.
pub(super) const PRESENT: u64 = 1 << 63;
/// In swap, or marked otherwise: pages that guard a stack, say.
pub(super) const SWAPPED: u64 = 1 << 62;
/// "File-page or shared-anon".
pub(super) const FILE: u64 = 1 << 61;

/// Of this process alone: not shared with a child, and not the page of zeroes that stands for what was never written.
pub(super) const EXCLUSIVE: u64 = 1 << 56;

/// Entries read at once, of 8 bytes: room for more costs more than it saves.
const ENTRIES: u64 = 2 << 10;

/// Reads page tables, with room for them that is used again.
#[derive(Debug, Default)]
pub(super) struct Pages(Vec<u8>);

impl Pages {
    /// Calls `visit` with each page of `range`, which begins with one, and its entry. Gives the end of what could be
    /// read.
    pub(super) fn each(
        &mut self,
        pagemap: &File,
        range: Range<u64>,
        mut visit: impl FnMut(Range<u64>, u64),
    ) -> u64 {
        let page = page_size() as u64;
        let mut at = range.start;
        while at < range.end {
            let pages = ((range.end - at) / page).clamp(1, ENTRIES);
            self.0.resize(pages as usize * 8, 0);
            let filled = match pagemap.read_at(&mut self.0, at / page * 8) {
                Ok(filled) if filled >= 8 => filled,
                _ => return at,
            };
            let (entries, _) = self.0.get(..filled).unwrap_or_default().as_chunks::<8>();
            for entry in entries {
                let end = at.saturating_add(page);
                visit(at..end.min(range.end), u64::from_ne_bytes(*entry));
                at = end;
            }
        }
        range.end
    }
}
