//! What each task waits for, and what kinds of handle could end that.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Resource;
use super::handles::Roles;
use super::thread_locks::ThreadLocks;
use crate::tasks::{Examination, LeafPlace, ResourceKind, Task, TaskState, WaitsOn};

/// One wait of one task: a branch of a `select!` has its own.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    /// The task, by its place in the listing.
    pub(super) task: u32,
    /// Which of its waits.
    pub(super) leaf: usize,
    pub(super) kind: ResourceKind,
    /// The resource, as its user knows it.
    pub(super) resource: u64,
    pub(super) by: Waker,
}

/// Who can end a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waker {
    /// Handles of the resource with one of these roles.
    Handles(Roles),
    /// The end of that task; `None` for one that is not in the listing.
    Task(Option<u32>),
    /// Something that is no part of the program: a timer, the kernel; or nobody knows.
    Outside,
}

/// All waits of a capture, ordered by task.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub(super) list: Vec<Wait>,
    /// Of each task, the first of its waits; one more than there are tasks.
    first: Vec<usize>,
    /// Tasks that block their thread in a lock, with the wait that this is: what else they seem to wait for they are
    /// past.
    blocking: FxHashMap<u32, usize>,
    /// Tasks that only a thread could poll that another task blocks, with the wait for it.
    behind: FxHashMap<u32, usize>,
    /// Parts of resources, by the address that handles of those parts give: the semaphore of a channel.
    wholes: FxHashMap<u64, u64>,
    names: FxHashMap<(ResourceKind, u64), Arc<Resource>>,
    /// No main future is being polled, as far as threads tell.
    pub(super) mains_rest: bool,
}

impl Waits {
    pub(super) fn of(examination: &Examination<'_, '_, '_>, locks: &ThreadLocks, mains_rest: bool) -> Self {
        let tasks = &examination.listing.tasks;
        let places = &examination.places;
        let headers: FxHashMap<u64, u32> =
            (0..).zip(places).filter_map(|(number, place)| Some((place.header?, number))).collect();
        let mut waits = Self { mains_rest, ..Self::default() };
        for (number, (task, place)) in (0..).zip(tasks.iter().zip(places)) {
            waits.first.push(waits.list.len());
            let leaves = task.waits_on.iter().zip(&place.leaves).enumerate();
            for (leaf, (on, leaf_place)) in leaves {
                let wait = Wait {
                    task: number,
                    leaf,
                    kind: on.kind,
                    resource: leaf_place.address.unwrap_or(0),
                    by: waker(on, leaf_place, &headers),
                };
                if let (Some(part), Some(whole)) = (leaf_place.resource, leaf_place.address)
                    && part != whole
                {
                    waits.wholes.insert(part, whole);
                }
                waits.list.push(wait);
            }
        }
        waits.first.push(waits.list.len());
        waits.of_threads(examination, locks);
        waits.name(tasks);
        waits
    }

    /// Waits of the tasks that blocked threads poll, and of those that only such a thread could poll.
    fn of_threads(&mut self, examination: &Examination<'_, '_, '_>, locks: &ThreadLocks) {
        let Examination { listing, places, .. } = examination;
        let mut taken: FxHashMap<u64, (u32, i32)> = FxHashMap::default();
        for (number, (task, place)) in (0..).zip(listing.tasks.iter().zip(places)) {
            let Some((tid, lock)) = task.thread.and_then(|tid| Some((tid, locks.lock_of(tid)?))) else {
                continue;
            };
            let by = Waker::Handles(Roles::THREAD_GUARD);
            if let Some(index) = self.add(number, ResourceKind::Lock, lock, by) {
                self.blocking.insert(number, index);
            }
            if let Some(scheduler) = place.one_at_a_time {
                taken.insert(scheduler, (number, tid));
            }
        }
        if taken.is_empty() {
            return;
        }
        for (number, (task, place)) in (0..).zip(listing.tasks.iter().zip(places)) {
            let waits = matches!(task.state, Some(TaskState::Idle | TaskState::Scheduled));
            if let Some((by, tid)) = place.one_at_a_time.and_then(|scheduler| taken.get(&scheduler))
                && waits
            {
                let index = self.add(number, ResourceKind::Thread, *tid as u64, Waker::Task(Some(*by)));
                self.behind.extend(index.map(|index| (number, index)));
            }
        }
    }

