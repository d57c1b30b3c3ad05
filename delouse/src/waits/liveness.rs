//! Which tasks can go on, and which never will.
//!
//! A task is alive if it is not idle, or waits for something outside of the program, or for something that a
//! living one can give: the least set that these rules make. All others are stuck: everyone who could wake
//! them is stuck too. The branches of a `join!` are alive or stuck one by one. Where something was not found, its
//! owner counts as alive, so that a gap in what we know hides a stuck task rather than making one up.

use rustc_hash::{FxHashMap, FxHashSet};

use super::handles::{self, Roles};
use super::holders::{Account, Holders, role};
use super::ownership::Node;
use super::remains::Remains;
use super::resources::{Wait, Waits, Waker, holds_main, is_lock, is_outside};
use crate::tasks::{Examination, Place, ResourceKind, Task, TaskKind, TaskState};

/// Bits of a task's state word: `runtime/task/state.rs`.
const NOTIFIED: u64 = 1 << 2;
const JOIN_INTEREST: u64 = 1 << 3;
const REFERENCE: u64 = 1 << 6;

/// Who is alive.
pub(super) struct Liveness {
    tasks: Vec<bool>,
    /// Of each part of a task.
    parts: Vec<bool>,
    objects: Vec<bool>,
    /// Tasks that nothing has a waker of.
    unwakeable: Vec<bool>,
    /// Tasks that something could wake, but whose only thread is blocked for good.
    held_back: FxHashSet<u32>,
    /// Tasks and parts that count as alive for what is not known only.
    not_judged: Vec<(Node, Unjudged)>,
}

/// Why a task, or a part of it, counts as alive although nothing shows that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Unjudged {
    /// Its future could not be read: not even what it waits for is known.
    NoFuture,
    /// A future of an unknown kind: which of the task's waits.
    UnknownFuture(usize),
    /// It was not read what that wait waits for.
    UnknownResource(usize),
    /// The handles of that kind of resource are not known.
    UnknownHandles(usize),
    /// The task that it waits for was not found.
    UnknownTask(usize),
    /// More can end the wait than what was found.
    MoreHandles(usize),
    /// Nothing was found that can end the wait.
    NoHandles(usize),
    /// Not all of its variables could be read.
    Unread,
    /// Something that was not found can wake it.
    MoreWakers,
    /// A branch of a `join!` that may end with a future whose end is not understood, or a semaphore.
    OpenBranch,
    /// It waits for others that are not judged.
    Behind,
}

/// What is known of a task by itself.
enum Own {
    /// It goes on if others do.
    Waits,
    /// It goes on without others.
    Alive,
    /// It may.
    Unjudged(Unjudged),
}

struct Search<'s> {
    holders: &'s Holders,
    waiters: FxHashMap<u64, Vec<&'s Wait>>,
    /// Those who wait for the end of a task, by what comes to life with that.
    joiners: FxHashMap<Node, Vec<Node>>,
    /// Resources whose waiters were woken by handles with these roles.
    woken: FxHashSet<(u64, Roles)>,
    /// Of each part, how many of those are stuck whose ends it waits for.
    missing: Vec<usize>,
    /// Tasks, or parts of them, that could go on if the thread were free, by the task that has it.
    held_back: FxHashMap<u32, FxHashSet<Node>>,
    waits: &'s Waits,
    liveness: Liveness,
    work: Vec<Node>,
}

