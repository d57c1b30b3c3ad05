//! Which tasks can continue, and which never will.
//!
//! A task is alive if it is not idle, if it waits for something outside of the program, or if a living task can end its
//! wait. The living tasks are the smallest set that these rules allow. All others are stuck: everything that could wake
//! them is stuck, too. The branches of a `join!` are alive or stuck one by one. If an owner was not found, it counts as
//! alive: a gap in what is known can hide a stuck task, but cannot make a task appear stuck that is not.

mod own;

use rustc_hash::{FxHashMap, FxHashSet};

use super::account::Account;
use super::holders::{Holders, role};
use super::ownership::{Holding, Node};
use super::resources::Waits;
use super::stale_references::StaleReferences;
use super::unjudged::Unjudged;
use super::wait::{ResourceKey, Wait, Waker, sleeps_in_call};
use super::wakers::{aborts, wakers};
use crate::tasks::layout::handles::Roles;
use crate::tasks::{Examination, ResourceKind, Task, TaskKind, TaskState};

/// Whether a timeout keeps its task alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timeouts {
    /// The task goes on when the time is over.
    Count,
    /// Only what ends the wait before that counts.
    Ignored,
}

/// What is alive.
pub(super) struct Liveness {
    tasks: Vec<bool>,
    /// For each part of a task.
    parts: Vec<bool>,
    objects: Vec<bool>,
    /// Tasks that nothing has a waker of.
    unwakeable: Vec<bool>,
    /// Tasks that something could wake, but whose only thread is blocked for good.
    held_back: FxHashSet<u32>,
    /// Tasks and parts that count as alive only because something is not known.
    not_judged: Vec<Doubtful>,
}

/// A task, or a part of it, that counts as alive although nothing shows that it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubtful {
    pub(super) node: Node,
    pub(super) why: Unjudged,
    /// The wait that the reason is about; `None` where it is about the task.
    pub(super) leaf: Option<usize>,
}

/// What is known of a task without regard to other tasks.
enum Own {
    /// It continues only if others do.
    Waits,
    /// It continues without others.
    Alive,
    /// It may continue without others: why that is not known, and the wait that the reason is about.
    Unjudged(Unjudged, Option<usize>),
}

struct Search<'s> {
    holders: &'s Holders,
    waiters: FxHashMap<ResourceKey, Vec<&'s Wait>>,
    /// What waits for a task to complete, by the node that is alive when the task can complete.
    joiners: FxHashMap<Node, Vec<Node>>,
    /// Resources whose waiters were woken by handles with these roles.
    woken: FxHashSet<(ResourceKey, Roles)>,
    /// For each rest, how many of the parts that it waits for are not alive yet.
    missing: Vec<usize>,
    /// Tasks, or parts of them, that could continue if their thread were free, by the task that blocks it.
    held_back: FxHashMap<u32, FxHashSet<Node>>,
    waits: &'s Waits,
    timeouts: Timeouts,
    liveness: Liveness,
    work: Vec<Node>,
    /// Waits for channels of which all senders were found although the receiver was not.
    accounted: FxHashSet<usize>,
}

impl Liveness {
    /// `stale`: what something unknown refers to.
    pub(super) fn of(
        examination: &Examination<'_, '_, '_>,
        waits: &Waits,
        holders: &Holders,
        stale: &StaleReferences,
        timeouts: Timeouts,
    ) -> Self {
        let mut search = Search::new(examination, waits, holders, timeouts);
        // First what is known to be alive, and all that this can wake; then what may be alive.
        search.live(Node::Statics);
        let mut doubtful = search.tasks(examination);
        doubtful.extend(search.parts(examination));
        search.stale_references(stale);
        search.spread();
        doubtful.retain(|of| !search.liveness.is_alive(of.node));
        let (tasks, parts) = (search.liveness.tasks.clone(), search.liveness.parts.clone());
        search.objects();
        doubtful.iter().for_each(|of| search.live(of.node));
        search.spread();
        search.behind(&mut doubtful, (&tasks, &parts));
        doubtful.retain(|of| search.liveness.is_alive(of.node));
        search.liveness.not_judged = doubtful;
        let held_back = std::mem::take(&mut search.held_back);
        let parts = &holders.ownership.parts;
        let tasks = held_back.into_values().flatten().filter_map(|node| parts.task_of(node));
        search.liveness.held_back.extend(tasks);
        search.liveness
    }