    /// Adds a wait that is none of a task's future.
    fn add(&mut self, task: u32, kind: ResourceKind, resource: u64, by: Waker) -> Option<usize> {
        let index = self.list.len();
        let first = self.first.get(task as usize)?;
        self.list.push(Wait { task, leaf: index - first, kind, resource, by });
        Some(index)
    }

    /// The waits that count, of all tasks.
    pub(super) fn counting(&self) -> impl Iterator<Item = &Wait> {
        self.list.iter().filter(|wait| self.counts(wait))
    }

    /// Whether a wait is one of what its task awaits, or the lock that it is blocked in.
    pub(super) fn counts(&self, wait: &Wait) -> bool {
        let blocking = self.blocking.get(&wait.task);
        wait.kind != ResourceKind::Thread && blocking.is_none_or(|blocking| *blocking == self.index(wait))
    }

    /// The wait of a task for its thread, which another task blocks.
    pub(super) fn for_thread(&self, task: u32) -> Option<&Wait> {
        self.behind.get(&task).and_then(|index| self.list.get(*index))
    }

    /// The task that blocks the thread that a task needs.
    pub(super) fn thread_taken_by(&self, task: u32) -> Option<u32> {
        match self.for_thread(task)?.by {
            Waker::Task(by) => by,
            _ => None,
        }
    }

    /// The waits of one task that count.
    pub(super) fn of_task(&self, task: u32) -> &[Wait] {
        if let Some(index) = self.blocking.get(&task) {
            return self.list.get(*index..=*index).unwrap_or_default();
        }
        let at = task as usize;
        let range = self.first.get(at).copied().zip(self.first.get(at + 1).copied());
        range.and_then(|(from, to)| self.list.get(from..to)).unwrap_or_default()
    }

    /// The place of a wait in the list.
    pub(super) fn index(&self, wait: &Wait) -> usize {
        self.first.get(wait.task as usize).map_or(0, |first| first + wait.leaf)
    }

    /// The addresses that handles may give for a resource that somebody waits for.
    pub(super) fn wanted(&self) -> FxHashSet<u64> {
        let handles = |wait: &&Wait| wait.by != Waker::Outside && wait.kind != ResourceKind::Thread;
        self.list
            .iter()
            .filter(handles)
            .map(|wait| wait.resource)
            .chain(self.wholes.keys().copied())
            .collect()
    }

    /// The resource that what lies at `address` is, or is part of.
    pub(super) fn whole(&self, address: u64) -> u64 {
        self.wholes.get(&address).copied().unwrap_or(address)
    }

    /// The resource of a wait, as it is told.
    pub(super) fn resource(&self, wait: &Wait) -> Arc<Resource> {
        self.names.get(&(wait.kind, wait.resource)).cloned().unwrap_or_default()
    }

    /// Numbers by kind, in the order of addresses; a task has its id.
    fn name(&mut self, tasks: &[Task]) {
        let mut kinds: BTreeMap<&'static str, Vec<(u64, ResourceKind)>> = BTreeMap::new();
        let mut named = FxHashMap::default();
        let mut add = |kind, address, id| {
            let shown = address != 0 && kind != ResourceKind::Thread;
            let address_told = shown.then(|| format!("{address:#x}"));
            named.insert((kind, address), Arc::new(Resource { id, kind, address: address_told }));
        };
        // A channel whose end is waited for is called as those call it that wait for its messages.
        let others = self.list.iter().filter(|wait| wait.kind != ResourceKind::Closed);
        let of_channels: FxHashMap<u64, &str> = others.map(|wait| (wait.resource, noun(wait.kind))).collect();
        for wait in &self.list {
            match wait.by {
                _ if wait.kind == ResourceKind::Thread => {
                    add(wait.kind, wait.resource, format!("thread-{}", wait.resource));
                }
                Waker::Task(Some(of)) => {
                    let id = tasks.get(of as usize).map_or(0, |task| task.id);
                    add(wait.kind, wait.resource, format!("task-{id}"));
                }
                _ => {
                    let closed = wait.kind == ResourceKind::Closed;
                    let known = of_channels.get(&wait.resource).copied().filter(|_| closed);
                    let noun = known.unwrap_or(noun(wait.kind));
                    kinds.entry(noun).or_default().push((wait.resource, wait.kind));
                }
            }
        }
        for (noun, mut addresses) in kinds {
            addresses.sort_unstable();
            addresses.dedup();
            let mut number = 0;
            let mut before = None;
            for (address, kind) in addresses {
                // Both ends of a channel are one.
                number += usize::from(before != Some(address));
                before = Some(address);
                add(kind, address, format!("{noun}-{number}"));
            }
        }
        self.names = named;
    }
}

