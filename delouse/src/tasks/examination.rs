//! The tasks of one capture, with where each of them is stored.

use std::ops::RangeInclusive;

use rustc_hash::FxHashSet;

use super::inputs::{self, Input};
use super::layout::Layouts;
use super::listing::Listing;
use super::place::{MemoryPlace, TaskPlace};
use super::process::Process;
use super::{BlockingCall, Frame, TaskKind, TaskState, scan};
use crate::debuginfo::types::TypeId;
use crate::snapshot::{Address, Thread, Unavailable};

/// A thread that has run since its registers were read has changed its stack within this many bytes of the top.
const MOVES: u64 = 512;
/// The most bytes of a thread's stack that are searched for its main future.
const MOST_STACK: u64 = 1 << 20;

/// The tasks of one capture, with the memory and the types that they were read with.
pub(crate) struct Examination<'e, 'p, 'i> {
    pub(crate) process: &'e Process<'p, 'i>,
    /// The layouts of its types.
    pub(crate) layouts: &'e Layouts<'i>,
    pub(crate) listing: Listing,
    /// Where the tasks of the listing are stored, in the same order.
    pub(crate) places: Vec<TaskPlace>,
    /// Threads that belong to a runtime and run no task.
    pub(super) runtime_threads: Vec<i32>,
    /// The workers among these threads: the others may be polling a main future.
    pub(super) idle_workers: Vec<i32>,
    /// Addresses of the main futures of the listing.
    pub(super) mains: Vec<Address>,
    pub(super) frame: &'e dyn Fn(TypeId, u64) -> Option<Frame>,
}

