//! Indexes of the handles and references that were found, by resource, owner and object.

mod count;

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::account::Account;
use super::index::NodeIndex;
use super::ownership::{Holding, Node, Object, Ownership, Reference};
use super::resources::{Waits, polling};
use super::thread_locks::ThreadLocks;
use super::wait::{ResourceKey, Wait, Waker};
use crate::snapshot::Address;
use crate::tasks::layout::handles::{self, ON_STACK, ON_WAITING_STACK, Roles};
use crate::tasks::{Examination, ResourceKind, Task, TaskKind, TaskState};

/// The most tasks and shared objects that are listed of those that can reach the wakers of a task.
const MAX_REACHING: usize = 1 << 12;

/// The most owners of a lock that are examined.
const MAX_OWNERS: usize = 256;

/// Handles by resource and by owner.
pub(super) struct Holders {
    pub(super) ownership: Ownership,
    /// For each resource, its handles, grouped by roles: there may be one that can wake the waiters among a hundred
    /// thousand handles of the waiters themselves.
    by_resource: FxHashMap<ResourceKey, Vec<Alike>>,
    holdings_of: NodeIndex,
    references_of: NodeIndex,
    /// For each object, the references to it.
    references_to: NodeIndex,
    /// For each object, whether all references to it were found.
    accounts: Vec<Account>,
    /// Objects that nothing in memory refers to except the references that were found.
    confined: FxHashSet<u32>,
    /// Objects by the address of the value in them.
    by_value: FxHashMap<ResourceKey, u32>,
    /// Tasks that run right now.
    running: FxHashSet<u32>,
    /// Running tasks whose thread is blocked in a lock, and that lock, which they do not hold.
    blocked: FxHashMap<u32, ResourceKey>,
    /// For each lock that threads wait for, the threads that poll no task and may hold it.
    threads: FxHashMap<ResourceKey, Vec<i32>>,
    /// The search of stacks for these locks is incomplete.
    stacks_cut: bool,
    /// Main futures: it is not known whether they run.
    mains: FxHashSet<u32>,
    /// Resources whose addresses are on the stacks of threads that do not wait.
    pub(super) living: FxHashSet<ResourceKey>,
    /// Resources whose addresses are in memory in places of which it is not known what has them.
    pub(super) elsewhere: FxHashSet<ResourceKey>,
}

/// Handles of one resource that have the same roles.
struct Alike {
    roles: Roles,
    /// The sum of their permits.
    permits: u64,
    /// Each of them may have been moved or dropped.
    doubtful: bool,
    holdings: Vec<u32>,
}

impl Holders {
    /// Indexes `ownership`, and adds the locks that threads may hold.
    pub(super) fn of(
        examination: &Examination<'_, '_, '_>,
        waits: &Waits,
        locks: &ThreadLocks,
        mut ownership: Ownership,
    ) -> Self {
        // An earlier index has added holdings of threads, which are added again below.
        ownership.holdings.retain(|holding| holding.handle != ON_STACK);
        let tasks = &examination.listing.tasks;
        let polled: FxHashMap<i32, u32> =
            polling(tasks).into_iter().map(|(number, tid)| (tid, number)).collect();
        let mut threads: FxHashMap<ResourceKey, Vec<i32>> = FxHashMap::default();
        for lock in locks.locks() {
            let (of_tasks, others): (Vec<i32>, Vec<i32>) =
                locks.suspects(lock).partition(|tid| polled.contains_key(tid));
            let polled = of_tasks.iter().filter_map(|tid| polled.get(tid));
            let lock = ResourceKey::Value(lock);
            ownership.holdings.extend(polled.map(|task| Holding::on_stack(*task, lock)));
            threads.insert(lock, others);
        }
        let lock_of = |tid: i32| locks.lock_of(tid).map(ResourceKey::Value);
        let blocked: FxHashMap<u32, ResourceKey> =
            polled.iter().filter_map(|(tid, task)| Some((*task, lock_of(*tid)?))).collect();
        hold_themselves(&mut ownership, locks, &polled, &blocked, &threads);
        let mut by_resource: FxHashMap<ResourceKey, Vec<Alike>> = FxHashMap::default();
        for (number, holding) in (0..).zip(&mut ownership.holdings) {
            holding.resource = match (role(holding), holding.resource) {
                (Roles::WAKER, ResourceKey::Value(header)) => ResourceKey::Wakers(header),
                (_, ResourceKey::Value(address)) => ResourceKey::Value(waits.whole(address)),
                (_, indexed) => indexed,
            };
            let kinds = by_resource.entry(holding.resource).or_default();
            add(kinds, holding, number);
        }
        let references = ownership.references.iter();
        let references_of = NodeIndex::of(references.clone().map(|reference| reference.owner));
        let references_to = NodeIndex::of(references.map(|reference| Node::Object(reference.object)));
        let holdings_of = NodeIndex::of(ownership.holdings.iter().map(|holding| holding.owner));
        let objects = || (0..).zip(&ownership.objects);
        let account = |(number, object): (u32, &Object)| {
            let of = |number: &u32| ownership.references.get(*number as usize);
            Account::of_object(object, references_to.get(Node::Object(number)).iter().filter_map(of))
        };
        let accounts = objects().map(account).collect();
        let by_value = objects().map(|(number, of)| (ResourceKey::Value(of.value), number)).collect();
        let numbers_of = |wanted: fn(&Task) -> bool| {
            (0..).zip(tasks).filter(|(_, task)| wanted(task)).map(|(number, _)| number).collect()
        };
        let mains = numbers_of(|task| task.kind == TaskKind::Main);
        let running = numbers_of(|task| task.state == Some(TaskState::Running));
        Self {
            ownership,
            by_resource,
            holdings_of,
            references_of,
            references_to,
            accounts,
            confined: FxHashSet::default(),
            by_value,
            running,
            blocked,
            threads,
            stacks_cut: locks.cut,
            mains,
            living: FxHashSet::default(),
            elsewhere: FxHashSet::default(),
        }
    }

