//! Captures all threads, and keeps the state that captures share.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::capture_session::CaptureSession;
use super::captured::Captured;
use super::hold::{Entry, Hold};
use super::memory::OwnMemory;
use super::slots::{TABLE, Table};
use super::{proc, signal, sys};
use crate::host::lock::lock;
use crate::targets::SnapshotError;

/// At most this many bytes of each stack are copied. The capture's notes report longer stacks.
pub(super) const STACK_LIMIT: usize = 1 << 20;
/// The most tables that are abandoned because a handler has not returned.
const MOST_ABANDONED: u32 = 8;

/// The state that captures share. The lock is held during a capture.
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
    /// Average size of the stacks in the last capture, in bytes.
    stack_bytes: usize,
    /// Kept for its capacity.
    known: Vec<Entry>,
    listing: Vec<u8>,
}

/// Captures every thread of this process.
pub(super) fn capture(hold: Hold<'_>, stack_limit: usize) -> Result<Captured, SnapshotError> {
    let layout = super::layout();
    // The state is valid after each statement, so that a poisoned lock can be ignored.
    let mut engine = lock(&ENGINE);
    let signal = signal::ready(engine.signal)?;
    engine.signal = Some(signal);
    let memory = OwnMemory::open()?;
    let table = engine.prepare()?;

    let Engine { known, listing, stack_bytes, .. } = &mut *engine;
    let tid = sys::gettid();
    // SAFETY: a table with a handler that has not returned is abandoned below, so that no handler uses this table; earlier
    // captures have returned copies. `memory` is dropped below, after the last handler has returned or the table is
    // abandoned.
    let generation = unsafe { table.begin(tid, memory.raw(), stack_limit) };
    let mut session = CaptureSession {
        table,
        generation,
        signal,
        pid: sys::getpid(),
        tid,
        memory: &memory,
        known,
        layout,
        deadline: 0,
        patience: 0,
        all_seen: false,
    };

    session.add_new_threads(listing)?;
    if stack_limit > 0 {
        table.populate(session.known.len(), *stack_bytes);
    }
    #[cfg(test)]
    before_window::run();
    let is_held = matches!(hold, Hold::Together(_));
    let pause = session.run(hold, listing);
    let captured = session.collect(pause, is_held);
    if stack_limit > 0 {
        let copied = captured.threads.iter().filter_map(|thread| Some(thread.stack.as_ref()?.bytes.len()));
        *stack_bytes = copied.sum::<usize>() / session.known.len().max(1);
    }
    if session.has_unfinished_handlers() {
        // A handler may still write to this table: never use it again.
        engine.table = None;
        engine.abandoned = engine.abandoned.saturating_add(1);
    } else {
        // SAFETY: all handlers have returned, and `captured` contains copies.
        unsafe { table.release_memory() };
    }
    drop(memory);
    Ok(captured)
}

impl Engine {
    /// Returns a table with capacity for all threads and half as many new ones.
    fn prepare(&mut self) -> Result<&'static Table, SnapshotError> {
        self.listing.resize(32 << 10, 0);
        let mut threads = 0_usize;
        proc::for_each_thread(&mut self.listing, |_| threads = threads.saturating_add(1))
            .map_err(|errno| SnapshotError::Proc("/proc/self/task", errno))?;
        let wanted = threads.saturating_add(threads / 2).saturating_add(64);

        let table = match self.table {
            Some(table) if table.capacity() >= wanted => table,
            _ if self.abandoned >= MOST_ABANDONED => return Err(SnapshotError::Stuck),
            // The smaller table stays mapped, because a late handler may read it.
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

/// A hook for tests, called between the preparation of a capture and its window.
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
