//! Has the forked child search its own memory for words.
//!
//! Reading a gigabyte from another process takes a third of a second. The child searches it in a fraction of this time, in
//! parallel with the parent, and returns only the matches.

use std::fs::File;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::batches::{BATCH, PARTS};
use super::control::{ALIVE_INTERVAL, Control};
use super::pagemap::{PRESENT, Pages, SWAPPED};
use super::{page_size, sys};

/// How long to wait for a batch. A search takes milliseconds, but a child that is stopped (SIGSTOP, a debugger) never
/// answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether children may search. A child that crashes during a search has memory that faults although its mapping is
/// readable: afterwards all memory is read through the kernel.
static ENABLED: AtomicBool = AtomicBool::new(true);

/// Whether children may search.
pub(super) fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Stops the use of searches, after a child has crashed.
pub(super) fn disable() {
    ENABLED.store(false, Ordering::Relaxed);
}

/// The parts of a range that were not searched.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// The caller has to read these.
    pub(super) ranges: Vec<Range<u64>>,
    /// The child does not answer, and must not be used for another search.
    pub(super) silent: bool,
}

/// Has the child search the pages of `range` that are in memory. `range` must be within one readable mapping of private
/// memory, and aligned to words.
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
            control.batches.get(number).set_request(wanted, &parts);
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
            control.batches.get(number).for_each_hit(visit);
        }
        pending = asked;
    }
    Rest { ranges: rest, silent: false }
}

/// Waits until a batch is done. Returns false if the child has ended or does not answer.
fn wait_for(control: &Control, number: u32, is_alive: impl Fn() -> bool) -> bool {
    let (mut before, mut since) = (None, Instant::now());
    loop {
        let done = control.batches_done.load(Ordering::Acquire);
        // At most two batches are in progress.
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

/// The parts of `range` that are in memory, and those that may be in swap. Pages that were never written are in neither.
fn pages(pagemap: &File, range: &Range<u64>) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
    let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
    let first = range.start - range.start % page_size() as u64;
    let end = Pages::default().each(pagemap, first..range.end, |page, entry| {
        let page = page.start.max(range.start)..page.end;
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

/// Takes as many parts as fit into a batch.
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

/// Adds a page, which must follow the pages added before. No part becomes larger than a batch.
fn append(parts: &mut Vec<Range<u64>>, page: Range<u64>) {
    match parts.last_mut() {
        Some(last) if last.end == page.start && page.end - last.start <= BATCH => last.end = page.end,
        _ => parts.push(page),
    }
}
