//! What one capture shows to those who want more than a list: the tasks, and where each of them lies.

use std::ops::RangeInclusive;

use super::process::Process;
use super::{Frame, Listing, scan};
use crate::debuginfo::types::TypeId;
use crate::snapshot::{Thread, Unavailable};

/// A thread that ran on since its registers were read has changed so much of its stack, in bytes.
const MOVES: u64 = 512;
/// Bytes of a thread's stack that are looked through for its main future.
const MOST_STACK: u64 = 1 << 20;

/// The tasks of one capture, with the memory and the types that they were read with.
pub(crate) struct Examination<'e, 'p, 'i> {
    pub(crate) process: &'e Process<'p, 'i>,
    pub(crate) listing: Listing,
    /// Where the tasks of the listing lie, in the same order.
    pub(crate) places: Vec<Place>,
    /// Threads that belong to a runtime and run no task.
    pub(super) runtime_threads: Vec<i32>,
    /// Those of them that are workers: the others may be polling a main future.
    pub(super) idle_workers: Vec<i32>,
    /// Where the main futures of the listing lie.
    pub(super) mains: Vec<u64>,
    pub(super) frame: &'e dyn Fn(TypeId, u64) -> Option<Frame>,
}

impl Examination<'_, '_, '_> {
    /// A coroutine of type `of` in a state, as a frame without children.
    pub(crate) fn frame(&self, of: TypeId, state: u64) -> Option<Frame> {
        (self.frame)(of, state)
    }

    /// Calls `visit` with every word in `wanted` that the program may still use, and its address, up to `budget` bytes of
    /// memory; says whether that was all. Of an image, a gigabyte takes about a tenth of a second, of anything else half
    /// of one.
    ///
    /// The stacks and registers of idle workers are left out, those of threads that run a main future which is known,
    /// and delouse's own: they are full of what is left of tasks. What is in a register has the address 0.
    pub(crate) fn words_in_use(
        &self,
        wanted: RangeInclusive<u64>,
        budget: u64,
        visit: impl FnMut(u64, u64, MemoryPlace),
    ) -> bool {
        let kind = |thread: &Thread| match thread.tid {
            _ if self.is_idle(thread) => None,
            tid if self.runtime_threads.contains(&tid) => {
                (!self.runs_known_main(thread)).then_some(MemoryPlace::RuntimeStack)
            }
            _ => Some(MemoryPlace::Stack),
        };
        scan::words_in_use(self.process, kind, wanted, budget, visit)
    }

    /// Whether the stack and the registers of every thread that may have variables of the program's are known, and of the
    /// moment of the image.
    pub(crate) fn sees_all_threads(&self) -> bool {
        let threads = self.process.memory.snapshot().threads();
        // Where stacks were copied, one that was not has run on, for all that is known.
        let copied = threads.iter().any(|thread| thread.stack.is_some());
        threads.iter().all(|thread| match thread.registers {
            _ if self.is_idle(thread) => true,
            Ok(_) => thread.stack.is_some() == copied && self.stands_still(thread, MOVES),
            Err(why) => why == Unavailable::Exited,
        })
    }

    /// Whether a thread is where it was when its registers were read, some milliseconds before memory was, by that many
    /// bytes from its stack pointer on.
    pub(crate) fn stands_still(&self, thread: &Thread, near: u64) -> bool {
        let (Some(copy), Ok(registers)) = (&thread.stack, thread.registers) else { return true };
        (0..near).step_by(8).all(|offset| {
            let at = registers.sp.wrapping_add(offset);
            copy.word(at).is_none_or(|then| self.process.memory.word(at) == Some(then))
        })
    }

    /// Whether a thread runs a main future that is in the listing: who does has its address on the stack.
    fn runs_known_main(&self, thread: &Thread) -> bool {
        self.mains.iter().any(|main| {
            let (mut found, mut left) = (false, MOST_STACK);
            self.stack_words(thread, *main..=*main, &mut left, |_| found = true);
            found
        })
    }

    /// Calls `visit` with every word in `wanted` in a thread's registers, and on the part of its stack that is in use, up
    /// to `left` bytes and a megabyte, which it takes from `left`; says whether that was all.
    pub(crate) fn stack_words(
        &self,
        thread: &Thread,
        wanted: RangeInclusive<u64>,
        left: &mut u64,
        visit: impl FnMut(u64),
    ) -> bool {
        scan::stack_words(self.process, thread, wanted, left, visit)
    }

    /// Whether a thread is a worker that runs no task, or delouse's own.
    pub(crate) fn is_idle(&self, thread: &Thread) -> bool {
        self.idle_workers.contains(&thread.tid) || thread.is_ours()
    }
}

/// What a piece of memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryPlace {
    /// A static of the executable's.
    Static,
    /// The stack of a thread, or one of its registers.
    Stack,
    /// The same of a thread that belongs to a runtime and runs no task that is known: it may be running what else there
    /// is, and is full of what is left of tasks.
    RuntimeStack,
    /// Anything else.
    Heap,
}

/// Where a task lies in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// Its header; `None` for a `main` future.
    pub(crate) header: Option<u64>,
    /// The word of its state, with the count of references to it.
    pub(crate) state: Option<u64>,
    /// Its scheduler, where that is a runtime of one thread or a `LocalSet`: who polls one of its tasks polls none
    /// of the others.
    pub(crate) one_at_a_time: Option<u64>,
    /// The type and address of its future, where it still has one: of `spawn_blocking`, the closure.
    pub(crate) future: Option<(TypeId, u64)>,
    /// The same of the futures that it drives, in the order of `drives`.
    pub(crate) driven: Vec<(TypeId, u64)>,
    /// Where the leaves lie that it waits for, in the order of `waits_on`.
    pub(crate) leaves: Vec<LeafPlace>,
}

/// Where a leaf lies, and what it waits for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeafPlace {
    /// The leaf itself, or the future that was not recognised.
    pub(crate) at: u64,
    /// What it waits for by its own type: of a mutex, the semaphore in it; of a task, its header.
    pub(crate) resource: Option<u64>,
    /// The same as its user knows it, as in `waits_on`.
    pub(crate) address: Option<u64>,
    /// The path of its type; empty where a future was not recognised.
    pub(crate) path: &'static str,
}
