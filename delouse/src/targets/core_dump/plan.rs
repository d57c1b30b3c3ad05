//! Selects the pages that a core file contains.

use std::fs::File;
use std::ops::Range;

use crate::host::heap::page_size;
use crate::snapshot::{Address, FileOffset, Mapping};
use crate::targets::pagemap::{FILE, PRESENT, Pages, SWAPPED};

/// Runs of pages that are closer than this are merged: a segment header takes 56 bytes, and debuggers need time for each.
const MERGE_GAP: u64 = 64 << 10;
/// Address space that is scanned page by page, at most: some programs reserve terabytes.
const MOST_SCANNED: u64 = 1 << 40;

/// A range of addresses, of which the first `file_len` bytes are in the core file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::targets) struct Segment {
    pub(in crate::targets) start: u64,
    pub(in crate::targets) file_len: u64,
    pub(in crate::targets) memory_len: u64,
    pub(in crate::targets) read: bool,
    pub(in crate::targets) write: bool,
    pub(in crate::targets) execute: bool,
}

/// All segments, ordered by address.
#[derive(Debug, Default)]
pub(in crate::targets) struct SegmentPlan {
    pub(in crate::targets) segments: Vec<Segment>,
    /// Bytes of memory in the file.
    pub(in crate::targets) bytes: u64,
    /// Mappings left out because the address space exceeds [`MOST_SCANNED`].
    pub(in crate::targets) left_out: usize,
}

/// Which pages of a mapping are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Nothing,
    Everything,
    /// The first page, which contains the ELF header that debuggers read, and modified pages.
    Header,
    /// The pages in the image's own page table.
    Private,
    /// The pages in the running program's page table: a fork does not copy page tables of shared memory.
    Shared,
}

impl SegmentPlan {
    /// Selects pages of `mappings` by page tables (`/proc/PID/pagemap`): `own` is that of the memory that will be written,
    /// `living` that of the running program. Without a page table, selects all pages.
    pub(in crate::targets) fn new(mappings: &[Mapping], own: Option<&File>, living: Option<&File>) -> Self {
        let mut plan = Self::default();
        let mut scanner = Scanner::default();
        let mut runs = Vec::new();
        for mapping in mappings {
            runs.clear();
            let range = Address::words(&mapping.range);
            let first_page = range.start..range.end.min(range.start.saturating_add(page_size() as u64));
            let scanned = match choose(mapping) {
                Choice::Nothing => true,
                Choice::Everything => {
                    runs.push(range.clone());
                    true
                }
                Choice::Header => {
                    runs.push(first_page.clone());
                    scanner.scan(own, range.clone(), &mut runs, |entry| entry & FILE == 0)
                }
                Choice::Private => scanner.scan(own, range.clone(), &mut runs, |entry| entry & FILE == 0),
                Choice::Shared => scanner.scan(living, range.clone(), &mut runs, |_| true),
            };
            plan.left_out += usize::from(!scanned);
            plan.push(mapping, &runs);
        }
        plan
    }

    /// Splits a mapping into segments. Each starts with a run of pages that are in the file, except the first.
    fn push(&mut self, mapping: &Mapping, runs: &[Range<u64>]) {
        let &Mapping { read, write, execute, .. } = mapping;
        let range = Address::words(&mapping.range);
        let mut add = |start: u64, file_len: u64, end: u64| {
            if start < end {
                self.bytes = self.bytes.saturating_add(file_len);
                let memory_len = end.saturating_sub(start);
                self.segments.push(Segment { start, file_len, memory_len, read, write, execute });
            }
        };
        let first = runs.first().map_or(range.end, |run| run.start);
        add(range.start, 0, first);
        for (place, run) in runs.iter().enumerate() {
            let end = runs.get(place + 1).map_or(range.end, |next| next.start);
            add(run.start, run.end.saturating_sub(run.start), end);
        }
    }
}

fn choose(mapping: &Mapping) -> Choice {
    let path = mapping.path.as_ref().map(|path| path.to_string_lossy());
    let path = path.as_deref().unwrap_or_default();
    // A debugger cannot read the contents of these mappings from files.
    let unreachable = mapping.is_unreachable();
    match path {
        "[vdso]" => Choice::Everything,
        // Not readable through /proc/PID/mem, or the same everywhere.
        _ if path.starts_with("[vvar") || path == "[vsyscall]" => Choice::Nothing,
        _ if mapping.shared && unreachable => Choice::Shared,
        _ if mapping.shared => Choice::Nothing,
        _ if unreachable && mapping.read => Choice::Everything,
        _ if path.starts_with('/') && mapping.offset == FileOffset::default() && mapping.read => {
            Choice::Header
        }
        _ => Choice::Private,
    }
}

