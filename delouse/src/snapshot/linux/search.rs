//! Looks for words in an image's memory, by the child that has it as its own.
//!
//! Reading a gigabyte out of another process takes the kernel a third of a second. The child finds what is wanted in a
//! fraction of that, on a processor of its own, and what it found is little.
//!
//! The rules of `child.rs` hold for [`look_through`].

use std::fs::File;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::child_handle::ALIVE_INTERVAL;
use super::control::Control;
use super::pagemap::{PRESENT, Pages, SWAPPED};
use super::{arch, page_size, sys};

/// Memory that is looked through at a time, in bytes: enough to be worth a message.
const BATCH: u64 = 4 << 20;
/// Parts that it lies in, at most.
const PARTS: usize = 256;
/// Words in it: none is left out, whatever is wanted.
const HITS: usize = (BATCH / 8) as usize;

/// What a processor fetches at once, in bytes.
const LINE: u64 = 64;
/// So far ahead memory is fetched: processors do that by themselves, but not beyond the page that is being read, which
/// is half of the time.
const AHEAD: u64 = 5 << 10;

/// How long a batch may take, which is a matter of milliseconds: a child that was stopped (SIGSTOP, a debugger) never
/// answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is asked, and what was found, in memory that parent and child share: only what is written takes any.
#[repr(C)]
pub(super) struct Batch {
    /// The words that are wanted: from the first number on, a complement, and as many more as the second says.
    lowest: AtomicU64,
    span: AtomicU64,
    /// How many parts there are, and where each begins and ends.
    parts: AtomicU32,
    ranges: [[AtomicU64; 2]; PARTS],
    /// How many words were found, and of each its address and what it is, as complements: else the next to search
    /// memory takes them for pointers.
    found: AtomicU32,
    hits: [[AtomicU64; 2]; HITS],
}

