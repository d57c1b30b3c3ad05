//! A forked image of this process: a consistent copy of its memory, which can be read while the program runs.

use std::fs::File;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::arch::SignalContext;
use super::captured::Captured;
use super::child_handle::{AdoptError, Child, Process};
use super::control::{Control, ControlPage};
use super::engine::{self, STACK_LIMIT};
use super::fork_cost::{self, Watch};
use super::forker::{self, Forker};
use super::hold::{CapturingThread, Held, Hold};
use super::{examine, search, sys};
use crate::snapshot::{Address, Capture, Mapping, Snapshot, Thread, micros};
use crate::targets::{Limits, Prediction, SnapshotError};

/// Ranges of at least this many bytes are searched by the child instead of being read.
const WORTH_A_MESSAGE: u64 = 256 << 10;

/// This process's memory at the moment of a fork. The child that holds it exits when this is dropped, when it was not
/// read for 30 seconds, and five minutes after the fork at the latest. Afterwards reads fail, and [`ForkedImage::intact`] returns the reason.
#[derive(Debug)]
pub(crate) struct ForkedImage {
    child: Child,
    mappings: Vec<Mapping>,
    threads: Vec<Thread>,
    contexts: Vec<(i32, SignalContext)>,
    capture: Capture,
}

/// Forks an image without stopping threads: memory is consistent, threads have no registers.
///
/// Page faults of the program wait until the fork is complete ([`Capture::pause_us`]): about 35 ms per gigabyte of anonymous
/// memory in 4K pages. While the image exists, the first write to each page costs the program a few microseconds.
pub(crate) fn fork(limits: Limits) -> Result<ForkedImage, SnapshotError> {
    let prediction = check(limits, 0)?;
    let started = Instant::now();
    let threads = examine::list()?;
    let captured = Captured { threads, ..Captured::default() };
    fork_now(started, &prediction, limits, captured, &Watch::new())
}

/// The same after a rolling capture of all threads. Their registers and copied stacks are a few milliseconds older than the
/// image: for a thread that ran meanwhile, they are not consistent with it.
pub(crate) fn fork_with_threads(limits: Limits) -> Result<ForkedImage, SnapshotError> {
    let prediction = check(limits, 0)?;
    let started = Instant::now();
    let captured = engine::capture(Hold::Separately, STACK_LIMIT)?;
    fork_now(started, &prediction, limits, captured, &Watch::new())
}

/// Stops all threads, captures their registers, forks, and resumes the threads: registers and memory are of the same
/// moment. Stacks are in the image's memory, not in [`Thread::stack`].
pub(crate) fn freeze_fork_thaw(limits: Limits) -> Result<ForkedImage, SnapshotError> {
    let prediction = check(limits, examine::count_active()?)?;
    let started = Instant::now();
    let watch = Watch::new();
    let (child, captured) = with_forker(|forker, control| {
        let mut forked = Err(libc::ECANCELED);
        let mut fork_them = |held: Held<'_>| {
            forked = fork_here(forker, control, &watch, held.capturing_thread);
            if forked.is_ok() {
                held.unshare_stacks();
            }
        };
        let captured = engine::capture(Hold::Together(&mut fork_them), 0);
        let forked = match (&captured, forked) {
            // The capture failed before the fork.
            (Err(error), Err(_)) => Err(error.clone()),
            (_, forked) => forked.map_err(SnapshotError::Fork),
        };
        (forked, captured)
    })?;
    fork_cost::observe(&prediction, child.0.fork_took());
    Ok(ForkedImage::new(started, child, captured?, limits))
}

/// Forks an image whose child observes `watch`.
#[cfg(test)]
pub(super) fn fork_watched(watch: &Watch) -> ForkedImage {
    let limits = Limits { force: true, ..Limits::default() };
    let prediction = check(limits, 0).unwrap();
    fork_now(Instant::now(), &prediction, limits, Captured::default(), watch).unwrap()
}

/// Predicts the cost of a fork, and checks it against the limits.
fn check(limits: Limits, threads: usize) -> Result<Prediction, SnapshotError> {
    let prediction = fork_cost::predict(threads)?;
    prediction.allowed_by(limits)?;
    Ok(prediction)
}

fn fork_now(
    started: Instant,
    prediction: &Prediction,
    limits: Limits,
    mut captured: Captured,
    watch: &Watch,
) -> Result<ForkedImage, SnapshotError> {
    let (child, ()) = with_forker(|forker, control| {
        let forked = fork_here(forker, control, watch, CapturingThread::NOT_CAPTURED);
        (forked.map_err(SnapshotError::Fork), ())
    })?;
    let took = child.0.fork_took();
    fork_cost::observe(prediction, took);
    captured.pause = captured.pause.and(took);
    captured.complete = true;
    Ok(ForkedImage::new(started, child, captured, limits))
}

/// A child and its mappings.
type Forked = (Child, Vec<Mapping>);

