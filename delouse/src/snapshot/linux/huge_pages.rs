//! Huge pages: how much of the program's memory is in them, and joining small ones into them.
//!
//! A fork copies one entry for each page: a gigabyte of anonymous memory in 4K pages takes it 20 to 35 ms, in pages of
//! 2 MB less than one.

use std::fs::{File, read_to_string};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use super::pagemap::{EXCLUSIVE, FILE, PRESENT, Pages};
use super::{examine, headroom, maps, page_size};
use crate::snapshot::{Joined, Mapping, SnapshotError, micros};

/// Where the kernel tells the size of a huge page (Linux admin-guide/mm/transhuge.rst).
const SIZE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
/// Memory joined by one call. Page faults in the mapping wait while one huge page is made, calls that change mappings
/// no longer: the kernel lets go of its locks after each.
const PIECE: u64 = 32 << 20;
/// Address space that is asked about by one call: the kernel holds its locks for as long.
const PART: u64 = 1 << 30;
/// The largest huge page that is made: while that is done, who needs the memory waits. Where pages have 64K, a huge one
/// has 512 MB.
const LARGEST: u64 = 4 << 20;
/// The least size of a huge page, and its alignment.
const HUGE: u64 = 2 << 20;
/// So many times in a row the kernel may be without a huge page.
const NO_MEMORY: u32 = 4;
/// After that long the rest is left as it is.
const DEADLINE: Duration = Duration::from_secs(20);
/// Kept free while pages are joined. Each needs its own size for a moment, and gives it back.
const RESERVE: u64 = 128 << 20;

/// Of `madvise` (linux/mman.h, since Linux 6.1; musl's headers do not know it).
const MADV_COLLAPSE: i32 = 25;
/// `ioctl` on a pagemap, and what it is given and answers (linux/fs.h, since Linux 6.7).
const PAGEMAP_SCAN: u32 = 0xc060_6610;
const PAGE_IS_FILE: u64 = 1 << 2;
/// Zeroes that stand for what was never written.
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGE_IS_HUGE: u64 = 1 << 6;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// How much of the anonymous memory of `mappings` is in huge pages, in bytes. `None` where the kernel does not tell.
///
/// Costs a walk over page tables: 2 ms for a gigabyte in 4K pages.
pub(super) fn bytes(mappings: &[Mapping]) -> Option<u64> {
    let pagemap = File::open("/proc/self/pagemap").ok()?;
    mappings.iter().filter(|mapping| is_joinable(mapping)).map(|m| huge_in(&pagemap, m.range.clone())).sum()
}

/// Has the kernel join the program's anonymous memory into huge pages, where it is there without a gap: it takes no
/// more memory than before. Mappings for which the program has said `MADV_NOHUGEPAGE` are left alone.
///
/// Takes two or three seconds for a gigabyte, on this thread; a thread of the program's that meets a page just being
/// joined waits for it, about a millisecond. Needs Linux 6.1 (`MADV_COLLAPSE`).
pub(crate) fn join() -> Result<Joined, SnapshotError> {
    let started = Instant::now();
    let size = read_to_string(SIZE).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let size = size.filter(|size| size.is_power_of_two() && *size <= LARGEST);
    let size = size.filter(|_| madvise_collapse(0..0).is_ok()).ok_or(SnapshotError::NoHugePages)?;
    let pagemap = File::open("/proc/self/pagemap").map_err(|error| {
        SnapshotError::Proc("/proc/self/pagemap", error.raw_os_error().unwrap_or(libc::EIO))
    })?;
    let blocks = Blocks { pages: Pages::default(), pagemap, size, shared: 0 };
    let mut joiner = Joiner { blocks, refused: 0, without_memory: 0 };
    let stopped = joiner.go_through(&maps::own()?, started);
    let mut notes: Vec<String> = stopped.into_iter().collect();
    if joiner.blocks.shared > 0 {
        notes.push(format!(
            "{} MB are shared, with a child or with a capture that is being read (ask again when it is over), or were never written",
            joiner.blocks.shared >> 20
        ));
    }
    if joiner.refused > 0 {
        notes.push(format!("the kernel left {} MB as they were", joiner.refused >> 20));
    }
    let prediction = headroom::predict(examine::count_of_others()?)?;
    let huge = bytes(&maps::own()?).map(|huge| huge.min(prediction.anonymous));
    if huge.is_none() {
        notes.push(
            "this kernel (before Linux 6.7) does not tell what is in huge pages: force what it should allow"
                .to_owned(),
        );
    }
    Ok(Joined { huge, prediction, total_us: micros(started.elapsed()), notes })
}

