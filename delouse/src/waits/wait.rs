//! One wait of one task, and what can end it.

use rustc_hash::FxHashMap;

use crate::snapshot::Address;
use crate::tasks::layout::handles::Roles;
use crate::tasks::{Examination, ResourceKind, Task, TaskState};

/// One wait of one task: a branch of a `select!` has its own.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    /// The task, by its index in the listing.
    pub(super) task: u32,
    /// The index of the wait among those of the task.
    pub(super) leaf: usize,
    pub(super) kind: ResourceKind,
    /// The resource that the program uses: a channel, not the semaphore in it.
    pub(super) resource: ResourceKey,
    pub(super) by: Waker,
    /// The thread of the task is blocked in it.
    pub(super) blocks_thread: bool,
}

/// What a wait is for, or a handle of: waits and handles with the same key belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum ResourceKey {
    Unknown,
    /// A thread, by its id.
    Thread(i32),
    /// A value, by its address; a task, by that of its header.
    Value(Address),
    /// The wakers of a task, by the address of its header.
    Wakers(Address),
}

/// What can end a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waker {
    /// Handles of the resource with one of these roles.
    Handles(Roles),
    /// The wakers of the waiting task, which has that header, where they are stored: which handles can end the wait is not
    /// known.
    Wakers(Address),
    /// The completion of that task; `None` for a task that is not in the listing.
    Task(Option<u32>),
    /// Something that is no part of the program: a timer, the kernel; or unknown.
    Outside,
}

impl Wait {
    /// The key of the handles that can end it.
    pub(super) fn key(&self) -> ResourceKey {
        match self.by {
            Waker::Wakers(header) => ResourceKey::Wakers(header),
            _ => self.resource,
        }
    }

    /// Whether it is judged by where the wakers of its task are.
    pub(super) fn is_by_wakers(&self) -> bool {
        matches!(self.by, Waker::Wakers(_))
    }
}

impl ResourceKey {
    pub(super) fn address(self) -> Option<Address> {
        match self {
            Self::Value(address) | Self::Wakers(address) => Some(address),
            Self::Thread(_) | Self::Unknown => None,
        }
    }
}

/// Whether a task waits in a call that blocks its thread until a future is done, and it is known for what.
pub(super) fn sleeps_in_call(task: &Task) -> bool {
    !task.drives.is_empty() && !task.waits_on.is_empty()
}

/// The thread that is in a call until a future of this task is done, or until the task is done itself: it drives one of these.
pub(super) fn thread_in_call(task: &Task) -> Option<i32> {
    let driven = task.drives.last().filter(|_| sleeps_in_call(task)).map(|driven| &driven.call);
    driven.or(task.found_in.as_ref()).map(|call| call.thread)
}

/// The threads that sleep in a call until a future is done, and the tasks, or main futures, for which they do: until then they
/// do nothing with what is on their stacks.
pub(super) fn sleeping(examination: &Examination<'_, '_, '_>) -> FxHashMap<i32, u32> {
    let sleeps = |task: &Task| sleeps_in_call(task) || task.state == Some(TaskState::Idle);
    let tasks = (0..).zip(&examination.listing.tasks).filter(|(_, task)| sleeps(task));
    tasks.filter_map(|(number, task)| Some((thread_in_call(task)?, number))).collect()
}
