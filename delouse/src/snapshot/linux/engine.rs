//! The capture of all threads: what it needs, from one to the next, and what is done while they stand still.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::captured::Captured;
use super::memory::OwnMemory;
use super::round::{Entry, Round};
use super::slots::{TABLE, Table};
use super::stacks::{self, Places};
use super::turn::Turn;
use super::{proc, signal, sys};
use crate::snapshot::SnapshotError;

/// Longest copy of one stack: a deeper one is cut, and the capture says so.
pub(super) const STACK_LIMIT: usize = 1 << 20;
/// Tables lost to threads that never came back from their handlers.
const MOST_ABANDONED: u32 = 8;

/// What captures need between them; one capture at a time.
static ENGINE: Mutex<Engine> = Mutex::new(Engine {
    signal: None,
    table: None,
    abandoned: 0,
    stack_bytes: 4096,
    known: Vec::new(),
    listing: Vec::new(),
});

struct Engine {
    signal: Option<i32>,
    table: Option<&'static Table>,
    abandoned: u32,
    /// How many bytes of stack a thread had, on average, the last time.
    stack_bytes: usize,
    /// Scratch, kept for its room.
    known: Vec<Entry>,
    listing: Vec<u8>,
}

/// Whether threads go on at once or wait for each other.
pub(super) enum Hold<'a> {
    /// Each goes on as soon as it is copied.
    Nobody,
    /// All stand still until this function, called when the last has come, returns. It allocates nothing,
    /// and has the capturing thread captured by calling [`Myself::capture`].
    Everybody(&'a mut dyn FnMut(Held<'_>)),
}

/// All threads while they stand still.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) myself: Myself,
    pub(super) known: &'a [Entry],
    pub(super) generation: u32,
    pub(super) places: Places,
}

impl Held<'_> {
    /// After a fork: see [`stacks::unshare`]. Sleepers have time to do it themselves.
    pub(super) fn unshare_stacks(self) {
        let awake = self.known.iter().filter(|entry| entry.turn == Turn::Other);
        let slots = awake.filter_map(|entry| entry.slot.ok());
        // SAFETY: this capture ends after what is held is let go.
        let contents = slots.filter_map(|slot| unsafe { slot.content(self.generation) });
        stacks::unshare(contents, self.places);
    }
}

/// The capturing thread, which signals itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Myself {
    pub(super) pid: i32,
    pub(super) tid: i32,
    /// `None` where it cannot take the signal.
    pub(super) signal: Option<i32>,
}

impl Myself {
    /// Of a fork without a capture.
    pub(super) const NOT_ASKED: Self = Self { pid: 0, tid: 0, signal: None };

    /// Captures the calling thread, in the frame of the calling function.
    #[inline(always)]
    pub(super) fn capture(self) {
        if let Some(signal) = self.signal {
            let _ = sys::tgkill(self.pid, self.tid, signal);
        }
    }
}

/// Captures every thread of this process.
pub(super) fn capture(hold: Hold<'_>, stack_limit: usize) -> Result<Captured, SnapshotError> {
    let places = super::places();
    // The engine's state is sound between any two statements: a poisoned lock is as good as another.
    let mut engine = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    let signal = signal::ready(engine.signal)?;
    engine.signal = Some(signal);
    let memory = OwnMemory::open()?;
    let table = engine.prepare()?;

    let Engine { known, listing, stack_bytes, .. } = &mut *engine;
    let tid = sys::gettid();
    // SAFETY: a table with a handler that is still inside is given up below, and what a capture returns are copies.
    // `memory` is dropped after the last handler has left, or there is no table that those use: see below.
    let generation = unsafe { table.begin(tid, memory.raw(), stack_limit) };
    let mut round = Round {
        table,
        generation,
        signal,
        pid: sys::getpid(),
        tid,
        memory: &memory,
        known,
        places,
        deadline: 0,
        patience: 0,
        all_seen: false,
    };

    round.look_for_threads(listing)?;
    if stack_limit > 0 {
        table.populate(round.known.len(), *stack_bytes);
    }
    #[cfg(test)]
    before_window::run();
    let is_held = matches!(hold, Hold::Everybody(_));
    let pause = round.run(hold, listing);
    let captured = round.collect(pause, is_held);
    if stack_limit > 0 {
        let copied = captured.threads.iter().filter_map(|thread| Some(thread.stack.as_ref()?.bytes.len()));
        *stack_bytes = copied.sum::<usize>() / round.known.len().max(1);
    }
    if round.is_anyone_inside() {
        // Their handlers may write yet: this table is theirs for ever.
        engine.table = None;
        engine.abandoned = engine.abandoned.saturating_add(1);
    } else {
        // SAFETY: nobody is inside, and `captured` has copies.
        unsafe { table.release_memory() };
    }
    drop(memory);
    Ok(captured)
}

impl Engine {
    /// Makes room for all threads, and half as many again.
    fn prepare(&mut self) -> Result<&'static Table, SnapshotError> {
        self.listing.resize(32 << 10, 0);
        let mut threads = 0_usize;
        proc::for_each_thread(&mut self.listing, |_| threads = threads.saturating_add(1))
            .map_err(|errno| SnapshotError::Proc("/proc/self/task", errno))?;
        let wanted = threads.saturating_add(threads / 2).saturating_add(64);

        let table = match self.table {
            Some(table) if table.capacity() >= wanted => table,
            _ if self.abandoned >= MOST_ABANDONED => return Err(SnapshotError::Stuck),
            // A smaller one stays mapped, for handlers that are late.
            _ => {
                let table = Table::new(wanted)?;
                TABLE.store(std::ptr::from_ref(table).cast_mut(), Ordering::Release);
                self.table = Some(table);
                table
            }
        };
        self.known.clear();
        self.known.reserve(table.capacity());
        Ok(table)
    }
}

/// What a test has happen between the preparation of a capture and its window.
#[cfg(test)]
pub(super) mod before_window {
    use std::sync::Mutex;

    pub(in super::super) static HOOK: Mutex<Option<fn()>> = Mutex::new(None);

    pub(super) fn run() {
        let hook = HOOK.lock().ok().and_then(|hook| *hook);
        if let Some(hook) = hook {
            hook();
        }
    }
}
