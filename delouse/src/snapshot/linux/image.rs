//! A forked image of ourselves: memory as it was at one moment, read at leisure.

use std::fs::File;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::arch::Context;
use super::captured::Captured;
use super::child_handle::{Child, Failed};
use super::control::{Control, ControlPage};
use super::engine::{self, Held, Hold, Myself, STACK_LIMIT};
use super::forker::{self, Forker};
use super::headroom::{self, Watch};
use super::{examine, search, sys};
use crate::snapshot::{Capture, Limits, Mapping, Prediction, Snapshot, SnapshotError, Thread, micros};

/// Memory that is searched by the child rather than read, in bytes.
const WORTH_A_MESSAGE: u64 = 256 << 10;

/// This process's memory at the moment of a fork. The child that holds it ends when this is dropped, and
/// 30 seconds after the fork at the latest: then nothing can be read, and [`Image::intact`] says why.
#[derive(Debug)]
pub(crate) struct Image {
    child: Child,
    mappings: Vec<Mapping>,
    threads: Vec<Thread>,
    contexts: Vec<(i32, Context)>,
    capture: Capture,
}

/// Forks an image without stopping anybody: memory is consistent, threads are listed without registers.
///
/// The program stands still for [`Capture::pause_us`]: about 35 ms for a gigabyte of anonymous memory in
/// 4K pages. While the image lives, each page that the program writes costs it a few microseconds.
pub(crate) fn fork(limits: Limits) -> Result<Image, SnapshotError> {
    let prediction = check(limits, 0)?;
    let started = Instant::now();
    let threads = examine::list()?;
    let captured = Captured { threads, ..Captured::default() };
    fork_now(started, &prediction, limits, captured, &Watch::new())
}

/// The same after a rolling capture of all threads: their registers and copied stacks are a few
/// milliseconds older than the image, so a thread that ran meanwhile does not agree with it.
pub(crate) fn fork_with_threads(limits: Limits) -> Result<Image, SnapshotError> {
    let prediction = check(limits, 0)?;
    let started = Instant::now();
    let captured = engine::capture(Hold::Nobody, STACK_LIMIT)?;
    fork_now(started, &prediction, limits, captured, &Watch::new())
}

/// Registers of all threads and memory of the same moment: every thread stands still while the fork is
/// made. Stacks are in the image's memory, not in [`Thread::stack`].
pub(crate) fn freeze_fork_thaw(limits: Limits) -> Result<Image, SnapshotError> {
    let prediction = check(limits, examine::count_of_others()?)?;
    let started = Instant::now();
    let watch = Watch::new();
    let (child, captured) = with_forker(|forker, control| {
        let mut forked = Err(libc::ECANCELED);
        let mut fork_them = |held: Held<'_>| {
            forked = fork_here(forker, control, &watch, held.myself);
            if forked.is_ok() {
                held.unshare_stacks();
            }
        };
        let captured = engine::capture(Hold::Everybody(&mut fork_them), 0);
        let forked = match (&captured, forked) {
            // There was no window to fork in.
            (Err(error), Err(_)) => Err(error.clone()),
            (_, forked) => forked.map_err(SnapshotError::Fork),
        };
        (forked, captured)
    })?;
    headroom::observe(&prediction, child.0.fork_took());
    Ok(Image::new(started, child, captured?, limits))
}

/// Of this process, for which a file tells how much memory it uses.
#[cfg(test)]
pub(super) fn fork_watched(watch: &Watch) -> Image {
    let limits = Limits { force: true, ..Limits::default() };
    let prediction = check(limits, 0).unwrap();
    fork_now(Instant::now(), &prediction, limits, Captured::default(), watch).unwrap()
}

/// Predicts, and refuses where the limits are exceeded.
fn check(limits: Limits, threads: usize) -> Result<Prediction, SnapshotError> {
    let prediction = headroom::predict(threads)?;
    prediction.allowed_by(limits)?;
    Ok(prediction)
}