impl Examination<'_, '_, '_> {
    /// A coroutine of type `of` in a state, as a frame without children.
    pub(crate) fn frame(&self, of: TypeId, state: u64) -> Option<Frame> {
        (self.frame)(of, state)
    }

    /// What the future of a task takes from.
    pub(crate) fn inputs(&self, place: &TaskPlace) -> Vec<Input> {
        let of = |future| inputs::of_future(self.process, future, self.frame);
        place.future.map(of).unwrap_or_default()
    }

    /// What the futures of the first `most` tasks that wait take from, each with the task's id. What others take from may
    /// change while it is read.
    pub(crate) fn inputs_of_waiting(&self, most: usize) -> impl Iterator<Item = (u64, Input)> {
        let tasks = self.listing.tasks.iter().zip(&self.places).filter(|(task, place)| {
            let waits = task.kind == TaskKind::Main || task.state == Some(TaskState::Idle);
            waits && place.future.is_some()
        });
        tasks
            .take(most)
            .flat_map(|(task, place)| self.inputs(place).into_iter().map(|input| (task.id, input)))
    }

    /// Calls `visit` with every word in `wanted` that the program may still use, and its address, up to `budget` bytes
    /// of memory; returns whether that was all. A gigabyte takes about a tenth of a second in an image, and half a
    /// second elsewhere.
    ///
    /// The stacks and registers of idle workers, of threads that run a known main future, and of delouse's own threads
    /// are left out: they are full of stale data of tasks. A word in a register has the null address.
    pub(crate) fn words_in_use(
        &self,
        wanted: RangeInclusive<Address>,
        budget: u64,
        visit: impl FnMut(Address, Address, MemoryPlace),
    ) -> bool {
        let calls = self.listing.tasks.iter().filter_map(|task| task.drives.last());
        let waits = self.listing.thread_waits.iter().map(|wait| wait.tid);
        let drives: FxHashSet<i32> = calls.map(|driven| driven.call.thread).chain(waits).collect();
        let drives_main = |tid| self.found_mains().any(|call| call.thread == tid);
        let kind = |thread: &Thread| match thread.tid {
            _ if self.is_idle(thread) => None,
            tid if self.runtime_threads.contains(&tid) && !drives.contains(&tid) => {
                (!self.runs_known_main(thread)).then_some(MemoryPlace::RuntimeStack)
            }
            tid if drives.contains(&tid) || drives_main(tid) => Some(MemoryPlace::DrivingStack(tid)),
            _ => Some(MemoryPlace::Stack),
        };
        scan::words_in_use(self.process, kind, wanted, budget, visit)
    }

    /// Calls `visit` as [`Self::words_in_use`] does, also with the thread on whose stack, or in whose registers, a word is.
    /// Only the stacks of idle workers and of delouse's own threads are left out.
    pub(crate) fn words_in_use_by(
        &self,
        wanted: RangeInclusive<Address>,
        budget: u64,
        mut visit: impl FnMut(Address, Address, MemoryPlace, Option<i32>),
    ) -> bool {
        let kind = |thread: &Thread| (!self.is_idle(thread)).then_some(MemoryPlace::DrivingStack(thread.tid));
        scan::words_in_use(self.process, kind, wanted, budget, |at, word, place| match place {
            MemoryPlace::DrivingStack(tid) => visit(at, word, place, Some(tid)),
            _ => visit(at, word, place, None),
        })
    }

    /// Calls `visit` with the words on the stack of a thread outside of `inner`.
    pub(crate) fn outer_words(
        &self,
        thread: &Thread,
        inner: Address,
        left: &mut u64,
        visit: impl FnMut(Address),
    ) -> bool {
        scan::stack_words_from(self.process, thread, inner, left, visit)
    }

    /// Whether a thread belongs to a runtime and runs no known task: its stack is full of stale data of tasks.
    pub(crate) fn is_runtime_thread(&self, thread: &Thread) -> bool {
        self.runtime_threads.contains(&thread.tid)
    }

    /// Whether the stacks and registers of all threads that may have variables of the program are known, and as old as
    /// the image.
    pub(crate) fn sees_all_threads(&self) -> bool {
        let threads = self.process.memory.snapshot().threads();
        // If stacks were copied, a thread whose stack was not copied may have run since.
        let copied = threads.iter().any(|thread| thread.stack.is_some());
        threads.iter().all(|thread| match thread.registers {
            _ if self.is_idle(thread) => true,
            Ok(_) => thread.stack.is_some() == copied && self.stands_still(thread, MOVES),
            Err(why) => why == Unavailable::Exited,
        })
    }

    /// Whether a thread has not run since its registers were read, some milliseconds before memory: whether the first
    /// `near` bytes of its stack are unchanged.
    pub(crate) fn stands_still(&self, thread: &Thread, near: u64) -> bool {
        let (Some(copy), Ok(registers)) = (&thread.stack, thread.registers) else { return true };
        (0..near).step_by(8).all(|offset| {
            let at = registers.sp.saturating_add(offset);
            copy.word(at).is_none_or(|then| self.process.memory.word(at) == Some(then))
        })
    }

    /// The calls in which main futures were found that are not registered.
    fn found_mains(&self) -> impl Iterator<Item = &BlockingCall> {
        let mains = self.listing.tasks.iter().take_while(|task| task.id == 0);
        mains.filter_map(|task| task.found_in.as_ref())
    }

    /// The number of the registered main future that a thread runs: it has its address on the stack.
    pub(crate) fn main_on(&self, tid: i32) -> Option<u32> {
        let thread = self.process.memory.snapshot().threads().iter().find(|thread| thread.tid == tid)?;
        let mains = (0..).zip(self.listing.tasks.iter().zip(&self.places));
        let mut mains = mains.take_while(|(_, (task, _))| task.id == 0).filter_map(|(number, (_, place))| {
            let address = place.future.map(|(_, address)| address)?;
            self.mains.contains(&address).then_some((number, address))
        });
        mains.find(|(_, address)| self.has_on_stack(thread, *address)).map(|(number, _)| number)
    }

    fn has_on_stack(&self, thread: &Thread, address: Address) -> bool {
        let (mut found, mut left) = (false, MOST_STACK);
        self.stack_words(thread, address..=address, &mut left, |_| found = true);
        found
    }

    /// Whether a thread runs a main future that is in the listing: then it has its address on the stack.
    fn runs_known_main(&self, thread: &Thread) -> bool {
        if self.found_mains().any(|call| call.thread == thread.tid) {
            return true;
        }
        self.mains.iter().any(|main| self.has_on_stack(thread, *main))
    }

    /// Calls `visit` with every word in `wanted` in a thread's registers, and on the part of its stack that is in use,
    /// up to `left` bytes and a megabyte, which it takes from `left`; returns whether that was all.
    pub(crate) fn stack_words(
        &self,
        thread: &Thread,
        wanted: RangeInclusive<Address>,
        left: &mut u64,
        visit: impl FnMut(Address),
    ) -> bool {
        scan::stack_words(self.process, thread, wanted, left, visit)
    }

    /// Whether some worker has nothing to do.
    pub(crate) fn has_idle_workers(&self) -> bool {
        !self.idle_workers.is_empty()
    }

    /// Whether a thread is a worker that runs no task, or delouse's own.
    pub(crate) fn is_idle(&self, thread: &Thread) -> bool {
        self.idle_workers.contains(&thread.tid) || thread.is_ours()
    }
}
