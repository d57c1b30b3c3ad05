//! What each task waits for, and which kinds of handle can end each wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Resource;
use super::connections::Connections;
use super::thread_locks::ThreadLocks;
use super::threads::ThreadNodes;
use super::wait::{ResourceKey, Wait, Waker, sleeps_in_call};
use crate::snapshot::{Address, Hidden};
use crate::tasks::layout::handles::{self, Roles};
use crate::tasks::{
    Direction, Examination, Frame, LeafPlace, Origin, Race, ResourceKind, Task, TaskKind, TaskPlace,
    TaskState, WaitsOn,
};

/// A timer that is over for longer than this would have woken its task, had the task polled it.
const OVERDUE_MS: i64 = 1000;

/// All waits of a capture, ordered by task.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub(super) list: Vec<Wait>,
    /// For each task, the index of its first wait; one more entry than there are tasks.
    first: Vec<usize>,
    /// Tasks that block their thread in a lock, with the index of the wait for that lock. They have passed their other
    /// waits.
    blocking: FxHashMap<u32, usize>,
    /// Tasks that only one thread can poll, which another task blocks, with the index of the wait for that thread.
    behind: FxHashMap<u32, usize>,
    /// The address of the whole resource by that of a part to which handles point, such as the semaphore of a channel.
    wholes: FxHashMap<Address, Address>,
    names: FxHashMap<(ResourceKind, ResourceKey), Arc<Resource>>,
    /// Timers that only limit how long their task waits for others, by the index of the wait in the list.
    timeouts: FxHashSet<usize>,
    /// Waits of a library's future that runs a function of the program's, by the index of the wait in the list: they end only
    /// the whole of it.
    interruptions: FxHashSet<usize>,
    /// Timers that are over in idle tasks, by the index of the wait in the list: nothing polls these.
    overdue: FxHashSet<usize>,
    /// Tasks whose threads wait for a future that was not found.
    unread: FxHashSet<u32>,
    /// No main future is being polled, as far as the stacks of threads show.
    pub(super) mains_rest: bool,
}

