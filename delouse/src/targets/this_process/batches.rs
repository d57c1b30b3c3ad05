//! Search requests from the parent to its forked child, and their results, in memory that both share.
//!
//! [`search_batch`] obeys the rules of `child.rs`.

use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::arch;

/// Bytes searched for one request: large enough that the cost of the request does not matter.
pub(super) const BATCH: u64 = 4 << 20;
/// The most ranges in one batch.
pub(super) const PARTS: usize = 256;
/// Number of words in a batch: even if all match, none is lost.
const HITS: usize = (BATCH / 8) as usize;

/// Bytes in a cache line.
const LINE: u64 = 64;
/// Memory is prefetched this far ahead, in bytes. The processor's own prefetching stops at the end of each page; without
/// this, the search takes twice as long.
const AHEAD: u64 = 5 << 10;

/// One request and its result. The kernel allocates only the pages that are written.
#[repr(C)]
pub(super) struct Batch {
    /// The lowest matching value, as a complement, and the distance from it to the highest.
    lowest: AtomicU64,
    span: AtomicU64,
    /// Number of ranges, and the start and end of each.
    parts: AtomicU32,
    ranges: [[AtomicU64; 2]; PARTS],
    /// Number of matching words, and the address and value of each, as complements: otherwise the next search would find
    /// them here.
    found: AtomicU32,
    hits: [[AtomicU64; 2]; HITS],
}

/// Searches the ranges of a batch. Runs in the child.
///
/// # Safety
/// Every range is readable in this process, and aligned to words.
pub(super) unsafe fn search_batch(batch: &Batch) {
    let (lowest, span) = (!batch.lowest.load(Ordering::Relaxed), batch.span.load(Ordering::Relaxed));
    let parts = batch.parts.load(Ordering::Relaxed) as usize;
    let mut hits = batch.hits.iter();
    let mut found = 0_u32;
    for [start, end] in batch.ranges.iter().take(parts) {
        let (mut at, end) = (start.load(Ordering::Relaxed), end.load(Ordering::Relaxed));
        while at < end {
            arch::prefetch(at.wrapping_add(AHEAD));
            let line = end.min((at | (LINE - 1)).wrapping_add(1));
            // SAFETY: by the contract above, all of the line is in the range.
            if line.wrapping_sub(at) == LINE && unsafe { !is_any_wanted(at, lowest, span) } {
                at = line;
                continue;
            }
            while at < line {
                // SAFETY: by the contract above. Volatile, because this is not memory of a Rust object.
                let word = unsafe { std::ptr::with_exposed_provenance::<u64>(at as usize).read_volatile() };
                if word.wrapping_sub(lowest) <= span
                    && let Some([address, value]) = hits.next()
                {
                    address.store(!at, Ordering::Relaxed);
                    value.store(!word, Ordering::Relaxed);
                    found = found.wrapping_add(1);
                }
                at = at.wrapping_add(8);
            }
        }
    }
    batch.found.store(found, Ordering::Relaxed);
}

/// Whether one of the words of a line is wanted. Reads them together and compares them without loops and calls, which take
/// most of the time in builds without optimisation.
///
/// # Safety
/// The line at `at` is readable, and aligned to words.
#[inline(always)]
unsafe fn is_any_wanted(at: u64, lowest: u64, span: u64) -> bool {
    const _: () = assert!(LINE == 64);
    // SAFETY: by the contract above. Volatile, because this is not memory of a Rust object.
    let words = unsafe { std::ptr::with_exposed_provenance::<[u64; 8]>(at as usize).read_volatile() };
    let [a, b, c, d, e, f, g, h] = words;
    a.wrapping_sub(lowest) <= span
        || b.wrapping_sub(lowest) <= span
        || c.wrapping_sub(lowest) <= span
        || d.wrapping_sub(lowest) <= span
        || e.wrapping_sub(lowest) <= span
        || f.wrapping_sub(lowest) <= span
        || g.wrapping_sub(lowest) <= span
        || h.wrapping_sub(lowest) <= span
}

impl Batch {
    /// Stores a request: the words in `parts` whose value is in `wanted`.
    pub(super) fn set_request(&self, wanted: &RangeInclusive<u64>, parts: &[Range<u64>]) {
        self.lowest.store(!*wanted.start(), Ordering::Relaxed);
        self.span.store(wanted.end().saturating_sub(*wanted.start()), Ordering::Relaxed);
        for ([start, end], part) in self.ranges.iter().zip(parts) {
            start.store(part.start, Ordering::Relaxed);
            end.store(part.end, Ordering::Relaxed);
        }
        self.parts.store(parts.len().min(PARTS) as u32, Ordering::Relaxed);
    }

    /// Calls `visit` with the address and the value of each matching word.
    pub(super) fn for_each_hit(&self, visit: &mut dyn FnMut(u64, u64)) {
        let found = self.found.load(Ordering::Relaxed) as usize;
        for [address, value] in self.hits.iter().take(found) {
            visit(!address.load(Ordering::Relaxed), !value.load(Ordering::Relaxed));
        }
    }
}

/// Two batches: while the child searches one, the parent reads the results of the other.
#[repr(C)]
pub(super) struct Batches([Batch; 2]);

impl Batches {
    /// The memory for batch `number`. Batches are numbered in the order of the requests.
    pub(super) fn get(&self, number: u32) -> &Batch {
        let [even, odd] = &self.0;
        if number.is_multiple_of(2) { even } else { odd }
    }
}