fn fork_now(
    started: Instant,
    prediction: &Prediction,
    limits: Limits,
    mut captured: Captured,
    watch: &Watch,
) -> Result<Image, SnapshotError> {
    let (child, ()) = with_forker(|forker, control| {
        let forked = fork_here(forker, control, watch, Myself::NOT_ASKED);
        (forked.map_err(SnapshotError::Fork), ())
    })?;
    let took = child.0.fork_took();
    headroom::observe(prediction, took);
    captured.pause = captured.pause.and(took);
    captured.complete = true;
    Ok(Image::new(started, child, captured, limits))
}

/// A child and its mappings.
type Forked = (Child, Vec<Mapping>);

/// Has `attempt` fork a child that has no file of the program's open; where the kernel does not let this process read
/// such a one, another, which opens its files itself.
fn with_forker<T>(
    mut attempt: impl FnMut(&Forker, &ControlPage) -> (Result<i32, SnapshotError>, T),
) -> Result<(Forked, T), SnapshotError> {
    loop {
        let forker = forker::ready()?;
        let control = ControlPage::new()?;
        let (forked, more) = attempt(&forker, &control);
        match Child::adopt(forked?, control, forker.is_apart()) {
            Ok(child) => return Ok((child, more)),
            Err(Failed::For(error)) => return Err(error),
            Err(Failed::Refused) => forker::share_files(),
        }
    }
}

/// Captures the calling thread and forks, in one frame: the registers agree with the image's stack.
///
/// Obeys the rules of the window (`engine.rs`); the child's are in `child.rs`.
#[inline(never)]
fn fork_here(forker: &Forker, control: &Control, watch: &Watch, myself: Myself) -> Result<i32, sys::Errno> {
    control.memory_stat_path.store(watch.path_address(), Ordering::Relaxed);
    control.memory_ceiling.store(watch.ceiling, Ordering::Relaxed);
    myself.capture();
    forker.fork(control)
}

impl Image {
    fn new(started: Instant, (child, mappings): Forked, captured: Captured, limits: Limits) -> Self {
        let Captured { threads, contexts, pause, complete, mut notes, .. } = captured;
        notes.extend(limits.exceeded(pause.program));
        let capture = Capture {
            pause_us: pause.program_us(),
            held_us: pause.longest_us(),
            total_us: micros(started.elapsed()),
            consistent: complete,
            notes,
        };
        Self { child, mappings, threads, contexts, capture }
    }

    /// Whether the image is still there. Memory that "is not mapped" may mean that the child was killed:
    /// who has read to the end asks this before he believes what he read.
    pub(crate) fn intact(&self) -> Result<(), SnapshotError> {
        if self.child.is_alive() { Ok(()) } else { Err(self.child.lost()) }
    }

    /// Full registers of the captured threads, by thread id.
    pub(super) fn contexts(&self) -> &[(i32, Context)] {
        &self.contexts
    }

    /// The child's `pagemap`, positioned anywhere; `None` where the process is not dumpable.
    pub(super) fn pagemap(&self) -> Option<&File> {
        self.child.pagemap()
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Lets the child's time be over, and its memory be short.
    #[cfg(test)]
    pub(super) fn control(&self) -> &Control {
        self.child.control()
    }

    /// A search without a look at what the mapping allows.
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

impl Snapshot for Image {
    fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        self.child.read(address, buf)
    }

    fn search(
        &self,
        range: Range<u64>,
        wanted: &RangeInclusive<u64>,
        visit: &mut dyn FnMut(u64, u64),
    ) -> Vec<Range<u64>> {
        let is_private = |mapping: &&Mapping| {
            range.end <= mapping.range.end && mapping.read && !mapping.shared && mapping.inode == 0
        };
        let worth = range.end.saturating_sub(range.start) >= WORTH_A_MESSAGE && search::is_harmless();
        let pagemap = self.pagemap().filter(|_| worth);
        match (self.mapping(range.start).filter(is_private), pagemap) {
            (Some(_), Some(pagemap)) => self.child.search(pagemap, range, wanted, visit),
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
}