/// One call after the other.
struct Joiner {
    blocks: Blocks,
    /// Bytes that the kernel left as they were.
    refused: u64,
    /// How often in a row it had no huge page.
    without_memory: u32,
}

impl Joiner {
    /// Joins what can be, until there is a reason to stop.
    fn go_through(&mut self, mappings: &[Mapping], started: Instant) -> Option<String> {
        let joinable = mappings.iter().filter(|mapping| is_joinable(mapping));
        let size = self.blocks.size;
        let ranges = joinable.map(|Mapping { range, .. }| range.start.next_multiple_of(size)..range.end);
        // The program goes on, and gives memory back: what is there is asked just before it is joined.
        for piece in ranges.flat_map(|range| pieces(range, PIECE)) {
            for run in self.blocks.whole(piece) {
                if !self.blocks.are_joined(&run) {
                    if let Some(reason) = self.reason_to_stop(started) {
                        return Some(reason);
                    }
                    self.join(run);
                }
            }
            if started.elapsed() > DEADLINE {
                return self.reason_to_stop(started);
            }
        }
        None
    }

    /// Why no more should be joined.
    fn reason_to_stop(&self, started: Instant) -> Option<String> {
        if let Some((left, limit)) = headroom::memory_left().filter(|&(left, _)| left < RESERVE) {
            return Some(format!("{limit} leaves {} MB: the rest is as it was", left >> 20));
        }
        if self.without_memory >= NO_MEMORY {
            return Some("the system has no huge pages left: the rest is as it was".to_owned());
        }
        (started.elapsed() > DEADLINE)
            .then(|| format!("stopped after {} s: ask again for the rest", DEADLINE.as_secs()))
    }

    /// Joins the blocks of `range`.
    fn join(&mut self, range: Range<u64>) {
        if madvise_collapse(range.clone()).is_ok() {
            self.without_memory = 0;
            return;
        }
        // The call may have ended at a block that cannot be joined now: it is in use elsewhere, say.
        for block in pieces(range, self.blocks.size) {
            match madvise_collapse(block.clone()) {
                Ok(()) => self.without_memory = 0,
                // The program has given it back meanwhile.
                Err(_) if self.blocks.whole(block).is_empty() => {}
                Err(errno) => {
                    self.refused += self.blocks.size;
                    self.without_memory = if errno == libc::ENOMEM { self.without_memory + 1 } else { 0 };
                }
            }
            if self.without_memory >= NO_MEMORY {
                return;
            }
        }
    }
}

/// An empty range asks whether the kernel knows how.
fn madvise_collapse(range: Range<u64>) -> Result<(), i32> {
    // SAFETY: what is in the pages does not change, and if they are unmapped meanwhile, the kernel says so.
    let done = unsafe {
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        libc::madvise(std::ptr::without_provenance_mut(range.start as usize), len, MADV_COLLAPSE)
    };
    if done == 0 { Ok(()) } else { Err(super::errno()) }
}

/// Private memory without a file, room for a huge page. What the program may only read is no heap.
fn is_joinable(mapping: &Mapping) -> bool {
    let len = mapping.range.end.saturating_sub(mapping.range.start);
    mapping.write && !mapping.shared && mapping.inode == 0 && len >= HUGE
}

