//! Joins small pages into huge pages.
//!
//! A fork copies one entry per page. A gigabyte of anonymous memory takes 20 to 35 ms in 4K pages, and less than 1 ms in
//! 2 MB pages.

use std::fs::{File, read_to_string};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::huge_memory::{bytes, huge_in, is_joinable};
use super::pagemap::{EXCLUSIVE, FILE, PRESENT, Pages};
use super::{examine, fork_cost, own_mappings, page_size};
use crate::host::memory_left::memory_left;
use crate::snapshot::{Address, Mapping, micros};
use crate::targets::{Joined, SnapshotError};

/// Contains the size of a huge page (Linux admin-guide/mm/transhuge.rst).
const SIZE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
/// Memory joined by one call, in bytes. The kernel releases its locks after each huge page, so that page faults and calls
/// that change mappings wait for one huge page at most.
const PIECE: u64 = 32 << 20;
/// The largest size of huge pages that are joined: threads that use the memory wait meanwhile. With 64K pages, a huge page
/// is 512 MB large.
const LARGEST: u64 = 4 << 20;
/// After this many consecutive failures for lack of memory, joining stops.
const NO_MEMORY: u32 = 4;
/// After this time, joining stops.
const DEADLINE: Duration = Duration::from_secs(20);
/// Memory that stays free while pages are joined. The kernel needs the size of one huge page temporarily.
const RESERVE: u64 = 128 << 20;

/// An advice of `madvise` (linux/mman.h, since Linux 6.1; not in musl's headers).
const MADV_COLLAPSE: i32 = 25;

/// Has the kernel join the program's anonymous memory into huge pages. Only blocks of which every page is present are
/// joined, so that they take no more memory than before. Mappings with `MADV_NOHUGEPAGE` are left unchanged.
///
/// Takes two or three seconds per gigabyte on the calling thread. A thread of the program that accesses a page that is
/// being joined waits about a millisecond. Needs Linux 6.1 (`MADV_COLLAPSE`).
pub(crate) fn join() -> Result<Joined, SnapshotError> {
    let started = Instant::now();
    let size = read_to_string(SIZE).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let size = size.filter(|size| size.is_power_of_two() && *size <= LARGEST);
    let size = size.filter(|_| madvise_collapse(0..0).is_ok()).ok_or(SnapshotError::NoHugePages)?;
    let pagemap = File::open("/proc/self/pagemap").map_err(SnapshotError::proc("/proc/self/pagemap"))?;
    let blocks = Blocks { pages: Pages::default(), pagemap, size, shared: 0 };
    let mut joiner = Joiner { blocks, refused: 0, without_memory: 0 };
    let stopped = joiner.join_all(&own_mappings()?, started);
    let mut notes: Vec<String> = stopped.into_iter().collect();
    if joiner.blocks.shared > 0 {
        notes.push(format!(
            "{} MB are shared with a child or with a capture in progress (repeat the request when it is over), or were never written",
            joiner.blocks.shared >> 20
        ));
    }
    if joiner.refused > 0 {
        notes.push(format!("the kernel did not join {} MB", joiner.refused >> 20));
    }
    let prediction = fork_cost::predict(examine::count_active()?)?;
    let huge = bytes(&own_mappings()?).map(|huge| huge.min(prediction.anonymous));
    if huge.is_none() {
        notes.push(
            "this kernel (before Linux 6.7) does not report how much memory is in huge pages: captures must be forced"
                .to_owned(),
        );
    }
    Ok(Joined { huge, prediction, total_us: micros(started.elapsed()), notes })
}

/// The progress of the joining.
struct Joiner {
    blocks: Blocks,
    /// Bytes that the kernel did not join.
    refused: u64,
    /// Number of consecutive failures for lack of memory.
    without_memory: u32,
}

impl Joiner {
    /// Joins all blocks that can be joined. Returns the reason if it stops before the end.
    fn join_all(&mut self, mappings: &[Mapping], started: Instant) -> Option<String> {
        let joinable = mappings.iter().filter(|mapping| is_joinable(mapping));
        let size = self.blocks.size;
        let ranges = joinable
            .map(|mapping| Address::words(&mapping.range))
            .map(|range| range.start.next_multiple_of(size)..range.end);
        // The program runs and frees memory: check which pages are present directly before they are joined.
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

    /// Why joining should stop.
    fn reason_to_stop(&self, started: Instant) -> Option<String> {
        if let Some((left, limit)) = memory_left().filter(|&(left, _)| left < RESERVE) {
            return Some(format!("{limit} leaves {} MB: the rest was not joined", left >> 20));
        }
        if self.without_memory >= NO_MEMORY {
            return Some("the system has no huge pages left: the rest was not joined".to_owned());
        }
        (started.elapsed() > DEADLINE)
            .then(|| format!("stopped after {} s: repeat the request for the rest", DEADLINE.as_secs()))
    }

    /// Joins the blocks of `range`.
    fn join(&mut self, range: Range<u64>) {
        if madvise_collapse(range.clone()).is_ok() {
            self.without_memory = 0;
            return;
        }
        // The call stops at a block that cannot be joined now. Try each block.
        for block in pieces(range, self.blocks.size) {
            match madvise_collapse(block.clone()) {
                Ok(()) => self.without_memory = 0,
                // The program has freed it meanwhile.
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

/// Joins `range`. With an empty range, checks whether the kernel supports the call.
fn madvise_collapse(range: Range<u64>) -> Result<(), i32> {
    // SAFETY: the contents of the pages do not change; the call fails if they are unmapped meanwhile.
    let done = unsafe {
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        libc::madvise(std::ptr::without_provenance_mut(range.start as usize), len, MADV_COLLAPSE)
    };
    if done == 0 { Ok(()) } else { Err(super::errno()) }
}

/// Finds blocks of memory that can become huge pages.
struct Blocks {
    pages: Pages,
    pagemap: File,
    /// Size of a huge page.
    size: u64,
    /// Bytes of blocks that are shared with a forked child.
    shared: u64,
}

impl Blocks {
    /// The aligned blocks in `range` of which every page is present and not shared. Adjacent blocks are merged. Other
    /// blocks would take more memory when joined, or be copied.
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
                    // Some pages take no memory, like the page of zeroes: joined, they would.
                    _ => {}
                }
            }
        });
        blocks
    }

    /// Whether `range` consists of huge pages.
    fn are_joined(&self, range: &Range<u64>) -> bool {
        huge_in(&self.pagemap, range.clone()) == Some(range.end - range.start)
    }
}

/// Splits `range` into pieces of `len` bytes; the last may be shorter.
fn pieces(range: Range<u64>, len: u64) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = range;
    (0..end.saturating_sub(start).div_ceil(len)).map(move |number| {
        let from = start + number * len;
        from..end.min(from.saturating_add(len))
    })
}