    /// The handles that can end a wait.
    pub(super) fn of_wait<'h>(&'h self, wait: &Wait) -> impl Iterator<Item = &'h Holding> {
        self.of_resource(wait.key(), self.roles_of(wait))
    }

    /// The roles that a handle needs to end a wait. If no task has a permit of a semaphore, it is taken for a counter
    /// of events: every task that can reach it may add permits.
    pub(super) fn roles_of(&self, wait: &Wait) -> Roles {
        let roles = match wait.by {
            Waker::Handles(roles) => roles,
            Waker::Wakers(_) => return Roles::WAKER,
            Waker::Task(_) | Waker::Outside => return Roles::NONE,
        };
        let free = || self.of_resource(wait.resource, roles).next().is_none();
        if wait.kind == ResourceKind::Semaphore && free() { Roles::ACCESS } else { roles }
    }

    /// All handles of the task with that header with one of `roles`.
    pub(super) fn of_task(&self, header: Address, roles: Roles) -> impl Iterator<Item = &Holding> {
        self.of_resource(ResourceKey::Value(header), roles)
    }

    /// All handles of a resource with one of `roles`.
    pub(super) fn of_resource(&self, resource: ResourceKey, roles: Roles) -> impl Iterator<Item = &Holding> {
        let numbers = self.kinds(resource, roles).flat_map(|kind| &kind.holdings);
        numbers.filter_map(|number| self.holding(*number))
    }

    fn kinds(&self, resource: ResourceKey, roles: Roles) -> impl Iterator<Item = &Alike> {
        let all = self.by_resource.get(&resource).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(move |kind| kind.roles.has(roles))
    }

    /// The handles of one owner.
    pub(super) fn holdings_of(&self, owner: Node) -> impl Iterator<Item = &Holding> {
        let all = self.holdings_of.get(owner);
        all.iter().filter_map(|number| self.holding(*number))
    }

    /// The shared objects that one owner refers to.
    pub(super) fn references_of(&self, owner: Node) -> impl Iterator<Item = &Reference> {
        let all = self.references_of.get(owner);
        all.iter().filter_map(|number| self.ownership.references.get(*number as usize))
    }

    /// The references to a shared object.
    pub(super) fn references_to(&self, object: u32) -> impl Iterator<Item = &Reference> {
        let all = self.references_to.get(Node::Object(object));
        all.iter().filter_map(|number| self.ownership.references.get(*number as usize))
    }

    /// The references to a shared object whose owners also own what the object owns: not those of handles that only add
    /// messages to it.
    pub(super) fn owners_of(&self, object: u32) -> impl Iterator<Item = &Reference> {
        self.references_to(object).filter(|reference| !reference.only_adds)
    }

    /// Whether a handle is in the queue of a channel.
    pub(super) fn is_queued(&self, holding: &Holding) -> bool {
        matches!(holding.owner, Node::Object(object) if self.references_to(object).any(|reference| reference.only_adds))
    }

    /// The shared object that a channel is the value of: every reference to it is a handle of the channel.
    pub(super) fn channel_of(&self, wait: &Wait) -> Option<u32> {
        self.by_value.get(&wait.resource).copied().filter(|_| wait.kind.is_channel())
    }

    /// The shared objects that are a resource, or that contain one to which they have access.
    pub(super) fn objects_of(&self, resource: Address) -> impl Iterator<Item = u32> {
        let resource = ResourceKey::Value(resource);
        let containing = self.objects_with(resource, Roles::ACCESS);
        self.by_value.get(&resource).copied().into_iter().chain(containing)
    }

    /// The threads that poll no task and may hold the lock that is waited for.
    pub(super) fn threads(&self, wait: &Wait) -> &[i32] {
        let threads = self.threads.get(&wait.resource).filter(|_| wait.kind == ResourceKind::Lock);
        threads.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the holder that was found really holds the lock. A guard that was dropped before an `.await` may still
    /// be in memory while a thread holds the lock, unless everything that can reach the lock was read.
    pub(super) fn is_proven(&self, wait: &Wait) -> bool {
        !self.is_doubtful(wait) || self.is_closed(wait.resource)
    }

    fn is_doubtful(&self, wait: &Wait) -> bool {
        !wait.is_by_wakers()
            && wait.kind.is_lock()
            && self.kinds(wait.resource, self.roles_of(wait)).all(|kind| kind.doubtful)
    }

    /// The shared objects that contain a lock of which every guard that was found may have been moved or dropped:
    /// the real holder may be something else that refers to one of these.
    pub(super) fn doubtful_lock(&self, wait: &Wait) -> impl Iterator<Item = u32> {
        // For a lock that blocks threads, the stacks of threads were searched already.
        let asked = wait.kind != ResourceKind::Lock && self.is_doubtful(wait);
        let roles = if asked { Roles::ACCESS } else { Roles::NONE };
        self.objects_with(wait.resource, roles)
    }

    /// The shared objects that own handles of a resource with one of `roles`.
    fn objects_with(&self, resource: ResourceKey, roles: Roles) -> impl Iterator<Item = u32> {
        self.of_resource(resource, roles).filter_map(|holding| match holding.owner {
            Node::Object(object) => Some(object),
            _ => None,
        })
    }

    /// Whether all references to a shared object were found.
    pub(super) fn account_of_object(&self, object: u32) -> Account {
        self.accounts.get(object as usize).copied().unwrap_or(Account::Unknown)
    }

    /// Marks `objects` as confined.
    pub(super) fn confine(&mut self, objects: &FxHashSet<u32>) {
        self.confined.extend(objects);
    }

    /// Whether all references to a shared object were found.
    pub(super) fn is_confined(&self, object: u32) -> bool {
        match self.account_of_object(object) {
            Account::Exact => true,
            Account::TooMany => self.confined.contains(&object),
            // Variables of threads are not read, and not every pointer points to the counters.
            Account::Missing | Account::Unknown => false,
        }
    }

    /// Whether a handle that can end a wait is on the stack of a thread that waits itself.
    pub(super) fn is_on_waiting_stack(&self, wait: &Wait) -> bool {
        self.of_wait(wait).any(|holding| holding.handle == ON_WAITING_STACK)
    }

    /// A running task that can reach a lock, and may hold it by a variable on its thread's stack.
    pub(super) fn running(&self, resource: ResourceKey) -> Option<u32> {
        let mut tasks = self.owners(resource).filter_map(|node| self.ownership.parts.task_of(node));
        tasks.find(|task| self.may_have(*task, resource))
    }

    /// Whether everything that can reach a lock was found, and none of it is running: the holder is among the
    /// variables that were read.
    pub(super) fn is_closed(&self, resource: ResourceKey) -> bool {
        let mut owners = self.owners(resource).peekable();
        owners.peek().is_some()
            && owners.all(|node| match node {
                Node::Task(_) | Node::Part(_) => {
                    let task = self.ownership.parts.task_of(node);
                    task.is_some_and(|task| !self.may_have(task, resource))
                }
                Node::Object(object) => self.is_confined(object),
                Node::Statics => false,
            })
    }

    /// Whether a task may run and hold a lock by a variable that was not read: any lock except the one that its thread
    /// waits for.
    fn may_have(&self, task: u32, resource: ResourceKey) -> bool {
        self.running.contains(&task) && self.blocked.get(&task) != Some(&resource)
            // A main future may be running: it cannot have taken an async lock that others still hold, but any lock of
            // threads.
            || self.mains.contains(&task) && self.threads.contains_key(&resource)
    }

    /// What can reach the wakers that a wait is judged by: the shared objects, and the tasks except the one that waits;
    /// that one if there is no other.
    pub(super) fn reaching(&self, wait: &Wait) -> (Vec<u32>, Vec<Node>) {
        let parts = &self.ownership.parts;
        let own = Node::Task(wait.task);
        let mut queue: Vec<Node> = self.of_wait(wait).map(|holding| parts.whole(holding.owner)).collect();
        let mut seen: FxHashSet<Node> = queue.iter().copied().collect();
        let (mut objects, mut others) = (Vec::new(), Vec::new());
        while let Some(node) = queue.pop() {
            match node {
                Node::Object(object) => {
                    objects.push(object);
                    let owners = self.references_to(object).map(|reference| parts.whole(reference.owner));
                    queue.extend(owners.filter(|owner| seen.len() < MAX_REACHING && seen.insert(*owner)));
                }
                node if node != own => others.push(node),
                _ => {}
            }
        }
        if others.is_empty() {
            others.push(own);
        }
        others.sort_unstable();
        (objects, others)
    }

    /// What can reach a lock: its owners, what refers to these, and so on, at most [`MAX_OWNERS`].
    fn owners(&self, resource: ResourceKey) -> impl Iterator<Item = Node> {
        let mut queue: VecDeque<Node> = self.of_resource(resource, Roles::ACCESS).map(|h| h.owner).collect();
        let mut seen: FxHashSet<Node> = queue.iter().copied().collect();
        std::iter::from_fn(move || {
            let node = queue.pop_front()?;
            if let Node::Object(object) = node {
                let further = self.references_to(object).map(|reference| reference.owner);
                for owner in further.take(MAX_OWNERS) {
                    if seen.len() < MAX_OWNERS && seen.insert(owner) {
                        queue.push_back(owner);
                    }
                }
            }
            Some(node)
        })
    }

    fn holding(&self, number: u32) -> Option<&Holding> {
        self.ownership.holdings.get(number as usize)
    }
}