    /// Whether a task is stuck for nothing but its thread, which another task blocks.
    pub(super) fn is_held_back(&self, task: u32) -> bool {
        self.held_back.contains(&task)
    }

    /// Whether a task or object can still do something.
    pub(super) fn is_alive(&self, node: Node) -> bool {
        match node {
            Node::Task(task) => self.tasks.get(task as usize).copied().unwrap_or(true),
            Node::Part(part) => self.parts.get(part as usize).copied().unwrap_or(true),
            Node::Object(object) => self.objects.get(object as usize).copied().unwrap_or(true),
            Node::Statics => true,
        }
    }

    /// Whether nothing has a waker of a task.
    pub(super) fn is_unwakeable(&self, task: u32) -> bool {
        self.unwakeable.get(task as usize) == Some(&true)
    }

    /// Tasks and parts of which it is not known whether anything will wake them, and why not.
    pub(super) fn not_judged(&self) -> &[Doubtful] {
        &self.not_judged
    }

    /// The parts of tasks that nothing will wake.
    pub(super) fn stuck_parts(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.parts).filter(|(_, alive)| !**alive).map(|(part, _)| part)
    }

    /// The tasks that nothing will wake, in their order.
    pub(super) fn stuck(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.tasks).filter(|(_, alive)| !**alive).map(|(task, _)| task)
    }
}

impl<'s> Search<'s> {
    /// Indexes the waits, and finds the tasks that nothing has a waker of. Nothing is alive yet.
    fn new(
        examination: &Examination<'_, '_, '_>,
        waits: &'s Waits,
        holders: &'s Holders,
        timeouts: Timeouts,
    ) -> Self {
        let tasks = &examination.listing.tasks;
        let parts = &holders.ownership.parts;
        let mut search = Search {
            holders,
            waiters: Default::default(),
            joiners: Default::default(),
            woken: FxHashSet::default(),
            missing: parts.all().map(|(part, _)| parts.awaited(part).len()).collect(),
            held_back: FxHashMap::default(),
            waits,
            timeouts,
            liveness: Liveness {
                tasks: vec![false; tasks.len()],
                parts: vec![false; parts.len()],
                objects: vec![false; holders.ownership.objects.len()],
                unwakeable: vec![false; tasks.len()],
                held_back: FxHashSet::default(),
                not_judged: Vec::new(),
            },
            work: Vec::new(),
            accounted: FxHashSet::default(),
        };
        for wait in waits.counting() {
            let task = tasks.get(wait.task as usize);
            if task.is_some_and(|task| has_all_senders(task, wait, holders)) {
                search.accounted.insert(waits.index(wait));
            }
            // What ends only the future around it does not wake it.
            let is_ignored = timeouts == Timeouts::Ignored && waits.is_interruption(wait);
            match wait.by {
                _ if is_ignored => {}
                Waker::Handles(_) | Waker::Wakers(_) => {
                    search.waiters.entry(wait.key()).or_default().push(wait);
                }
                Waker::Task(Some(of)) => {
                    let waiter = parts.at_leaf(wait.task, wait.leaf);
                    search.joiners.entry(parts.end(Node::Task(of))).or_default().push(waiter);
                }
                _ => {}
            }
        }
        let numbered = || (0..).zip(tasks.iter().zip(&examination.places));
        for (number, (task, place)) in numbered() {
            if task.state == Some(TaskState::Idle)
                && task.kind != TaskKind::Blocking
                && place.header.is_some_and(|of| wakers(place) == Some(aborts(holders, of)))
                && let Some(of) = search.liveness.unwakeable.get_mut(number as usize)
            {
                *of = true;
            }
        }
        search
    }

