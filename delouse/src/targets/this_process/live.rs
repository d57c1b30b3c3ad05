//! This process, read while it runs: its memory changes during the reads; its threads have been captured.

use std::time::Instant;

use super::captured::Captured;
use super::engine::{self, STACK_LIMIT};
use super::hold::Hold;
use super::memory::OwnMemory;
use super::{examine, own_mappings};
use crate::snapshot::{Address, Capture, Mapping, Snapshot, Thread, micros};
use crate::targets::SnapshotError;

/// A snapshot of this process whose memory is live.
#[derive(Debug)]
pub(crate) struct Live {
    memory: OwnMemory,
    mappings: Vec<Mapping>,
    threads: Vec<Thread>,
    capture: Capture,
}

impl Live {
    /// Memory and the list of threads. Interrupts no thread; threads have no registers.
    ///
    /// Reads `/proc/self/maps`, and takes about 20 µs per thread.
    pub(crate) fn now() -> Result<Self, SnapshotError> {
        let started = Instant::now();
        let (memory, mappings) = (OwnMemory::open()?, own_mappings()?);
        let threads = examine::list()?;
        let capture = Capture { total_us: micros(started.elapsed()), ..Capture::default() };
        Ok(Self { memory, mappings, threads, capture })
    }

    /// Memory, with `threads` that were captured before by [`rolling`].
    pub(crate) fn with_threads(threads: Vec<Thread>) -> Result<Self, SnapshotError> {
        let (memory, mappings) = (OwnMemory::open()?, own_mappings()?);
        Ok(Self { memory, mappings, threads, capture: Capture::default() })
    }

    fn capture_threads(hold: Hold<'_>, stacks_agree: bool) -> Result<Self, SnapshotError> {
        let started = Instant::now();
        // Before any signal is sent: reading the mappings may wait for a lock of the kernel that a thread of the program
        // holds.
        let (memory, mappings) = (OwnMemory::open()?, own_mappings()?);
        let Captured { threads, pause, complete, notes, .. } = engine::capture(hold, STACK_LIMIT)?;
        let capture = Capture {
            pause_us: pause.program_us(),
            held_us: pause.longest_us(),
            total_us: micros(started.elapsed()),
            consistent: stacks_agree && complete,
            notes,
            ..Capture::default()
        };
        Ok(Self { memory, mappings, threads, capture })
    }
}

/// Copies the registers and the stack of each thread, without holding any. Each [`Thread::stack`] is consistent with its
/// registers; other memory is live.
///
/// Each thread spends a few microseconds in its signal handler ([`Capture::pause_us`] is the longest time); a system call
/// that is not restarted may return `EINTR` (signal(7)). The calling thread needs about 40 µs per thread.
pub(crate) fn rolling() -> Result<Live, SnapshotError> {
    Live::capture_threads(Hold::Separately, false)
}

/// The same, but holds all threads until all are copied, so that all stacks are of the same moment.
/// [`Capture::consistent`] is false if that failed for some thread. Memory other than stacks is live.
///
/// [`Capture::pause_us`] is how long the program was stopped.
pub(crate) fn freeze() -> Result<Live, SnapshotError> {
    Live::capture_threads(Hold::Together(&mut |held| held.capturing_thread.capture()), true)
}

impl Snapshot for Live {
    fn read(&self, address: Address, buf: &mut [u8]) -> usize {
        self.memory.read(address.get(), buf)
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
