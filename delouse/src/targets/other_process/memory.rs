//! Memory of another process, by its `mem` file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use crate::host::heap::page_size;
use crate::snapshot::{Address, Mapping};

/// Bits of an entry of a pagemap (Linux admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
/// Also set for special entries, such as guard pages.
const SWAPPED: u64 = 1 << 62;
/// Entries that are read by one call.
const ENTRIES: usize = 2 << 10;

/// The memory of a running process, or of an image of one.
pub(super) struct Memory {
    file: File,
    /// Reports which pages exist; `None` if it cannot be opened.
    pagemap: Option<File>,
    /// Whether the process runs: reads then change its page tables.
    is_live: bool,
}

impl Memory {
    /// The memory of a running process.
    pub(super) fn live(file: File, pagemap: Option<File>) -> Self {
        Self { file, pagemap, is_live: true }
    }

    /// The memory of a forked image.
    pub(super) fn image(file: File, pagemap: Option<File>) -> Self {
        Self { file, pagemap, is_live: false }
    }

    /// Copies memory that starts at `address`, which `mapping` contains. Returns the number of bytes.
    ///
    /// Does not touch pages of private anonymous memory that were never written, because that would allocate page tables
    /// in a running process: these pages contain zeroes.
    pub(super) fn read(&self, mapping: Option<&Mapping>, address: Address, buf: &mut [u8]) -> usize {
        let within =
            mapping.filter(|mapping| self.is_live && is_anonymous(mapping)).zip(self.pagemap.as_ref());
        let Some((mapping, pagemap)) = within else { return self.copy(address.get(), buf) };
        let start = address.get();
        let end = start.saturating_add(buf.len() as u64).min(mapping.range.end.get());
        let mut at = start;
        let known = each_run(pagemap, start..end, |run, exists| {
            if run.start != at {
                return;
            }
            let offset = |address: u64| usize::try_from(address.saturating_sub(start)).unwrap_or(usize::MAX);
            let Some(part) = buf.get_mut(offset(run.start)..offset(run.end)) else { return };
            if exists {
                at = at.saturating_add(self.copy(run.start, part) as u64);
            } else {
                part.fill(0);
                at = run.end;
            }
        });
        // What is beyond the pages that are known, and beyond the mapping.
        let done = usize::try_from(at.saturating_sub(start)).unwrap_or(0);
        let stopped_early = at < known.min(end);
        match buf.get_mut(done..) {
            Some(rest) if !rest.is_empty() && !stopped_early => done.saturating_add(self.copy(at, rest)),
            _ => done,
        }
    }

    fn copy(&self, address: u64, buf: &mut [u8]) -> usize {
        let mut read = 0;
        while let Some(rest) = buf.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, address.wrapping_add(read as u64)) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        read
    }

    /// The parts of `range`, which `mapping` contains, that were ever written.
    pub(super) fn written(&self, mapping: &Mapping, range: Range<Address>) -> Vec<Range<Address>> {
        let Some(pagemap) = self.pagemap.as_ref().filter(|_| is_anonymous(mapping)) else {
            return vec![range];
        };
        let mut parts: Vec<Range<Address>> = Vec::new();
        let words = Address::words(&range);
        let known = each_run(pagemap, words.clone(), |run, exists| {
            if exists {
                match parts.last_mut().filter(|last| last.end.get() == run.start) {
                    Some(last) => last.end = Address::new(run.end),
                    None => parts.push(Address::range(run)),
                }
            }
        });
        if known < words.end {
            parts.push(Address::range(known..words.end));
        }
        parts
    }
}

/// Whether absent pages of the mapping contain zeroes.
fn is_anonymous(mapping: &Mapping) -> bool {
    mapping.read && !mapping.shared && mapping.inode == 0
}

/// Calls `visit` with each run of pages of `range` that exist, or that do not, in order. Returns the end of the pages that
/// are known.
fn each_run(pagemap: &File, range: Range<u64>, mut visit: impl FnMut(Range<u64>, bool)) -> u64 {
    let page = page_size() as u64;
    let mut entries = [0_u8; 8 * ENTRIES];
    let mut at = range.start;
    while at < range.end {
        let first = at / page;
        let pages = range.end.div_ceil(page).saturating_sub(first).clamp(1, ENTRIES as u64);
        let Some(buffer) = entries.get_mut(..pages as usize * 8) else { return at };
        let filled = match pagemap.read_at(buffer, first.saturating_mul(8)) {
            Ok(filled) if filled >= 8 => filled,
            _ => return at,
        };
        let (entries, _) = buffer.get(..filled).unwrap_or_default().as_chunks::<8>();
        let mut run: Option<bool> = None;
        let mut until = at;
        for entry in entries {
            let exists = u64::from_ne_bytes(*entry) & (PRESENT | SWAPPED) != 0;
            if run.is_some_and(|run| run != exists) {
                visit(at..until, !exists);
                at = until;
            }
            run = Some(exists);
            until = (until / page).saturating_add(1).saturating_mul(page).min(range.end);
        }
        if let Some(exists) = run {
            visit(at..until, exists);
        }
        at = until;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::FileOffset;

    /// The memory of this process, and an anonymous mapping of which only every other page was written.
    fn striped(pages: usize) -> (Memory, memmap2::MmapMut, Mapping) {
        let page = page_size();
        let mut map = memmap2::MmapMut::map_anon(pages * page).unwrap();
        map.advise(memmap2::Advice::NoHugePage).unwrap();
        for at in (0..pages).step_by(2) {
            map[at * page] = 7;
        }
        let start = map.as_ptr() as u64;
        let mapping = Mapping {
            range: Address::range(start..start + (pages * page) as u64),
            read: true,
            write: true,
            execute: false,
            shared: false,
            offset: FileOffset::default(),
            device: 0,
            inode: 0,
            path: None,
        };
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        (Memory::live(File::open("/proc/self/mem").unwrap(), Some(pagemap)), map, mapping)
    }

    #[test]
    fn pages_that_were_never_written_are_zeroes_and_stay_absent() {
        let page = page_size();
        let (memory, map, mapping) = striped(64);
        let from = mapping.range.start.get() + 100;
        let mut bytes = vec![1; 10 * page];
        assert_eq!(memory.read(Some(&mapping), Address::new(from), &mut bytes), bytes.len());
        for (index, byte) in bytes.iter().enumerate() {
            let at = index + 100;
            let is_written = at.is_multiple_of(page) && (at / page).is_multiple_of(2);
            let expected = if is_written { 7 } else { 0 };
            assert_eq!(*byte, expected, "{at}");
        }
        assert_eq!(memory.written(&mapping, mapping.range.clone()).len(), 32, "reading wrote no page");
        drop(map);
    }

    #[test]
    fn reads_end_with_readable_memory() {
        let page = page_size();
        let (memory, mut map, mapping) = striped(4);
        map[3 * page] = 9;
        // SAFETY: the last page is not used any more.
        unsafe { libc::mprotect(map.as_mut_ptr().add(3 * page).cast(), page, libc::PROT_NONE) };
        let end = mapping.range.end;
        let last = end.saturating_sub(page as u64 + 8);
        let mut bytes = [1; 16];
        assert!(memory.read(Some(&mapping), last, &mut bytes) >= 8);
        assert_eq!(memory.read(None, Address::new(8), &mut bytes), 0);
        assert_eq!(memory.read(None, Address::new(u64::MAX - 4), &mut bytes), 0);
    }
}