    /// Marks tasks that continue without others as alive, and returns those of which that is not known.
    fn tasks(&mut self, examination: &Examination<'_, '_, '_>) -> Vec<Doubtful> {
        let (waits, parts) = (self.waits, &self.holders.ownership.parts);
        let mut doubtful = Vec::new();
        for (number, (task, place)) in (0..).zip(examination.listing.tasks.iter().zip(&examination.places)) {
            let node = Node::Task(number);
            if !parts.branches(node).is_empty() {
                continue;
            }
            match self.own(number, task, place, waits.of_task(number)) {
                Own::Waits => {}
                Own::Alive => self.live(node),
                Own::Unjudged(why, leaf) => doubtful.push(Doubtful { node, why, leaf }),
            }
        }
        doubtful
    }

    /// The same for the branches of `join!`s.
    fn parts(&mut self, examination: &Examination<'_, '_, '_>) -> Vec<Doubtful> {
        let parts = &self.holders.ownership.parts;
        let mut of_parts: FxHashMap<u32, Vec<Wait>> = FxHashMap::default();
        for wait in self.waits.counting() {
            if let Node::Part(part) = parts.at_leaf(wait.task, wait.leaf) {
                of_parts.entry(part).or_default().push(wait.clone());
            }
        }
        let mut doubtful = Vec::new();
        for (part, of) in parts.all() {
            let node = Node::Part(part);
            let task = examination.listing.tasks.get(of.task as usize);
            let (Some(task), Some(place)) = (task, examination.places.get(of.task as usize)) else {
                continue;
            };
            if !parts.branches(node).is_empty() || !parts.awaited(part).is_empty() {
                continue;
            }
            let own = of_parts.get(&part).map(Vec::as_slice).unwrap_or_default();
            // Every task that can reach a semaphore may add permits: another branch, too.
            let is_open = of.open || own.iter().any(|wait| wait.kind == ResourceKind::Semaphore);
            match self.own(of.task, task, place, own) {
                Own::Alive => self.live(node),
                Own::Unjudged(why, leaf) => doubtful.push(Doubtful { node, why, leaf }),
                Own::Waits if is_open => {
                    doubtful.push(Doubtful { node, why: Unjudged::OpenBranch, leaf: None });
                }
                Own::Waits => {}
            }
        }
        doubtful
    }

    /// Marks shared objects as alive to which something that was not found may refer.
    fn objects(&mut self) {
        let holders = self.holders;
        for (object, of) in (0..).zip(&holders.ownership.objects) {
            // An object that was not read completely may own handles that were not found.
            if of.cut || holders.account_of_object(object) == Account::Missing {
                self.live(Node::Object(object));
            }
        }
    }

    /// Marks what statics and threads refer to as alive, as far as memory shows.
    fn stale_references(&mut self, stale: &StaleReferences) {
        if stale.held.is_empty() && stale.on_stacks.is_empty() {
            return;
        }
        let (holders, waits) = (self.holders, self.waits);
        let parts = &holders.ownership.parts;
        for object in &stale.held {
            self.live(Node::Object(*object));
        }
        let held: FxHashSet<u32> = stale.held.iter().copied().collect();
        for wait in waits.counting() {
            if matches!(wait.by, Waker::Handles(_))
                && holders.channel_of(wait).is_some_and(|object| held.contains(&object))
                && !self.accounted.contains(&waits.index(wait))
            {
                self.live(parts.at_leaf(wait.task, wait.leaf));
            }
        }
        // A thread with the lock's address on its stack is taken for the holder, rather than a variable whose guard may
        // have been moved.
        for wait in waits.counting() {
            if holders.doubtful_lock(wait).any(|object| stale.on_stacks.contains(&object)) {
                self.live(parts.at_leaf(wait.task, wait.leaf));
            }
        }
    }

    /// Adds the tasks and parts that are alive only because of doubtful ones: those that were not alive `before` these.
    fn behind(&self, doubtful: &mut Vec<Doubtful>, before: (&[bool], &[bool])) {
        let known: FxHashSet<Node> = doubtful.iter().map(|of| of.node).collect();
        let parts = &self.holders.ownership.parts;
        let new = |now: &[bool], then: &[bool], node: fn(u32) -> Node| -> Vec<Node> {
            let both = (0..).zip(now.iter().zip(then));
            both.filter(|(_, (now, then))| **now && !**then).map(|(number, _)| node(number)).collect()
        };
        let mut nodes = new(&self.liveness.tasks, before.0, Node::Task);
        nodes.extend(new(&self.liveness.parts, before.1, Node::Part));
        // A task is represented by its branches.
        let is_leaf = |node: &Node| parts.branches(*node).is_empty();
        let new = nodes.into_iter().filter(|node| !known.contains(node) && is_leaf(node));
        doubtful.extend(new.map(|node| Doubtful { node, why: Unjudged::Behind, leaf: None }));
    }