/// Has `attempt` fork a child without open files. If the kernel does not let this process open the child's `/proc` files,
/// has it fork another one that shares this process's table of open files, and opens them there.
fn with_forker<T>(
    mut attempt: impl FnMut(&Forker, &ControlPage) -> (Result<i32, SnapshotError>, T),
) -> Result<(Forked, T), SnapshotError> {
    loop {
        let forker = forker::ready()?;
        let control = ControlPage::new()?;
        let (forked, more) = attempt(&forker, &control);
        match Child::adopt(forked?, control, forker.has_own_files()) {
            Ok(child) => return Ok((child, more)),
            Err(AdoptError::Other(error)) => return Err(error),
            Err(AdoptError::Refused) => forker::share_files(),
        }
    }
}

/// Captures the calling thread and forks, both in this frame, so that the captured registers are consistent with the stack
/// in the image.
///
/// Obeys the rules of the window (`capture_session.rs`).
#[inline(never)]
fn fork_here(
    forker: &Forker,
    control: &Control,
    watch: &Watch,
    capturing_thread: CapturingThread,
) -> Result<i32, sys::Errno> {
    control.memory_stat_path.store(watch.path_address(), Ordering::Relaxed);
    control.memory_ceiling.store(watch.ceiling, Ordering::Relaxed);
    capturing_thread.capture();
    forker.fork(control)
}

impl ForkedImage {
    fn new(started: Instant, (child, mappings): Forked, captured: Captured, limits: Limits) -> Self {
        let Captured { threads, contexts, pause, complete, mut notes, .. } = captured;
        notes.extend(limits.exceeded(pause.program));
        let capture = Capture {
            pause_us: pause.program_us(),
            held_us: pause.longest_us(),
            total_us: micros(started.elapsed()),
            consistent: complete,
            notes,
            ..Capture::default()
        };
        Self { child, mappings, threads, contexts, capture }
    }

    /// Checks that the child still exists. Call this after the last read: after the child's end, all memory reads as
    /// unmapped.
    pub(crate) fn intact(&self) -> Result<(), SnapshotError> {
        if self.child.is_alive() { Ok(()) } else { Err(self.child.lost()) }
    }

    /// Lets the child live for five minutes although it is not read: an analysis may compute for long between two reads. A
    /// client that stalls must not use this, as the program copies each page that it writes while the child exists.
    pub(crate) fn keep_for_analysis(&self) {
        let control = self.child.control();
        control.deadline.store(control.latest.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Closes the child's files and kills it. Dropping the returned value waits for its end: some milliseconds for a large
    /// image.
    pub(crate) fn end(self) -> Process {
        self.child.end()
    }

    /// Full registers of the captured threads, by thread id.
    pub(super) fn contexts(&self) -> &[(i32, SignalContext)] {
        &self.contexts
    }

    /// The child's `pagemap`, at any position; `None` if the process is not dumpable.
    pub(super) fn pagemap(&self) -> Option<&File> {
        self.child.pagemap()
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Lets tests change the child's deadline and its memory limit.
    #[cfg(test)]
    pub(super) fn control(&self) -> &Control {
        self.child.control()
    }

    /// Searches `range` without checking that its mapping is readable.
    #[cfg(test)]
    pub(super) fn search_regardless(&self, range: Range<u64>) {
        let pagemap = self.pagemap().unwrap();
        drop(self.child.search(pagemap, range, &(0..=u64::MAX), &mut |_, _| {}));
    }

    #[cfg(test)]
    pub(super) fn reads_by_pipe(&self) -> bool {
        self.child.is_read_by_pipe()
    }
}

impl Snapshot for ForkedImage {
    fn read(&self, address: Address, buf: &mut [u8]) -> usize {
        self.child.read(address.get(), buf)
    }

    fn search(
        &self,
        range: Range<Address>,
        wanted: &RangeInclusive<u64>,
        visit: &mut dyn FnMut(Address, u64),
    ) -> Vec<Range<Address>> {
        let is_private = |mapping: &&Mapping| {
            range.end <= mapping.range.end && mapping.read && !mapping.shared && mapping.inode == 0
        };
        let size = range.end.offset_from(range.start).unwrap_or(0);
        let worth = size >= WORTH_A_MESSAGE && search::is_enabled();
        let pagemap = self.pagemap().filter(|_| worth);
        match (self.mapping(range.start).filter(is_private), pagemap) {
            (Some(_), Some(pagemap)) => {
                let mut visit = |address, word| visit(Address::new(address), word);
                let rest = self.child.search(pagemap, Address::words(&range), wanted, &mut visit);
                rest.into_iter().map(Address::range).collect()
            }
            _ => vec![range],
        }
    }

    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn threads(&self) -> &[Thread] {
        &self.threads
    }

    fn capture(&self) -> &Capture {
        &self.capture
    }

    fn is_this_process(&self) -> bool {
        true
    }
}