/// Blocks of memory that can become huge pages.
struct Blocks {
    pages: Pages,
    pagemap: File,
    /// Of a huge page.
    size: u64,
    /// Bytes that a child has, too.
    shared: u64,
}

impl Blocks {
    /// The aligned blocks in `range` of which every page is in memory and the program's alone, neighbours as one. Others
    /// would take more memory than before, or be copied.
    fn whole(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        let Self { pages, pagemap, size, shared } = self;
        let size = *size;
        let mut blocks: Vec<Range<u64>> = Vec::new();
        let aligned = range.start.next_multiple_of(size)..range.end / size * size;
        if aligned.is_empty() {
            return blocks;
        }
        let (mut there, mut exclusive) = (0, 0);
        let page = page_size() as u64;
        pages.each(pagemap, aligned, |range, entry| {
            if range.start.is_multiple_of(size) {
                (there, exclusive) = (0, 0);
            }
            if entry & (PRESENT | FILE) == PRESENT {
                there += page;
                exclusive += if entry & EXCLUSIVE != 0 { page } else { 0 };
            }
            if range.end.is_multiple_of(size) && there == size {
                match blocks.last_mut() {
                    Some(last) if exclusive == size && last.end == range.end - size => last.end = range.end,
                    _ if exclusive == size => blocks.push(range.end - size..range.end),
                    _ if exclusive == 0 => *shared += size,
                    // Of a page that takes no memory, like that of zeroes, there would be one that does.
                    _ => {}
                }
            }
        });
        blocks
    }

    /// Whether all of it is in huge pages.
    fn are_joined(&self, range: &Range<u64>) -> bool {
        huge_in(&self.pagemap, range.clone()) == Some(range.end - range.start)
    }
}

/// `range` in pieces of `len` bytes, the last of which may be shorter.
fn pieces(range: Range<u64>, len: u64) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = range;
    (0..end.saturating_sub(start).div_ceil(len)).map(move |number| {
        let from = start + number * len;
        from..end.min(from.saturating_add(len))
    })
}

/// Bytes in huge pages; `None` where the kernel does not tell.
fn huge_in(pagemap: &File, range: Range<u64>) -> Option<u64> {
    let mut regions = [Region::default(); 64];
    let (mut huge, mut at) = (0_u64, range.start);
    while at < range.end {
        let mut arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            start: at,
            // The kernel holds its locks for a part at most, and parts end where huge pages do.
            end: range.end.min(at.saturating_add(PART) / HUGE * HUGE),
            regions: regions.as_mut_ptr().expose_provenance() as u64,
            regions_len: regions.len() as u64,
            category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_mask: PAGE_IS_HUGE | PAGE_IS_FILE | PAGE_IS_PFNZERO,
            return_mask: PAGE_IS_HUGE,
            ..ScanArguments::default()
        };
        // SAFETY: the kernel writes to `arguments` and, at most their number, to `regions`.
        let filled = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut arguments) };
        let filled = regions.get(..usize::try_from(filled).ok()?)?;
        for region in filled {
            // Before Linux 6.16, huge pages of zeroes are among them, which are marked as a file's.
            let blocks = (region.start..region.end).step_by(HUGE as usize);
            huge += HUGE * blocks.filter(|block| is_anonymous(pagemap, *block)).count() as u64;
        }
        at = Some(arguments.walk_end).filter(|end| *end > at)?;
    }
    Some(huge)
}

/// Whether there is a page at `address` that is no file's.
fn is_anonymous(pagemap: &File, address: u64) -> bool {
    let mut entry = [0; 8];
    let read = pagemap.read_exact_at(&mut entry, address / page_size() as u64 * 8);
    read.is_ok() && u64::from_ne_bytes(entry) & (PRESENT | FILE) == PRESENT
}