impl Waits {
    pub(super) fn of(
        examination: &Examination<'_, '_, '_>,
        (locks, threads): (&ThreadLocks, &ThreadNodes),
        connections: &Connections,
        mains_rest: bool,
    ) -> Self {
        let tasks = &examination.listing.tasks;
        let places = &examination.places;
        let headers: FxHashMap<Address, u32> =
            (0..).zip(places).filter_map(|(number, place)| Some((place.header?, number))).collect();
        let mut waits = Self { mains_rest, ..Self::default() };
        for (number, (task, place)) in (0..).zip(tasks.iter().zip(places)) {
            let is_unread = task.thread.is_some_and(|tid| examination.listing.without_future.contains(&tid));
            waits.unread.extend(Some(number).filter(|_| is_unread));
            waits.first.push(waits.list.len());
            waits.timeouts.extend(timeouts(task, place).map(|leaf| waits.list.len() + leaf));
            let ends = interruptions(task).into_iter().map(|leaf| waits.list.len() + leaf);
            waits.interruptions.extend(ends);
            let leaves = task.waits_on.iter().zip(&place.leaves).enumerate();
            for (leaf, (on, leaf_place)) in leaves {
                let wait = match connections.other_end(on, leaf_place) {
                    Some(other) => Wait {
                        task: number,
                        leaf,
                        kind: ResourceKind::Connection,
                        resource: ResourceKey::Value(other),
                        by: Waker::Handles(Roles::END),
                        blocks_thread: false,
                    },
                    None => Wait {
                        task: number,
                        leaf,
                        kind: on.kind,
                        resource: leaf_place.address.map_or(ResourceKey::Unknown, ResourceKey::Value),
                        by: waker(on, leaf_place, &headers, place.header),
                        blocks_thread: false,
                    },
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
        waits.overdue(examination);
        waits.of_threads(examination, locks, threads);
        waits.name(tasks);
        waits
    }

    /// Finds the timers that are over for a second in a task that was not woken: the task does not poll that branch. That
    /// is concluded only while a thread has nothing to do, so that timers are served, and only for runtimes in which no
    /// task waits for nothing but such a timer.
    fn overdue(&mut self, examination: &Examination<'_, '_, '_>) {
        let tasks = &examination.listing.tasks;
        let is_over = |task: &Task, wait: &Wait| {
            let in_ms = task.waits_on.get(wait.leaf).and_then(|on| on.in_ms);
            wait.kind == ResourceKind::Timer && in_ms.is_some_and(|in_ms| in_ms < -OVERDUE_MS)
        };
        if !self.mains_rest && !examination.has_idle_workers() {
            return;
        }
        let mut late: FxHashSet<Option<&str>> = FxHashSet::default();
        let mut overdue = Vec::new();
        for (number, task) in (0..).zip(tasks).filter(|(_, task)| task.state == Some(TaskState::Idle)) {
            let own = self.of_task(number);
            let over = own.iter().filter(|wait| is_over(task, wait));
            let over: Vec<usize> = over.map(|wait| self.index(wait)).collect();
            if !over.is_empty() && over.len() == own.len() {
                late.insert(task.runtime.as_deref());
            }
            overdue.extend(over.into_iter().map(|index| (task.runtime.as_deref(), index)));
        }
        let served = overdue.into_iter().filter(|(runtime, _)| !late.contains(runtime));
        self.overdue = served.map(|(_, index)| index).collect();
    }

    /// Whether a wait is for a timer that is over, and that its task does not poll.
    pub(super) fn is_overdue(&self, wait: &Wait) -> bool {
        self.overdue.contains(&self.index(wait))
    }

    /// Adds the waits of tasks that blocked threads poll, and of tasks that only such a thread can poll.
    fn of_threads(
        &mut self,
        examination: &Examination<'_, '_, '_>,
        locks: &ThreadLocks,
        threads: &ThreadNodes,
    ) {
        let Examination { listing, places, .. } = examination;
        let mut taken: FxHashMap<Address, (u32, i32)> = FxHashMap::default();
        for (number, tid) in polling(&listing.tasks) {
            let (Some(task), Some(place)) = (listing.tasks.get(number as usize), places.get(number as usize))
            else {
                continue;
            };
            let of_lock =
                |lock| (ResourceKind::Lock, ResourceKey::Value(lock), Waker::Handles(Roles::THREAD_GUARD));
            let wait = locks.lock_of(tid).map(of_lock).or_else(|| threads.wait_of(examination, number));
            if wait.is_none() && !sleeps_in_call(task) {
                continue;
            }
            let index = wait.and_then(|(kind, resource, by)| self.add(number, kind, resource, by));
            self.blocking.extend(index.map(|index| (number, index)));
            let scheduler = place.one_at_a_time.or_else(|| main_scheduler(examination, task, tid));
            if let Some(scheduler) = scheduler {
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
                let thread = ResourceKey::Thread(*tid);
                let index = self.add(number, ResourceKind::Thread, thread, Waker::Task(Some(*by)));
                self.behind.extend(index.map(|index| (number, index)));
            }
        }
    }

    /// Adds a wait that is at no leaf of the task's future.
    fn add(&mut self, task: u32, kind: ResourceKind, resource: ResourceKey, by: Waker) -> Option<usize> {
        let index = self.list.len();
        let first = self.first.get(task as usize)?;
        let blocks_thread = kind != ResourceKind::Thread;
        self.list.push(Wait { task, leaf: index - first, kind, resource, by, blocks_thread });
        Some(index)
    }

    /// Sets the channel in which the thread of a task waits, and what ends the wait.
    pub(super) fn resolve(&mut self, task: u32, channel: ResourceKey, by: Waker, tasks: &[Task]) {
        let wait = self.blocking.get(&task).and_then(|index| self.list.get_mut(*index));
        if let Some(wait) = wait.filter(|wait| wait.by == Waker::Outside) {
            (wait.resource, wait.by) = (channel, by);
            self.name(tasks);
        }
    }

    /// The parts of resources to which handles point, with the whole resources.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Address, Address)> {
        self.wholes.iter().map(|(part, whole)| (*part, *whole))
    }

    /// The waits that count, of all tasks.
    pub(super) fn counting(&self) -> impl Iterator<Item = &Wait> {
        self.list.iter().filter(|wait| self.counts(wait))
    }

    /// Whether a wait counts: the wait for a thread does not, and if a lock blocks the task's thread, only the wait for
    /// that lock does.
    pub(super) fn counts(&self, wait: &Wait) -> bool {
        let blocking = self.blocking.get(&wait.task);
        wait.kind != ResourceKind::Thread && blocking.is_none_or(|blocking| *blocking == self.index(wait))
    }

    /// Whether a wait is for the lock that its task's thread is blocked in.
    pub(super) fn blocks(&self, wait: &Wait) -> bool {
        self.blocking.get(&wait.task).is_some_and(|blocking| *blocking == self.index(wait))
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

    /// Whether some task waits for others, and for a timer that limits how long.
    pub(super) fn have_timeouts(&self) -> bool {
        !self.timeouts.is_empty() || !self.interruptions.is_empty()
    }

    /// Whether the thread of a task waits for a future that was not found.
    pub(super) fn is_unread(&self, task: u32) -> bool {
        self.unread.contains(&task)
    }

    /// Whether a wait is for something that only ends the library's future around what its task waits for.
    pub(super) fn is_interruption(&self, wait: &Wait) -> bool {
        self.interruptions.contains(&self.index(wait))
    }

    /// Whether a wait is for a timer that only limits how long its task waits for others.
    pub(super) fn is_timeout(&self, wait: &Wait) -> bool {
        self.timeouts.contains(&self.index(wait))
    }

    /// The index of a wait in the list.
    pub(super) fn index(&self, wait: &Wait) -> usize {
        self.first.get(wait.task as usize).map_or(0, |first| first + wait.leaf)
    }

    /// The addresses to which handles of resources with waiters may point.
    pub(super) fn wanted(&self) -> FxHashSet<Hidden> {
        let handles = self.list.iter().filter(|wait| wait.by != Waker::Outside);
        let addresses = handles.flat_map(|wait| [wait.resource, wait.key()]).filter_map(ResourceKey::address);
        addresses.chain(self.wholes.keys().copied()).map(Hidden::from).collect()
    }

    /// The resource that the value at `address` is, or is part of.
    pub(super) fn whole(&self, address: Address) -> Address {
        self.wholes.get(&address).copied().unwrap_or(address)
    }

    /// The resource of a wait, with its name.
    pub(super) fn resource(&self, wait: &Wait) -> Arc<Resource> {
        self.names.get(&(wait.kind, wait.resource)).cloned().unwrap_or_default()
    }

    /// Names the resources: numbered by kind in the order of addresses; a task is named by its id.
    fn name(&mut self, tasks: &[Task]) {
        let mut kinds: BTreeMap<&'static str, Vec<(ResourceKey, ResourceKind)>> = BTreeMap::new();
        let mut named = FxHashMap::default();
        let mut add = |kind, resource, id| {
            let address = match resource {
                ResourceKey::Value(address) => Some(address.to_string()),
                // The id of the thread that is joined.
                ResourceKey::Thread(tid) if kind == ResourceKind::Join => Some(format!("{tid:#x}")),
                _ => None,
            };
            named.insert((kind, resource), Arc::new(Resource { id, kind, address }));
        };
        // A channel is named in the same way for tasks that wait until it is closed and for tasks that wait for its
        // messages.
        let others = self.list.iter().filter(|wait| wait.kind != ResourceKind::Closed);
        let of_channels: FxHashMap<ResourceKey, &str> =
            others.map(|wait| (wait.resource, wait.kind.noun())).collect();
        for wait in &self.list {
            match (wait.by, wait.resource) {
                (Waker::Task(Some(_)), ResourceKey::Thread(tid)) => {
                    add(wait.kind, wait.resource, format!("thread-{tid}"));
                }
                (Waker::Task(Some(of)), _) => {
                    let id = tasks.get(of as usize).map_or(0, |task| task.id);
                    add(wait.kind, wait.resource, format!("task-{id}"));
                }
                _ => {
                    let closed = wait.kind == ResourceKind::Closed;
                    let known = of_channels.get(&wait.resource).copied().filter(|_| closed);
                    let noun = known.unwrap_or(wait.kind.noun());
                    kinds.entry(noun).or_default().push((wait.resource, wait.kind));
                }
            }
        }
        for (noun, mut addresses) in kinds {
            addresses.sort_unstable();
            addresses.dedup();
            let mut number = 0;
            let mut before = None;
            for (resource, kind) in addresses {
                // The two ends of a channel have the same number.
                number += usize::from(before != Some(resource));
                before = Some(resource);
                add(kind, resource, format!("{noun}-{number}"));
            }
        }
        self.names = named;
    }
}

/// The timers of a task that only limit how long it waits for others: those of a future that is named for a timeout, and
/// branches of a `select!` where all else that the task waits for is a release. A timer beside a wait for a message may be
/// an interval at which the task does something else.
fn timeouts(task: &Task, place: &TaskPlace) -> impl Iterator<Item = usize> {
    let is_timer = |on: &WaitsOn| on.kind == ResourceKind::Timer;
    let others = || task.waits_on.iter().filter(|on| !is_timer(on));
    let beside_releases = others().all(|on| on.kind.is_release());
    let has_others = others().next().is_some();
    let leaves = task.waits_on.iter().zip(&place.leaves).enumerate();
    leaves
        .filter(move |(_, (on, leaf))| {
            has_others
                && is_timer(on)
                && match leaf.race {
                    Race::Timeout => true,
                    Race::Select => beside_releases,
                    Race::No => false,
                }
        })
        .map(|(number, _)| number)
}

/// The waits of a library's future, as a server's connection is, in which a function of the program's waits for something else:
/// whether the client goes away, or whether the server shuts down, does not end what the function waits for.
fn interruptions(task: &Task) -> Vec<usize> {
    let is_end = |on: &WaitsOn| {
        let reads = on.io.as_deref().is_none_or(|io| io.direction != Some(Direction::Write));
        on.kind == ResourceKind::Closed || on.kind == ResourceKind::Io && reads
    };
    // Most tasks have one wait.
    let ends = task.waits_on.iter().filter(|on| is_end(on)).count();
    if ends == 0 || ends == task.waits_on.len() {
        return Vec::new();
    }
    let mut own = Vec::new();
    below_own_code(&task.stack, false, &mut own);
    let is_inside = |leaf: usize| own.get(leaf) == Some(&true);
    let waits = || task.waits_on.iter().enumerate();
    if !waits().any(|(leaf, on)| is_inside(leaf) && !is_end(on) && !on.kind.is_outside()) {
        return Vec::new();
    }
    let outside = waits().filter(|(leaf, on)| is_end(on) && own.get(*leaf) == Some(&false));
    outside.map(|(leaf, _)| leaf).collect()
}

/// For each wait, in the order of `waits_on`, whether it is inside of a function of the program's. The walk that made the stack
/// has bounded its depth.
fn below_own_code(frames: &[Frame], inside: bool, found: &mut Vec<bool>) {
    for frame in frames {
        let inside = inside || frame.origin == Origin::User && frame.line.is_some();
        found.extend((0..frame.waits).map(|_| inside));
        below_own_code(&frame.children, inside, found);
    }
}

/// The scheduler of the runtime whose main future a thread polls, if no other thread can poll its tasks.
fn main_scheduler(examination: &Examination<'_, '_, '_>, main: &Task, tid: i32) -> Option<Address> {
    let Examination { listing, places, .. } = examination;
    let (_, runtime) = listing.entered.iter().find(|(of, _)| *of == tid && main.kind == TaskKind::Main)?;
    let mut tasks =
        listing.tasks.iter().zip(places).filter(|(task, _)| task.runtime.as_ref() == Some(runtime));
    tasks.find_map(|(_, place)| place.one_at_a_time)
}

/// The task that each thread polls: of a main future, or a task, that polls another task, the inner one.
pub(super) fn polling(tasks: &[Task]) -> Vec<(u32, i32)> {
    let polls = || (0..).zip(tasks).filter_map(|(number, task)| Some((number, task, task.thread?)));
    let inner: FxHashSet<i32> =
        polls().filter(|(_, task, _)| task.kind != TaskKind::Main).map(|(_, _, tid)| tid).collect();
    let is_inner = |(_, task, tid): &(u32, &Task, i32)| task.kind != TaskKind::Main || !inner.contains(tid);
    polls().filter(is_inner).map(|(number, _, tid)| (number, tid)).collect()
}

/// `header`: of the task that waits.
fn waker(
    on: &WaitsOn,
    place: &LeafPlace,
    headers: &FxHashMap<Address, u32>,
    header: Option<Address>,
) -> Waker {
    let by_wakers = || header.map_or(Waker::Outside, Waker::Wakers);
    let Some(resource) = place.address else {
        let is_known = on.kind.is_outside() || on.kind == ResourceKind::Never;
        return if is_known { Waker::Outside } else { by_wakers() };
    };
    let roles = match on.kind {
        ResourceKind::Mutex | ResourceKind::Rwlock | ResourceKind::Semaphore | ResourceKind::OnceCell => {
            Roles::GUARD.or(Roles::QUEUE)
        }
        ResourceKind::ChannelSend => Roles::RECEIVER.or(Roles::SLOT).or(Roles::QUEUE),
        ResourceKind::ChannelRecv => Roles::SENDER.or(Roles::SLOT).or(Roles::WEAK_SENDER),
        ResourceKind::Oneshot => Roles::SENDER,
        ResourceKind::Closed => Roles::RECEIVER,
        ResourceKind::Watch | ResourceKind::Broadcast => Roles::SENDER.or(Roles::WEAK_SENDER),
        ResourceKind::Notify if place.path.starts_with("event_listener::") => return by_wakers(),
        ResourceKind::Notify
        | ResourceKind::Condvar
        | ResourceKind::Barrier
        | ResourceKind::SetOnce
        | ResourceKind::Cancellation => Roles::ACCESS,
        ResourceKind::Join => return Waker::Task(headers.get(&resource).copied()),
        ResourceKind::Lock => Roles::THREAD_GUARD,
        ResourceKind::Http2Stream => Roles::DRIVES,
        ResourceKind::Http2Connection => Roles::STREAM,
        ResourceKind::Timer
        | ResourceKind::Io
        | ResourceKind::Signal
        | ResourceKind::Process
        | ResourceKind::Connection
        | ResourceKind::Never
        | ResourceKind::Yield
        | ResourceKind::Thread => return Waker::Outside,
        ResourceKind::Unknown => return by_wakers(),
    };
    if handles::are_known(place.path, roles) { Waker::Handles(roles) } else { by_wakers() }
}
