//! Ourselves, live: memory that changes while it is read, and threads as they were captured.

use std::time::Instant;

use super::captured::Captured;
use super::engine::{self, Hold, STACK_LIMIT};
use super::memory::OwnMemory;
use super::{examine, maps};
use crate::snapshot::{Capture, Mapping, Snapshot, SnapshotError, Thread, micros};

/// This process, read while it runs.
#[derive(Debug)]
pub(crate) struct Live {
    memory: OwnMemory,
    mappings: Vec<Mapping>,
    threads: Vec<Thread>,
    capture: Capture,
}

impl Live {
    /// Memory and the list of threads; no thread is disturbed, none has registers.
    ///
    /// Costs a read of `/proc/self/maps` and about 20 µs a thread.
    pub(crate) fn now() -> Result<Self, SnapshotError> {
        let started = Instant::now();
        let (memory, mappings) = (OwnMemory::open()?, maps::own()?);
        let threads = examine::list()?;
        let capture = Capture { total_us: micros(started.elapsed()), ..Capture::default() };
        Ok(Self { memory, mappings, threads, capture })
    }

    /// Our memory as it goes on, with threads that were captured before: what [`rolling`] gives, later.
    pub(crate) fn of(threads: Vec<Thread>) -> Result<Self, SnapshotError> {
        let (memory, mappings) = (OwnMemory::open()?, maps::own()?);
        Ok(Self { memory, mappings, threads, capture: Capture::default() })
    }

    fn with_threads(hold: Hold<'_>, stacks_agree: bool) -> Result<Self, SnapshotError> {
        let started = Instant::now();
        // Before any signal: where the program's memory map is locked up, only we wait for it.
        let (memory, mappings) = (OwnMemory::open()?, maps::own()?);
        let Captured { threads, pause, complete, notes, .. } = engine::capture(hold, STACK_LIMIT)?;
        let capture = Capture {
            pause_us: pause.program_us(),
            held_us: pause.longest_us(),
            total_us: micros(started.elapsed()),
            consistent: stacks_agree && complete,
            notes,
        };
        Ok(Self { memory, mappings, threads, capture })
    }
}

/// Copies every thread's registers and stack, each by itself: nobody waits for anybody. Each
/// [`Thread::stack`] goes with its registers; other memory is live.
///
/// Costs a thread a few microseconds in its signal handler ([`Capture::pause_us`] is the longest), us
/// about 40 µs a thread, and a system call that is not restarted may return `EINTR` (signal(7)).
pub(crate) fn rolling() -> Result<Live, SnapshotError> {
    Live::with_threads(Hold::Nobody, false)
}

/// The same, but every thread stands still until all are copied: the stacks agree with each other, and
/// [`Capture::consistent`] says whether that holds for all of them. Memory other than stacks is live.
///
/// [`Capture::pause_us`] is how long the program stood still.
pub(crate) fn freeze() -> Result<Live, SnapshotError> {
    Live::with_threads(Hold::Everybody(&mut |held| held.myself.capture()), true)
}

impl Snapshot for Live {
    fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        self.memory.read(address, buf)
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
