//! Reads page tables: `/proc/PID/pagemap` (Linux admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use crate::host::heap::page_size;

/// In memory.
pub(in crate::targets) const PRESENT: u64 = 1 << 63;
/// In swap. Also set for other special entries, such as guard pages of stacks.
pub(in crate::targets) const SWAPPED: u64 = 1 << 62;
/// A page of a file, or of shared anonymous memory.
pub(in crate::targets) const FILE: u64 = 1 << 61;

/// Mapped by this process only: not shared with a child, and not the shared page of zeroes.
pub(in crate::targets) const EXCLUSIVE: u64 = 1 << 56;

/// Number of entries, of 8 bytes, that are read by one call. Larger buffers are not faster.
const ENTRIES: u64 = 2 << 10;

/// A reusable buffer for entries.
#[derive(Debug, Default)]
pub(in crate::targets) struct Pages(Vec<u8>);

impl Pages {
    /// Calls `visit` with each page of `range` and its entry. `range` must start at a page boundary. Returns the end of the
    /// pages that could be read.
    pub(in crate::targets) fn each(
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