    fn is_alive(&self, task: u32) -> bool {
        self.liveness.is_alive(Node::Task(task))
    }

    fn live(&mut self, node: Node) {
        if let Some(task) = self.holders.ownership.parts.task_of(node) {
            if self.liveness.is_unwakeable(task) {
                return;
            }
            let taken_by = self.waits.thread_taken_by(task);
            if let Some(by) = taken_by.filter(|by| !self.is_alive(*by)) {
                self.held_back.entry(by).or_default().insert(node);
                return;
            }
        }
        let alive = match node {
            Node::Task(task) => self.liveness.tasks.get_mut(task as usize),
            Node::Part(part) => self.liveness.parts.get_mut(part as usize),
            Node::Object(object) => self.liveness.objects.get_mut(object as usize),
            Node::Statics => return self.work.push(node),
        };
        if let Some(alive) = alive
            && !*alive
        {
            *alive = true;
            self.work.push(node);
        }
    }

    /// A living part makes what contains it alive. When all parts that a rest waits for are alive, the rest is alive,
    /// too.
    fn part_lives(&mut self, part: u32) {
        let parts = &self.holders.ownership.parts;
        if let Some(of) = parts.get(part) {
            self.live(of.whole);
        }
        let Some(next) = parts.next(part) else { return };
        if let Some(missing) = self.missing.get_mut(next as usize) {
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                self.live(Node::Part(next));
            }
        }
    }

    /// Marks what a handle can wake as alive.
    fn wake(&mut self, holding: &Holding) {
        let (holders, roles) = (self.holders, role(holding));
        if !self.woken.insert((holding.resource, roles)) {
            return;
        }
        let waiters = self.waiters.get(&holding.resource).map(Vec::as_slice).unwrap_or_default();
        // The roles that can end a wait depend on which handles were found.
        let woken = waiters.iter().filter(|wait| holders.roles_of(wait).has(roles));
        let woken: Vec<Node> =
            woken.map(|wait| holders.ownership.parts.at_leaf(wait.task, wait.leaf)).collect();
        woken.into_iter().for_each(|waiter| self.live(waiter));
    }

    /// Marks everything as alive that living nodes refer to or can wake.
    fn spread(&mut self) {
        let holders = self.holders;
        while let Some(node) = self.work.pop() {
            for reference in holders.references_of(node) {
                if reference.only_adds {
                    let inside = holders.holdings_of(Node::Object(reference.object));
                    inside
                        .filter(|holding| role(holding) == Roles::WAKER)
                        .for_each(|holding| self.wake(holding));
                } else {
                    self.live(Node::Object(reference.object));
                }
            }
            holders.holdings_of(node).for_each(|holding| self.wake(holding));
            match node {
                Node::Task(task) => {
                    for other in self.held_back.remove(&task).unwrap_or_default() {
                        self.live(other);
                    }
                }
                Node::Part(part) => self.part_lives(part),
                Node::Object(_) | Node::Statics => {}
            }
            for joiner in self.joiners.get(&node).cloned().unwrap_or_default() {
                self.live(joiner);
            }
        }
    }
}

/// Whether all senders of the channel that a task receives from in a blocking call were found, by the channel's own count
/// of these. The receiver is on the stack of the task's thread, where it is not found.
fn has_all_senders(task: &Task, wait: &Wait, holders: &Holders) -> bool {
    if !sleeps_in_call(task) || wait.kind != ResourceKind::ChannelRecv {
        return false;
    }
    let found: Vec<_> = holders.of_resource(wait.resource, Roles::SENDER).collect();
    let counted = task.waits_on.get(wait.leaf).and_then(|on| on.senders);
    counted == Some(found.len() as u64) && found.iter().all(|holding| !holding.uncertain)
}
