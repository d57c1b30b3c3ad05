//! Threads as nodes of the graph: a thread that waits in a channel, for a condition, at a barrier, for a lock or for another
//! thread, and that polls no task, is represented by a task of its own, which the listing has only during the analysis.
//!
//! What such a thread waits for is known by its futex (a condition variable, another thread), or by the channel whose address
//! is on its stack, near the top. What it has is on its stack, too: the addresses of channels and of shared objects, which may
//! be stale. So what is concluded from these is only suspected, and only if no other place in memory has them.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::thread_locks::Parked;
use super::wait::{ResourceKey, Waker};
use crate::snapshot::{Address, FutexWait};
use crate::tasks::layout::handles::Roles;
use crate::tasks::{
    BlockingCall, Examination, Primitive, ResourceKind, Task, TaskPlace, TaskState, ThreadWait,
};

/// The most threads that are nodes.
const MAX_NODES: usize = 256;

/// The threads that wait.
#[derive(Debug, Default)]
pub(super) struct ThreadNodes {
    /// How many tasks the listing has without these.
    first: usize,
    /// By thread, the number of the task that it polls or that represents it.
    pub(super) numbers: FxHashMap<i32, u32>,
    /// By number, its wait.
    pub(super) waits: FxHashMap<u32, ThreadWait>,
}

impl ThreadNodes {
    /// Adds tasks for the threads that poll none to the listing.
    pub(super) fn add_to(examination: &mut Examination<'_, '_, '_>) -> Self {
        let first = examination.listing.tasks.len();
        let mut nodes = Self { first, ..Self::default() };
        for (number, task) in (0..).zip(&examination.listing.tasks) {
            let calls = task.drives.iter().map(|driven| &driven.call).chain(&task.found_in);
            let threads = calls.map(|call| call.thread).chain(task.thread);
            nodes.numbers.extend(threads.map(|tid| (tid, number)));
        }
        let idle: FxHashSet<i32> = {
            let threads = examination.process.memory.snapshot().threads().iter();
            threads.filter(|thread| examination.is_idle(thread)).map(|thread| thread.tid).collect()
        };
        for wait in examination.listing.thread_waits.clone() {
            if idle.contains(&wait.tid) || nodes.waits.len() >= MAX_NODES {
                continue;
            }
            let number = *nodes.numbers.entry(wait.tid).or_insert_with(|| {
                let number = examination.listing.tasks.len() as u32;
                examination.listing.tasks.push(task_of(&wait));
                examination.places.push(TaskPlace::default());
                number
            });
            nodes.waits.insert(number, wait);
        }
        nodes
    }

    /// Removes these tasks again.
    pub(super) fn remove_from(&self, examination: &mut Examination<'_, '_, '_>) {
        examination.listing.tasks.truncate(self.first);
        examination.places.truncate(self.first);
    }

    /// How many tasks there are.
    pub(super) fn tasks(&self) -> usize {
        self.first
    }

    /// The thread that a task represents; `None` for any other task.
    pub(super) fn thread(&self, number: u32) -> Option<i32> {
        let wait = self.waits.get(&number).filter(|_| number as usize >= self.first);
        wait.map(|wait| wait.tid)
    }

    /// The wait of the thread that a task represents or is polled by.
    pub(super) fn wait(&self, number: u32) -> Option<&ThreadWait> {
        self.waits.get(&number)
    }

    /// What the thread of that node waits for, as far as its futex shows that: the kind, the address of the resource, and what
    /// ends the wait.
    pub(super) fn wait_of(
        &self,
        examination: &Examination<'_, '_, '_>,
        number: u32,
    ) -> Option<(ResourceKind, ResourceKey, Waker)> {
        let wait = self.waits.get(&number)?;
        let access = Waker::Handles(Roles::ACCESS);
        let condvar = || ResourceKey::Value(condvar(examination, wait));
        Some(match wait.primitive {
            // Which channel it is, `resolve` finds.
            Primitive::Receive => (ResourceKind::ChannelRecv, ResourceKey::Unknown, Waker::Outside),
            Primitive::Send => (ResourceKind::ChannelSend, ResourceKey::Unknown, Waker::Outside),
            Primitive::Join => {
                let memory = &examination.process.memory;
                let joined = joined(wait.futex, |address| memory.word(address))?;
                let threads = memory.snapshot().threads();
                threads.iter().find(|thread| thread.tid == joined)?;
                (ResourceKind::Join, ResourceKey::Thread(joined), Waker::Task(self.number(joined)))
            }
            Primitive::Condvar => (ResourceKind::Condvar, condvar(), access),
            Primitive::Barrier => (ResourceKind::Barrier, condvar(), access),
            Primitive::Lock => return None,
        })
    }

    /// The number of the task that a thread polls, or that represents it, if the thread waits in a primitive.
    pub(super) fn waiting(&self, tid: i32) -> Option<u32> {
        self.number(tid).filter(|number| self.waits.contains_key(number))
    }

    pub(super) fn number(&self, tid: i32) -> Option<u32> {
        self.numbers.get(&tid).copied()
    }
}

/// The id of the thread for whose end a thread waits in `futex`. `word` reads memory.
///
/// glibc waits until the kernel has cleared the id, which the futex is expected to contain. musl waits for another state of the
/// thread (`detach_state` in src/internal/pthread_impl.h), two `int`s behind the id, in a control block that begins with its own
/// address: 56 bytes before, or 40 where thread locals are above the thread pointer (aarch64).
fn joined(futex: FutexWait, word: impl Fn(Address) -> Option<u64>) -> Option<i32> {
    let before = |bytes: u64| futex.address.checked_sub(bytes).filter(|at| at.get().is_multiple_of(8));
    let begins = |bytes: u64| before(bytes).is_some_and(|start| word(start) == Some(start.get()));
    let id = if begins(56) || begins(40) { word(before(8)?)? as u32 } else { futex.expected };
    i32::try_from(id).ok()
}

/// The address of the condition variable that a thread waits for: that of its futex, or, if it was parked by `parking_lot_core`,
/// the key.
fn condvar(examination: &Examination<'_, '_, '_>, wait: &ThreadWait) -> Address {
    let futex = wait.futex.address;
    if !wait.function.starts_with("parking_lot") {
        return futex;
    }
    let process = examination.process;
    Parked::learn(process).iter().find_map(|parked| parked.key(process, futex)).unwrap_or(futex)
}

/// The task that represents a thread.
fn task_of(wait: &ThreadWait) -> Task {
    let found_in = Some(BlockingCall {
        thread: wait.tid,
        function: wait.function.clone(),
        caller: Some(Arc::new(wait.caller.clone())),
        guess: false,
    });
    Task { state: Some(TaskState::Idle), thread: Some(wait.tid), found_in, ..Task::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_that_is_joined_is_known_with_glibc_and_with_musl() {
        let futex = |address, expected| FutexWait { address: Address::new(address), expected, timed: false };
        assert_eq!(joined(futex(0x12d0, 4711), |_| None), Some(4711));
        assert_eq!(joined(futex(0x12d0, 4711), |_| Some(7)), Some(4711));
        // Thread 4711 of musl is joinable (2), and its errno is 11.
        for (block, start) in [(0x1000, 56), (0x2000, 40)] {
            let word = |address: Address| match address.get() {
                at if at == block => Some(block),
                at if at == block + start - 8 => Some(11 << 32 | 4711),
                _ => Some(0),
            };
            assert_eq!(joined(futex(block + start, 2), word), Some(4711));
        }
    }
}