impl Liveness {
    /// `remains` tells what somebody unknown refers to.
    pub(super) fn of(
        examination: &Examination<'_, '_, '_>,
        waits: &Waits,
        holders: &Holders,
        remains: &Remains,
    ) -> Self {
        let mut search = Search::new(examination, waits, holders);
        // First what is known to go on, and all that this can wake; then what may, for all that is known.
        search.live(Node::Statics);
        let mut doubtful = search.tasks(examination);
        doubtful.extend(search.parts(examination));
        search.remains(remains);
        search.spread();
        doubtful.retain(|(node, _)| !search.liveness.is_alive(*node));
        let (tasks, parts) = (search.liveness.tasks.clone(), search.liveness.parts.clone());
        search.objects();
        doubtful.iter().for_each(|(node, _)| search.live(*node));
        search.spread();
        search.behind(&mut doubtful, (&tasks, &parts));
        doubtful.retain(|(node, _)| search.liveness.is_alive(*node));
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
    pub(super) fn not_judged(&self) -> &[(Node, Unjudged)] {
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
    /// Nothing is alive yet. Who waits for what, and which tasks nothing has a waker of.
    fn new(examination: &Examination<'_, '_, '_>, waits: &'s Waits, holders: &'s Holders) -> Self {
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
            liveness: Liveness {
                tasks: vec![false; tasks.len()],
                parts: vec![false; parts.len()],
                objects: vec![false; holders.ownership.objects.len()],
                unwakeable: vec![false; tasks.len()],
                held_back: FxHashSet::default(),
                not_judged: Vec::new(),
            },
            work: Vec::new(),
        };
        for wait in waits.counting() {
            match wait.by {
                Waker::Handles(_) => search.waiters.entry(wait.resource).or_default().push(wait),
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

    /// Begins with the tasks that go on without others, and returns those of which that is not known.
    fn tasks(&mut self, examination: &Examination<'_, '_, '_>) -> Vec<(Node, Unjudged)> {
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
                Own::Unjudged(why) => doubtful.push((node, why)),
            }
        }
        doubtful
    }

    /// The same for the branches of `join!`s.
    fn parts(&mut self, examination: &Examination<'_, '_, '_>) -> Vec<(Node, Unjudged)> {
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
            // Whoever gets at a semaphore may add permits: another branch, too.
            let is_open = of.open || own.iter().any(|wait| wait.kind == ResourceKind::Semaphore);
            match self.own(of.task, task, place, own) {
                Own::Alive => self.live(node),
                Own::Unjudged(why) => doubtful.push((node, why)),
                Own::Waits if is_open => doubtful.push((node, Unjudged::OpenBranch)),
                Own::Waits => {}
            }
        }
        doubtful
    }

    /// Begins with shared objects that somebody may have who was not found.
    fn objects(&mut self) {
        let holders = self.holders;
        for (object, of) in (0..).zip(&holders.ownership.objects) {
            // Where not all of it was seen, it may have what nobody was found to have.
            if of.cut || holders.account_of_object(object) == Account::Missing {
                self.live(Node::Object(object));
            }
        }
    }

    /// Begins with what statics and threads refer to, as far as memory shows.
    fn remains(&mut self, remains: &Remains) {
        let (holders, waits) = (self.holders, self.waits);
        let parts = &holders.ownership.parts;
        for object in &remains.held {
            self.live(Node::Object(*object));
        }
        let held: FxHashSet<u32> = remains.held.iter().copied().collect();
        for wait in waits.counting() {
            if matches!(wait.by, Waker::Handles(_))
                && holders.channel_of(wait).is_some_and(|object| held.contains(&object))
            {
                self.live(parts.at_leaf(wait.task, wait.leaf));
            }
        }
        // A thread that knows the lock has it, rather than a variable that it may have been moved from.
        for wait in waits.counting() {
            if holders.doubtful_lock(wait).any(|object| remains.on_stacks.contains(&object)) {
                self.live(parts.at_leaf(wait.task, wait.leaf));
            }
        }
    }

    /// Adds what came to life with what is doubtful only: `before` that, other tasks and parts were alive.
    fn behind(&self, doubtful: &mut Vec<(Node, Unjudged)>, before: (&[bool], &[bool])) {
        let known: FxHashSet<Node> = doubtful.iter().map(|(node, _)| *node).collect();
        let parts = &self.holders.ownership.parts;
        let new = |now: &[bool], then: &[bool], node: fn(u32) -> Node| -> Vec<Node> {
            let both = (0..).zip(now.iter().zip(then));
            both.filter(|(_, (now, then))| **now && !**then).map(|(number, _)| node(number)).collect()
        };
        let mut nodes = new(&self.liveness.tasks, before.0, Node::Task);
        nodes.extend(new(&self.liveness.parts, before.1, Node::Part));
        // A task is told of by its branches.
        let is_leaf = |node: &Node| parts.branches(*node).is_empty();
        let new = nodes.into_iter().filter(|node| !known.contains(node) && is_leaf(node));
        doubtful.extend(new.map(|node| (node, Unjudged::Behind)));
    }

    /// What a task does without any other: all of it that waits for `waits`.
    fn own(&self, number: u32, task: &Task, place: &Place, waits: &[Wait]) -> Own {
        if self.liveness.is_unwakeable(number) {
            return Own::Waits;
        }
        if let [wait] = waits
            && wait.kind == ResourceKind::Lock
        {
            // A thread outside of all tasks lets go sooner or later, as far as we know.
            return if !self.holders.threads(wait).is_empty() {
                Own::Unjudged(Unjudged::MoreHandles(wait.leaf))
            } else if self.holders.of_wait(wait).next().is_none() {
                Own::Unjudged(Unjudged::NoHandles(wait.leaf))
            } else {
                Own::Waits
            };
        }
        let idle = match task.kind {
            TaskKind::Blocking => false,
            // Its memory does not tell whether a main future is being polled right now, in which case it is past what it
            // seems to wait for.
            // Nothing is concluded from a future that was found on a stack.
            TaskKind::Main if task.found_in.is_some() => false,
            TaskKind::Main => self.waits.mains_rest || waits.iter().all(|wait| holds_main(wait.kind)),
            _ => task.state == Some(TaskState::Idle),
        };
        // Of the branches of a `select!`, one that never ends changes nothing. A task that does nothing else is meant to.
        let ending = waits.iter().filter(|wait| wait.kind != ResourceKind::Never);
        let mut own: Vec<Own> = ending.map(|wait| self.by_itself(task, place, wait)).collect();
        if own.is_empty() && !waits.is_empty() {
            return Own::Alive;
        }
        if !idle || own.iter().any(|own| matches!(own, Own::Alive)) {
            return Own::Alive;
        }
        let first = own.iter().position(|own| matches!(own, Own::Unjudged(_)));
        if let Some(first) = first {
            return own.swap_remove(first);
        }
        if waits.is_empty() {
            return Own::Unjudged(Unjudged::NoFuture);
        }
        if self.holders.ownership.complete.get(number as usize) != Some(&true) {
            return Own::Unjudged(Unjudged::Unread);
        }
        // More wakers than what it waits for accounts for: something else that we do not see may wake it.
        let slots = self.holders.ownership.slots.get(number as usize).copied().unwrap_or(0);
        let handles = place.header.map_or(0, |of| self.holders.of_resource(of, Roles::ABORT).count() as u64);
        let explained = self.waits.of_task(number).len() as u64 + slots + handles;
        match wakers(place) {
            Some(wakers) if wakers > explained => Own::Unjudged(Unjudged::MoreWakers),
            _ => Own::Waits,
        }
    }

    /// Whether a wait ends without any other task.
    fn by_itself(&self, task: &Task, place: &Place, wait: &Wait) -> Own {
        let leaf = place.leaves.get(wait.leaf).copied().unwrap_or_default();
        let why = match wait.by {
            Waker::Outside if is_outside(wait.kind) => return Own::Alive,
            Waker::Outside if wait.kind == ResourceKind::Unknown => Unjudged::UnknownFuture(wait.leaf),
            Waker::Outside if leaf.address.is_none() => Unjudged::UnknownResource(wait.leaf),
            Waker::Outside => Unjudged::UnknownHandles(wait.leaf),
            Waker::Task(None) => Unjudged::UnknownTask(wait.leaf),
            Waker::Task(Some(_)) => return Own::Waits,
            // Whoever holds a lock that nobody seems to hold was not found.
            Waker::Handles(roles) => {
                let available = task.waits_on.get(wait.leaf).and_then(|on| on.available);
                let missing = self.holders.account(wait, available) == Account::Missing;
                let none = self.holders.of_wait(wait).next().is_none();
                let known = wait.kind == ResourceKind::Lock || handles::are_known(leaf.path, roles);
                match (missing, none) {
                    (_, true) if !known && (missing || !is_lock(wait.kind)) => {
                        Unjudged::UnknownHandles(wait.leaf)
                    }
                    (true, true) => Unjudged::NoHandles(wait.leaf),
                    (true, false) => Unjudged::MoreHandles(wait.leaf),
                    (false, true) if !is_lock(wait.kind) => Unjudged::NoHandles(wait.leaf),
                    _ => return Own::Waits,
                }
            }
        };
        Own::Unjudged(why)
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

    /// One living branch makes its whole a living one; with the last, all of it can come to its end.
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

    /// What the living can reach is alive, and those whom they can wake.
    fn spread(&mut self) {
        let holders = self.holders;
        while let Some(node) = self.work.pop() {
            for reference in holders.references_of(node) {
                self.live(Node::Object(reference.object));
            }
            for holding in holders.holdings_of(node) {
                let roles = role(holding);
                if !self.woken.insert((holding.resource, roles)) {
                    continue;
                }
                let waiters = self.waiters.get(&holding.resource).map(Vec::as_slice).unwrap_or_default();
                let woken: Vec<Node> = waiters
                    .iter()
                    .filter(|wait| {
                        // Roles that count depend on who else has a handle.
                        holders.roles_of(wait).has(roles)
                    })
                    .map(|wait| holders.ownership.parts.at_leaf(wait.task, wait.leaf))
                    .collect();
                for waiter in woken {
                    self.live(waiter);
                }
            }
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

/// How many wakers and `AbortHandle`s of a task there are: references that neither the list of all tasks nor a
/// `JoinHandle` has.
///
/// An idle task has one reference for its place in the list, one for a `JoinHandle`, and one for each waker
/// and each `AbortHandle` (`runtime/task/state.rs`).
fn wakers(place: &Place) -> Option<u64> {
    let state = place.state?;
    let known = 1 + u64::from(state & JOIN_INTEREST != 0) + u64::from(state & NOTIFIED != 0);
    (state / REFERENCE).checked_sub(known)
}

/// How many `AbortHandle`s of a task there are beyond doubt. One that was moved or dropped without a trace would
/// take the place of a waker.
fn aborts(holders: &Holders, header: u64) -> u64 {
    let exact = |owner| match owner {
        Node::Object(object) => holders.account_of_object(object) == Account::Exact,
        Node::Task(_) | Node::Part(_) | Node::Statics => true,
    };
    let found = holders.of_resource(header, Roles::ABORT);
    let sure = found.filter(|holding| holding.solid && !holding.uncertain && exact(holding.owner));
    sure.map(|holding| holding.place).collect::<FxHashSet<u64>>().len() as u64
}

/// Whether somebody can still ask for a task's output, and end it.
pub(super) fn has_join_handle(place: &Place) -> bool {
    place.state.is_some_and(|state| state & JOIN_INTEREST != 0)
}