#[derive(Default)]
struct Scanner {
    pages: Pages,
    scanned: u64,
}

impl Scanner {
    /// Adds runs of the pages in `range` that are in memory or swap, and whose entry in the page table is `wanted`.
    /// Returns false, and adds nothing, if the address space exceeds [`MOST_SCANNED`].
    fn scan(
        &mut self,
        pagemap: Option<&File>,
        range: Range<u64>,
        runs: &mut Vec<Range<u64>>,
        wanted: impl Fn(u64) -> bool,
    ) -> bool {
        let Some(pagemap) = pagemap else {
            append(runs, range);
            return true;
        };
        self.scanned = self.scanned.saturating_add(range.end.saturating_sub(range.start));
        if self.scanned > MOST_SCANNED {
            self.scanned = self.scanned.saturating_sub(range.end.saturating_sub(range.start));
            return false;
        }
        let end = self.pages.each(pagemap, range.clone(), |page, entry| {
            if entry & (PRESENT | SWAPPED) != 0 && wanted(entry) {
                append(runs, page);
            }
        });
        if end < range.end {
            // The page table cannot be read here: take all pages.
            append(runs, end..range.end);
        }
        true
    }
}

/// Adds a run, which must not start before the last one. Merges both if they are close.
fn append(runs: &mut Vec<Range<u64>>, run: Range<u64>) {
    match runs.last_mut() {
        Some(last) if run.start < last.end.saturating_add(MERGE_GAP) => last.end = last.end.max(run.end),
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(range: Range<u64>, path: Option<&str>, shared: bool) -> Mapping {
        Mapping {
            range: Address::range(range),
            read: true,
            write: true,
            execute: false,
            shared,
            offset: FileOffset::default(),
            device: 0,
            inode: 0,
            path: path.map(Into::into),
        }
    }

    #[test]
    fn close_runs_are_merged_and_segments_cover_the_mapping() {
        let mut runs = Vec::new();
        for start in [0x10_0000_u64, 0x10_1000, 0x10_9000, 0x20_0000] {
            append(&mut runs, start..start + 0x1000);
        }
        assert_eq!(runs, [0x10_0000..0x10_a000, 0x20_0000..0x20_1000]);
        let mut plan = SegmentPlan::default();
        plan.push(&mapping(0xf_0000..0x30_0000, None, false), &runs);
        let segments: Vec<_> =
            plan.segments.iter().map(|s| (s.start, s.file_len, s.start + s.memory_len)).collect();
        assert_eq!(
            segments,
            [(0xf_0000, 0, 0x10_0000), (0x10_0000, 0xa000, 0x20_0000), (0x20_0000, 0x1000, 0x30_0000)]
        );
        assert_eq!(plan.bytes, 0xb000);
    }

    #[test]
    fn memory_that_a_debugger_reads_from_files_is_left_out() {
        let choice = |path, shared| choose(&mapping(0..0x1000, path, shared));
        assert_eq!(choice(None, false), Choice::Private);
        assert_eq!(choice(Some("[heap]"), false), Choice::Private);
        assert_eq!(choice(Some("[vdso]"), false), Choice::Everything);
        assert_eq!(choice(Some("[vvar]"), false), Choice::Nothing);
        assert_eq!(choice(Some("/lib/libc.so.6"), false), Choice::Header);
        assert_eq!(choice(Some("/bin/replaced (deleted)"), false), Choice::Everything);
        assert_eq!(choice(Some("/var/data"), true), Choice::Nothing);
        assert_eq!(choice(Some("/dev/zero (deleted)"), true), Choice::Shared);
    }

    #[test]
    fn only_written_pages_are_selected() {
        let page = page_size();
        let len = 4096 * page;
        // SAFETY: a fresh mapping, one page of which is written.
        let base = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let base = libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            libc::madvise(base, len, libc::MADV_NOHUGEPAGE);
            base.byte_add(1000 * page).cast::<u8>().write(1);
            base as u64
        };
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let plan = SegmentPlan::new(&[mapping(base..base + len as u64, None, false)], Some(&pagemap), None);
        assert_eq!(plan.bytes, page as u64);
        assert_eq!(plan.segments[1].start, base + 1000 * page as u64);
        // SAFETY: mapped above.
        unsafe { libc::munmap(base as *mut _, len) };
    }
}
