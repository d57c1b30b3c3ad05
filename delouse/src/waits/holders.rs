//! What was found to own what, indexed for questions.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::handles::{self, ON_STACK, Roles};
use super::index::Index;
use super::ownership::{Holding, Node, Object, Ownership, Reference};
use super::resources::{Wait, Waits, Waker, is_lock};
use super::thread_locks::ThreadLocks;
use crate::tasks::{Examination, ResourceKind, Task, TaskKind, TaskState};

/// Permits of a `tokio::sync::RwLock`, unless it was made by `with_max_readers`: `MAX_READS` of `rwlock.rs`.
const MAX_READS: u64 = (u32::MAX >> 3) as u64;

/// Owners of a lock that are asked.
const MAX_OWNERS: usize = 256;

/// Handles by resource and by owner.
pub(super) struct Holders {
    pub(super) ownership: Ownership,
    /// Of each resource, its handles, those of each kind together: there may be one that can wake its waiters
    /// among a hundred thousand that wait themselves.
    by_resource: FxHashMap<u64, Vec<Alike>>,
    holdings_of: Index<Node>,
    references_of: Index<Node>,
    /// Of each object, its references.
    references_to: Index<u32>,
    /// Of each object, whether all who refer to it were found.
    accounts: Vec<Account>,
    /// Objects that nothing in memory refers to but what was found.
    confined: FxHashSet<u32>,
    /// Objects by the address of the value in them.
    by_value: FxHashMap<u64, u32>,
    /// Tasks that run right now.
    running: FxHashSet<u32>,
    /// Those of them that wait for a lock that blocks their thread, which they do not have.
    blocked: FxHashMap<u32, u64>,
    /// Of the locks that threads wait for, the threads that poll no task and may have them.
    threads: FxHashMap<u64, Vec<i32>>,
    /// Not all stacks were looked through for these locks.
    stacks_cut: bool,
    /// Main futures, of which nobody knows whether they run.
    mains: FxHashSet<u32>,
}

/// Handles of one resource that can do the same.
struct Alike {
    roles: Roles,
    /// Permits of all of them.
    permits: u64,
    /// Each of them may have been moved or dropped.
    doubtful: bool,
    holdings: Vec<u32>,
}

/// How well the counters agree with what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Account {
    /// There are as many as were found.
    Exact,
    /// Fewer than were found: some of those are what is left of handles that were moved or dropped.
    TooMany,
    /// More than were found.
    Missing,
    /// No counter tells.
    Unknown,
}

impl Account {
    fn compare(counted: u64, found: u64) -> Self {
        match counted.cmp(&found) {
            std::cmp::Ordering::Equal => Self::Exact,
            std::cmp::Ordering::Less => Self::TooMany,
            std::cmp::Ordering::Greater => Self::Missing,
        }
    }

    fn of_object<'r>(object: &Object, references: impl Iterator<Item = &'r Reference> + Clone) -> Self {
        let count = |weak: bool| references.clone().filter(|r| r.weak == weak).count() as u64;
        let strong = Self::compare(object.strong, count(false));
        let weak = Self::compare(object.weak, count(true));
        // Something missing counts more than something left over.
        if strong == Self::Missing || weak == Self::Missing { Self::Missing } else { strong.max(weak) }
    }
}