/// Decides of which locks a task is listed as the holder although its thread waits for them: only those that nothing
/// else was found to hold. What is stored in its future is from when it was suspended last, so usually it has released
/// the lock since, and something else holds it now.
fn hold_themselves(
    ownership: &mut Ownership,
    locks: &ThreadLocks,
    polled: &FxHashMap<i32, u32>,
    blocked: &FxHashMap<u32, ResourceKey>,
    threads: &FxHashMap<ResourceKey, Vec<i32>>,
) {
    let is_guard = |holding: &Holding| role(holding) == Roles::THREAD_GUARD;
    let is_own = |holding: &Holding| match holding.owner {
        Node::Task(task) => blocked.get(&task) == Some(&holding.resource),
        _ => false,
    };
    let guards = || ownership.holdings.iter().filter(|holding| is_guard(holding));
    let mut held: FxHashSet<ResourceKey> =
        guards().filter(|holding| !is_own(holding)).map(|holding| holding.resource).collect();
    held.extend(threads.iter().filter(|(_, threads)| !threads.is_empty()).map(|(lock, _)| *lock));
    ownership.holdings.retain(|holding| {
        !(is_guard(holding) && is_own(holding) && (held.contains(&holding.resource) || locks.cut))
    });
    let known: FxHashSet<ResourceKey> = ownership
        .holdings
        .iter()
        .filter(|holding| is_guard(holding))
        .map(|holding| holding.resource)
        .chain(held)
        .collect();
    let own = polled.iter().filter_map(|(tid, task)| Some((*task, *blocked.get(task)?, *tid)));
    for (task, lock, tid) in own {
        if locks.may_hold_itself(tid) && !known.contains(&lock) && !locks.cut {
            ownership.holdings.push(Holding::on_stack(task, lock));
        }
    }
}

/// Adds a handle to those with the same roles.
fn add(kinds: &mut Vec<Alike>, holding: &Holding, number: u32) {
    let roles = role(holding);
    let at = kinds.iter().position(|kind| kind.roles == roles).unwrap_or(kinds.len());
    if at == kinds.len() {
        kinds.push(Alike { roles, permits: 0, doubtful: true, holdings: Vec::new() });
    }
    if let Some(kind) = kinds.get_mut(at) {
        kind.permits = kind.permits.saturating_add(holding.permits);
        // A place in the queue is no guard.
        kind.doubtful &= holding.uncertain || !holding.solid || holding.is_in_line();
        kind.holdings.push(number);
    }
}

/// The roles of a handle.
pub(super) fn role(holding: &Holding) -> Roles {
    match holding.handle {
        ON_STACK => return Roles::THREAD_GUARD,
        ON_WAITING_STACK => return Roles::ANY,
        _ => {}
    }
    handles::at(holding.handle).map_or(Roles::NONE, |fact| fact.roles)
}
