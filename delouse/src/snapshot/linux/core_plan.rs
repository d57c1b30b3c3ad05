//! What goes into a core file: which pages of which mappings.

use std::fs::File;
use std::ops::Range;

use super::page_size;
use super::pagemap::{FILE, PRESENT, Pages, SWAPPED};
use crate::snapshot::Mapping;

/// Runs of pages nearer to each other than this become one: a segment header costs 56 bytes, and a
/// debugger some time.
const MERGE_GAP: u64 = 64 << 10;
/// Address space that is looked through, page by page: some programs reserve terabytes.
const MOST_SCANNED: u64 = 1 << 40;

/// A part of the address space, of which the first `file_len` bytes are in the core file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) file_len: u64,
    pub(super) memory_len: u64,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) execute: bool,
}

/// All segments, by address.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) segments: Vec<Segment>,
    /// Bytes of memory in the file.
    pub(super) bytes: u64,
    /// Mappings left out because there was too much address space to look through.
    pub(super) left_out: usize,
}

/// How to choose the pages of one mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Nothing,
    Everything,
    /// The first page: the ELF header, by which debuggers know the file.
    Header,
    /// What a page table holds: the image's own, for private memory.
    Private,
    /// The living program's, for shared memory: a fork does not copy its page table.
    Shared,
}

impl Plan {
    /// Chooses from `mappings`, asking page tables (`/proc/PID/pagemap`): `own` is that of the memory that
    /// will be read, `living` the program's. Without one, everything that might be in memory is taken.
    pub(super) fn new(mappings: &[Mapping], own: Option<&File>, living: Option<&File>) -> Self {
        let mut plan = Self::default();
        let mut scanner = Scanner::default();
        let mut runs = Vec::new();
        for mapping in mappings {
            runs.clear();
            let range = mapping.range.clone();
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

    /// Cuts a mapping into segments that each begin with pages that are in the file, but for the first.
    fn push(&mut self, mapping: &Mapping, runs: &[Range<u64>]) {
        let &Mapping { read, write, execute, .. } = mapping;
        let mut add = |start: u64, file_len: u64, end: u64| {
            if start < end {
                self.bytes = self.bytes.saturating_add(file_len);
                let memory_len = end.saturating_sub(start);
                self.segments.push(Segment { start, file_len, memory_len, read, write, execute });
            }
        };
        let first = runs.first().map_or(mapping.range.end, |run| run.start);
        add(mapping.range.start, 0, first);
        for (place, run) in runs.iter().enumerate() {
            let end = runs.get(place + 1).map_or(mapping.range.end, |next| next.start);
            add(run.start, run.end.saturating_sub(run.start), end);
        }
    }
}

fn choose(mapping: &Mapping) -> Choice {
    let path = mapping.path.as_ref().map(|path| path.to_string_lossy());
    let path = path.as_deref().unwrap_or_default();
    // No debugger can read these elsewhere.
    let unreachable = mapping.is_unreachable();
    match path {
        "[vdso]" => Choice::Everything,
        // Not readable through /proc/PID/mem, or the same everywhere.
        _ if path.starts_with("[vvar") || path == "[vsyscall]" => Choice::Nothing,
        _ if mapping.shared && unreachable => Choice::Shared,
        _ if mapping.shared => Choice::Nothing,
        _ if unreachable && mapping.read => Choice::Everything,
        _ if path.starts_with('/') && mapping.offset == 0 && mapping.read => Choice::Header,
        _ => Choice::Private,
    }
}

#[derive(Default)]
struct Scanner {
    pages: Pages,
    scanned: u64,
}

impl Scanner {
    /// Adds the runs of pages in `range` that are in memory or swap and of which `wanted` says so. False:
    /// too much to look through.
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
            // The page table cannot be read here: better too much than too little.
            append(runs, end..range.end);
        }
        true
    }
}

/// Adds a run that begins no earlier than the last one, as part of it if they are near.
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
            range,
            read: true,
            write: true,
            execute: false,
            shared,
            offset: 0,
            device: 0,
            inode: 0,
            path: path.map(Into::into),
        }
    }

    #[test]
    fn near_runs_become_one_and_segments_cover_the_mapping() {
        let mut runs = Vec::new();
        for start in [0x10_0000_u64, 0x10_1000, 0x10_9000, 0x20_0000] {
            append(&mut runs, start..start + 0x1000);
        }
        assert_eq!(runs, [0x10_0000..0x10_a000, 0x20_0000..0x20_1000]);
        let mut plan = Plan::default();
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
    fn what_a_debugger_finds_elsewhere_is_left_out() {
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
    fn only_touched_pages_of_our_own_memory_are_planned() {
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
        let plan = Plan::new(&[mapping(base..base + len as u64, None, false)], Some(&pagemap), None);
        assert_eq!(plan.bytes, page as u64);
        assert_eq!(plan.segments[1].start, base + 1000 * page as u64);
        // SAFETY: mapped above.
        unsafe { libc::munmap(base as *mut _, len) };
    }
}