impl Holders {
    /// Indexes what was found, and adds what threads may have.
    pub(super) fn of(
        examination: &Examination<'_, '_, '_>,
        waits: &Waits,
        locks: &ThreadLocks,
        mut ownership: Ownership,
    ) -> Self {
        // Who asks again gets what the threads have again.
        ownership.holdings.retain(|holding| holding.handle != ON_STACK);
        let tasks = &examination.listing.tasks;
        let polled: FxHashMap<i32, u32> =
            (0..).zip(tasks).filter_map(|(number, task)| Some((task.thread?, number))).collect();
        let mut threads: FxHashMap<u64, Vec<i32>> = FxHashMap::default();
        for lock in locks.locks() {
            let (of_tasks, others): (Vec<i32>, Vec<i32>) =
                locks.suspects(lock).partition(|tid| polled.contains_key(tid));
            let polled = of_tasks.iter().filter_map(|tid| polled.get(tid));
            ownership.holdings.extend(polled.map(|task| Holding::on_stack(*task, lock)));
            threads.insert(lock, others);
        }
        let blocked: FxHashMap<u32, u64> =
            polled.iter().filter_map(|(tid, task)| Some((*task, locks.lock_of(*tid)?))).collect();
        // What a task had when it was suspended last says nothing of a lock that it waits for now.
        ownership.holdings.retain(|holding| match holding.owner {
            Node::Task(task) => {
                role(holding) != Roles::THREAD_GUARD || blocked.get(&task) != Some(&holding.resource)
            }
            _ => true,
        });
        let mut by_resource: FxHashMap<u64, Vec<Alike>> = FxHashMap::default();
        for (number, holding) in (0..).zip(&mut ownership.holdings) {
            holding.resource = waits.whole(holding.resource);
            let kinds = by_resource.entry(holding.resource).or_default();
            add(kinds, holding, number);
        }
        let numbered = || (0..).zip(&ownership.references);
        let references_of = Index::of(numbered().map(|(number, reference)| (reference.owner, number)));
        let references_to = Index::of(numbered().map(|(number, reference)| (reference.object, number)));
        let holdings_of =
            Index::of((0..).zip(&ownership.holdings).map(|(number, holding)| (holding.owner, number)));
        let accounts = (0..)
            .zip(&ownership.objects)
            .map(|(number, object)| {
                let of = |number: &u32| ownership.references.get(*number as usize);
                Account::of_object(object, references_to.get(&number).iter().filter_map(of))
            })
            .collect();
        let by_value = (0..).zip(&ownership.objects).map(|(number, object)| (object.value, number)).collect();
        let is_main = |(_, task): &(u32, &Task)| task.kind == TaskKind::Main;
        let mains = (0..).zip(&examination.listing.tasks).filter(is_main).map(|(number, _)| number).collect();
        let is_running = |task: &Task| task.state == Some(TaskState::Running);
        let tasks = (0..).zip(&examination.listing.tasks);
        let running = tasks.filter(|(_, task)| is_running(task)).map(|(number, _)| number).collect();
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
        }
    }

    /// The handles that can end a wait.
    pub(super) fn of_wait<'h>(&'h self, wait: &Wait) -> impl Iterator<Item = &'h Holding> {
        self.of_resource(wait.resource, self.roles_of(wait))
    }

    /// What a handle must be able to do to end a wait. A semaphore of which nobody has a permit is used as a
    /// counter of events: whoever gets at it may add some.
    pub(super) fn roles_of(&self, wait: &Wait) -> Roles {
        let Waker::Handles(roles) = wait.by else { return Roles::NONE };
        let free = || self.of_resource(wait.resource, roles).next().is_none();
        if wait.kind == ResourceKind::Semaphore && free() { Roles::ACCESS } else { roles }
    }

    /// All handles of a resource with one of `roles`.
    pub(super) fn of_resource(&self, resource: u64, roles: Roles) -> impl Iterator<Item = &Holding> {
        let numbers = self.kinds(resource, roles).flat_map(|kind| &kind.holdings);
        numbers.filter_map(|number| self.holding(*number))
    }

    fn kinds(&self, resource: u64, roles: Roles) -> impl Iterator<Item = &Alike> {
        let all = self.by_resource.get(&resource).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(move |kind| kind.roles.has(roles))
    }

    /// What one owner has.
    pub(super) fn holdings_of(&self, owner: Node) -> impl Iterator<Item = &Holding> {
        let all = self.holdings_of.get(&owner);
        all.iter().filter_map(|number| self.holding(*number))
    }

    /// The shared objects that one owner refers to.
    pub(super) fn references_of(&self, owner: Node) -> impl Iterator<Item = &Reference> {
        let all = self.references_of.get(&owner);
        all.iter().filter_map(|number| self.ownership.references.get(*number as usize))
    }

    /// Who refers to a shared object.
    pub(super) fn references_to(&self, object: u32) -> impl Iterator<Item = &Reference> {
        let all = self.references_to.get(&object);
        all.iter().filter_map(|number| self.ownership.references.get(*number as usize))
    }

    /// The shared object that a channel is the value of: whoever refers to it has a handle of the channel.
    pub(super) fn channel_of(&self, wait: &Wait) -> Option<u32> {
        let is_channel = matches!(
            wait.kind,
            ResourceKind::ChannelRecv
                | ResourceKind::ChannelSend
                | ResourceKind::Oneshot
                | ResourceKind::Watch
                | ResourceKind::Broadcast
                | ResourceKind::Closed
        );
        self.by_value.get(&wait.resource).copied().filter(|_| is_channel)
    }

    /// The threads that poll no task and may have the lock that is waited for.
    pub(super) fn threads(&self, wait: &Wait) -> &[i32] {
        let threads = self.threads.get(&wait.resource).filter(|_| wait.kind == ResourceKind::Lock);
        threads.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether who was found to have a lock has it indeed. A guard that is dropped before an `.await` may be listed
    /// still, and makes up for one that a thread has: unless all who get at the lock were seen.
    pub(super) fn is_proven(&self, wait: &Wait) -> bool {
        !self.is_doubtful(wait) || self.is_closed(wait.resource)
    }

    fn is_doubtful(&self, wait: &Wait) -> bool {
        is_lock(wait.kind) && self.kinds(wait.resource, self.roles_of(wait)).all(|kind| kind.doubtful)
    }

    /// The shared objects that a lock lies in of which every guard that was found may have been moved or dropped:
    /// who really has it may be somebody else that knows one of these.
    pub(super) fn doubtful_lock(&self, wait: &Wait) -> impl Iterator<Item = u32> {
        // Threads that may have a lock that blocks threads were looked for.
        let asked = wait.kind != ResourceKind::Lock && self.is_doubtful(wait);
        let roles = if asked { Roles::ACCESS } else { Roles::NONE };
        self.of_resource(wait.resource, roles).filter_map(|holding| match holding.owner {
            Node::Object(object) => Some(object),
            _ => None,
        })
    }

    /// Whether all who refer to a shared object were found.
    pub(super) fn account_of_object(&self, object: u32) -> Account {
        self.accounts.get(object as usize).copied().unwrap_or(Account::Unknown)
    }

    /// Takes note of what was found out about objects since.
    pub(super) fn confine(&mut self, objects: &FxHashSet<u32>) {
        self.confined.extend(objects);
    }

    /// Whether whoever refers to a shared object is among those that were found.
    pub(super) fn is_confined(&self, object: u32) -> bool {
        match self.account_of_object(object) {
            Account::Exact => true,
            Account::TooMany => self.confined.contains(&object),
            // Not every thread's variables are looked at, and not every pointer leads to the counters.
            Account::Missing | Account::Unknown => false,
        }
    }

    /// Whether the handles that can end a wait are as many as there are; a semaphore has `available` permits.
    pub(super) fn account(&self, wait: &Wait, available: Option<u64>) -> Account {
        let found = || self.kinds(wait.resource, self.roles_of(wait));
        let permits = || found().fold(0_u64, |sum, kind| sum.saturating_add(kind.permits));
        let is_lock =
            matches!(wait.kind, ResourceKind::Mutex | ResourceKind::Rwlock | ResourceKind::OnceCell);
        let available = match available {
            None if is_lock && found().next().is_some() => return Account::Unknown,
            None if is_lock => return Account::Missing,
            available => available.unwrap_or(0),
        };
        match wait.kind {
            ResourceKind::Mutex | ResourceKind::OnceCell => {
                Account::compare(1_u64.saturating_sub(available), permits())
            }
            ResourceKind::Rwlock => Account::compare(MAX_READS.saturating_sub(available), permits()),
            ResourceKind::Semaphore => match found().next() {
                Some(_) => Account::Unknown,
                None => Account::Missing,
            },
            ResourceKind::Join | ResourceKind::Thread => Account::Exact,
            // A thread that has it is not told from one that only knows it.
            ResourceKind::Lock => {
                let outside = self.stacks_cut || !self.threads(wait).is_empty();
                match found().flat_map(|kind| &kind.holdings).next() {
                    None if !outside => Account::Missing,
                    Some(_) if !outside && self.of_wait(wait).all(|holding| holding.handle != ON_STACK) => {
                        Account::Exact
                    }
                    _ => Account::Unknown,
                }
            }
            ResourceKind::Notify
            | ResourceKind::Barrier
            | ResourceKind::SetOnce
            | ResourceKind::Cancellation => match found().next() {
                Some(_) => Account::Exact,
                None => Account::Missing,
            },
            _ => self.channel_of(wait).map_or(Account::Missing, |object| self.account_of_object(object)),
        }
    }

    /// A task that runs right now and gets at a lock: what it has lies on its thread's stack.
    pub(super) fn running(&self, resource: u64) -> Option<u32> {
        let mut tasks = self.owners(resource).filter_map(|node| self.ownership.parts.task_of(node));
        tasks.find(|task| self.may_have(*task, resource))
    }

    /// Whether all who get at a lock were found, and none of them runs right now: whoever has it is among the
    /// variables that were seen.
    pub(super) fn is_closed(&self, resource: u64) -> bool {
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

    /// Whether a task runs, and may have what was not seen: any lock but the one that its thread waits for.
    fn may_have(&self, task: u32, resource: u64) -> bool {
        self.running.contains(&task) && self.blocked.get(&task) != Some(&resource)
            // It cannot be past an `.await` at a lock while the others are as they are, but past many others.
            || self.mains.contains(&task) && self.threads.contains_key(&resource)
    }

    /// Those who get at a lock: who has it, who refers to that, and so on, as far as they are few.
    fn owners(&self, resource: u64) -> impl Iterator<Item = Node> {
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

/// Adds a handle to those that can do the same.
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

/// What a handle can do.
pub(super) fn role(holding: &Holding) -> Roles {
    if holding.handle == ON_STACK {
        return Roles::THREAD_GUARD;
    }
    handles::at(holding.handle).map_or(Roles::NONE, |fact| fact.roles)
}