/// Finds the words that are asked for. Runs in the child.
///
/// # Safety
/// Every part that is asked for is readable here, and aligned to words.
pub(super) unsafe fn look_through(batch: &Batch) {
    let (lowest, span) = (!batch.lowest.load(Ordering::Relaxed), batch.span.load(Ordering::Relaxed));
    let parts = batch.parts.load(Ordering::Relaxed) as usize;
    let mut hits = batch.hits.iter();
    let mut found = 0_u32;
    for [start, end] in batch.ranges.iter().take(parts) {
        let (mut at, end) = (start.load(Ordering::Relaxed), end.load(Ordering::Relaxed));
        while at < end {
            arch::prefetch(at.wrapping_add(AHEAD));
            let line = end.min((at | (LINE - 1)).wrapping_add(1));
            while at < line {
                // SAFETY: by the contract above. Volatile: a memory that no Rust object of ours lies in.
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

impl Batch {
    /// Asks for what is `wanted` in `parts`.
    fn ask(&self, wanted: &RangeInclusive<u64>, parts: &[Range<u64>]) {
        self.lowest.store(!*wanted.start(), Ordering::Relaxed);
        self.span.store(wanted.end().saturating_sub(*wanted.start()), Ordering::Relaxed);
        for ([start, end], part) in self.ranges.iter().zip(parts) {
            start.store(part.start, Ordering::Relaxed);
            end.store(part.end, Ordering::Relaxed);
        }
        self.parts.store(parts.len().min(PARTS) as u32, Ordering::Relaxed);
    }

    /// Calls `visit` with the address of each word that was found, and the word.
    fn tell(&self, visit: &mut dyn FnMut(u64, u64)) {
        let found = self.found.load(Ordering::Relaxed) as usize;
        for [address, value] in self.hits.iter().take(found) {
            visit(!address.load(Ordering::Relaxed), !value.load(Ordering::Relaxed));
        }
    }
}

/// No child has crashed while it searched. Where one has, there is memory that only the kernel can read, whatever its
/// mapping says: from then on all is read through the kernel.
static HARMLESS: AtomicBool = AtomicBool::new(true);

/// Whether to let children search.
pub(super) fn is_harmless() -> bool {
    HARMLESS.load(Ordering::Relaxed)
}

/// A child has crashed.
pub(super) fn does_harm() {
    HARMLESS.store(false, Ordering::Relaxed);
}

/// Two batches: while the child works on one, the other is told.
#[repr(C)]
pub(super) struct Batches([Batch; 2]);

impl Batches {
    /// The batch of that number, which comes after those of all lower ones.
    pub(super) fn get(&self, number: u32) -> &Batch {
        let [even, odd] = &self.0;
        if number.is_multiple_of(2) { even } else { odd }
    }
}

/// What is left of a search.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// What could not be looked through: it is to be read.
    pub(super) ranges: Vec<Range<u64>>,
    /// The child does not answer any more: it must not be asked again.
    pub(super) silent: bool,
}

/// Has the child look through the pages of `range` that are in memory. `range` lies in one readable mapping of private
/// memory, aligned to words.
pub(super) fn search(
    control: &Control,
    is_alive: impl Fn() -> bool,
    pagemap: &File,
    range: Range<u64>,
    wanted: &RangeInclusive<u64>,
    visit: &mut dyn FnMut(u64, u64),
) -> Rest {
    let (todo, mut rest) = pages(pagemap, &range);
    let mut todo = todo.into_iter().peekable();
    let mut pending: Option<(u32, Vec<Range<u64>>)> = None;
    while pending.is_some() || todo.peek().is_some() {
        let parts = next_batch(&mut todo);
        let asked = (!parts.is_empty()).then(|| {
            let number = control.batches_asked.load(Ordering::Relaxed);
            control.batches.get(number).ask(wanted, &parts);
            control.batches_asked.store(number.wrapping_add(1), Ordering::Release);
            control.request.fetch_add(1, Ordering::AcqRel);
            sys::futex_wake(&control.request);
            (number, parts)
        });
        if let Some((number, parts)) = pending {
            if !wait_for(control, number, &is_alive) {
                rest.extend(parts);
                rest.extend(asked.into_iter().flat_map(|(_, parts)| parts));
                rest.extend(todo);
                return Rest { ranges: rest, silent: true };
            }
            control.batches.get(number).tell(visit);
        }
        pending = asked;
    }
    Rest { ranges: rest, silent: false }
}

/// Waits until a batch is done; `false` where the child is gone, or stands still.
fn wait_for(control: &Control, number: u32, is_alive: impl Fn() -> bool) -> bool {
    let (mut before, mut since) = (None, Instant::now());
    loop {
        let done = control.batches_done.load(Ordering::Acquire);
        // At most two are on their way.
        if done.wrapping_sub(number).wrapping_sub(1) < 2 {
            return true;
        }
        if before.replace(done) != Some(done) {
            since = Instant::now();
        }
        if since.elapsed() > PATIENCE || !is_alive() {
            return false;
        }
        sys::futex_wait(&control.batches_done, done, ALIVE_INTERVAL);
    }
}

/// The parts of `range` that are in memory, and those that may be elsewhere.
fn pages(pagemap: &File, range: &Range<u64>) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
    let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
    let first = range.start - range.start % page_size() as u64;
    let end = Pages::default().each(pagemap, first..range.end, |page, entry| {
        let page = page.start.max(range.start)..page.end;
        // What guards a stack is "swapped", too; what is neither was never written.
        if entry & PRESENT != 0 {
            append(&mut here, page);
        } else if entry & SWAPPED != 0 {
            append(&mut elsewhere, page);
        }
    });
    if end < range.end {
        elsewhere.push(end.max(range.start)..range.end);
    }
    (here, elsewhere)
}

/// Takes as many parts as a batch may have.
fn next_batch(todo: &mut std::iter::Peekable<impl Iterator<Item = Range<u64>>>) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut room = BATCH;
    while parts.len() < PARTS
        && let Some(next) = todo.next_if(|next| next.end - next.start <= room)
    {
        room -= next.end - next.start;
        parts.push(next);
    }
    parts
}

/// Adds a page behind those that were added before; no part is larger than a batch.
fn append(parts: &mut Vec<Range<u64>>, page: Range<u64>) {
    match parts.last_mut() {
        Some(last) if last.end == page.start && page.end - last.start <= BATCH => last.end = page.end,
        _ => parts.push(page),
    }
}