/// Whether a main future that seems to wait for that does, even if it may be being polled: it cannot be past it while the
/// others are as they are.
pub(super) fn holds_main(kind: ResourceKind) -> bool {
    kind == ResourceKind::Join || is_lock(kind)
}

/// Whether somebody has what is waited for, until he lets go of it.
pub(super) fn is_lock(kind: ResourceKind) -> bool {
    matches!(
        kind,
        ResourceKind::Mutex
            | ResourceKind::Rwlock
            | ResourceKind::Semaphore
            | ResourceKind::OnceCell
            | ResourceKind::Lock
    )
}

/// Whether the clock, the kernel or another machine ends a wait of that kind.
pub(super) fn is_outside(kind: ResourceKind) -> bool {
    matches!(
        kind,
        ResourceKind::Timer
            | ResourceKind::Io
            | ResourceKind::Signal
            | ResourceKind::Process
            | ResourceKind::Http2Stream
    )
}

/// What a resource of that kind is called.
fn noun(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Timer => "timer",
        ResourceKind::Mutex => "mutex",
        ResourceKind::Rwlock => "rwlock",
        ResourceKind::Semaphore => "semaphore",
        ResourceKind::ChannelRecv | ResourceKind::ChannelSend => "channel",
        ResourceKind::Oneshot => "oneshot",
        ResourceKind::Watch => "watch",
        ResourceKind::Broadcast => "broadcast",
        ResourceKind::Notify => "notify",
        // Where it has another kind of wait too, it has that one's name.
        ResourceKind::Closed => "channel",
        ResourceKind::Barrier => "barrier",
        ResourceKind::OnceCell => "once-cell",
        ResourceKind::SetOnce => "set-once",
        ResourceKind::Cancellation => "cancellation",
        ResourceKind::Signal => "signal",
        ResourceKind::Process => "process",
        ResourceKind::Http2Stream => "http2-stream",
        ResourceKind::Never => "never",
        ResourceKind::Join => "task",
        ResourceKind::Lock => "lock",
        ResourceKind::Thread => "thread",
        ResourceKind::Io => "io",
        ResourceKind::Unknown => "unknown",
    }
}

fn waker(on: &WaitsOn, place: &LeafPlace, headers: &FxHashMap<u64, u32>) -> Waker {
    let Some(resource) = place.address else { return Waker::Outside };
    Waker::Handles(match on.kind {
        ResourceKind::Mutex | ResourceKind::Rwlock | ResourceKind::Semaphore | ResourceKind::OnceCell => {
            Roles::GUARD.or(Roles::QUEUE)
        }
        ResourceKind::ChannelSend => Roles::RECEIVER.or(Roles::SLOT).or(Roles::QUEUE),
        ResourceKind::ChannelRecv => Roles::SENDER.or(Roles::SLOT).or(Roles::WEAK_SENDER),
        ResourceKind::Oneshot => Roles::SENDER,
        ResourceKind::Closed => Roles::RECEIVER,
        ResourceKind::Watch | ResourceKind::Broadcast => Roles::SENDER.or(Roles::WEAK_SENDER),
        ResourceKind::Notify if place.path.starts_with("event_listener::") => return Waker::Outside,
        ResourceKind::Notify | ResourceKind::Barrier | ResourceKind::SetOnce | ResourceKind::Cancellation => {
            Roles::ACCESS
        }
        ResourceKind::Join => return Waker::Task(headers.get(&resource).copied()),
        ResourceKind::Lock => Roles::THREAD_GUARD,
        ResourceKind::Timer
        | ResourceKind::Io
        | ResourceKind::Signal
        | ResourceKind::Process
        | ResourceKind::Http2Stream
        | ResourceKind::Never
        | ResourceKind::Thread
        | ResourceKind::Unknown => return Waker::Outside,
    })
}
