//! Which tasks can go on, and which never will.
//!
//! A task is alive if it is not idle, or waits for something outside of the program, or for something that a
//! living one can give: the least set that these rules make. All others are stuck: everyone who could wake
//! them is stuck too. The branches of a `join!` are alive or stuck one by one. Where something was not found, its
//! owner counts as alive, so that a gap in what we know hides a stuck task rather than making one up.

use rustc_hash::{FxHashMap, FxHashSet};

use super::handles::Roles;
use super::holders::{Account, Holders, role};
use super::ownership::Node;
use super::remains::Remains;
use super::resources::{Wait, Waits, Waker, holds_main, is_lock};
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
            liveness: Self {
                tasks: vec![false; tasks.len()],
                parts: vec![false; parts.len()],
                objects: vec![false; holders.ownership.objects.len()],
                unwakeable: vec![false; tasks.len()],
                held_back: FxHashSet::default(),
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
        for (number, (task, place)) in numbered() {
            let whole = parts.branches(Node::Task(number)).is_empty();
            if whole && search.is_alive_itself(number, task, place, waits.of_task(number)) {
                search.live(Node::Task(number));
            }
        }
        let mut of_parts: FxHashMap<u32, Vec<Wait>> = FxHashMap::default();
        for wait in waits.counting() {
            if let Node::Part(part) = parts.at_leaf(wait.task, wait.leaf) {
                of_parts.entry(part).or_default().push(wait.clone());
            }
        }
        for (part, of) in parts.all() {
            let node = Node::Part(part);
            let (Some(task), Some(place)) =
                (tasks.get(of.task as usize), examination.places.get(of.task as usize))
            else {
                continue;
            };
            if !parts.branches(node).is_empty() || !parts.awaited(part).is_empty() {
                continue;
            }
            let own = of_parts.get(&part).map(Vec::as_slice).unwrap_or_default();
            // Whoever gets at a semaphore may add permits: another branch, too.
            let is_open = of.open || own.iter().any(|wait| wait.kind == ResourceKind::Semaphore);
            if is_open || search.is_alive_itself(of.task, task, place, own) {
                search.live(node);
            }
        }
        for object in 0..holders.ownership.objects.len() as u32 {
            // Where not all of it was seen, it may have what nobody was found to have.
            let cut = holders.ownership.objects.get(object as usize).is_none_or(|object| object.cut);
            if cut || holders.account_of_object(object) == Account::Missing {
                search.live(Node::Object(object));
            }
        }
        for object in &remains.held {
            search.live(Node::Object(*object));
        }
        let held: FxHashSet<u32> = remains.held.iter().copied().collect();
        for wait in waits.counting() {
            if matches!(wait.by, Waker::Handles(_))
                && holders.channel_of(wait).is_some_and(|object| held.contains(&object))
            {
                search.live(parts.at_leaf(wait.task, wait.leaf));
            }
        }
        // A thread that knows the lock has it, rather than a variable that it may have been moved from.
        for wait in waits.counting() {
            if holders.doubtful_lock(wait).any(|object| remains.on_stacks.contains(&object)) {
                search.live(parts.at_leaf(wait.task, wait.leaf));
            }
        }
        search.live(Node::Statics);
        search.spread();
        let held_back = std::mem::take(&mut search.held_back);
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

    /// The parts of tasks that nothing will wake.
    pub(super) fn stuck_parts(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.parts).filter(|(_, alive)| !**alive).map(|(part, _)| part)
    }

    /// The tasks that nothing will wake, in their order.
    pub(super) fn stuck(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.tasks).filter(|(_, alive)| !**alive).map(|(task, _)| task)
    }
}

impl Search<'_> {
    /// Whether a task can go on without any other: all of it that waits for `waits`.
    fn is_alive_itself(&self, number: u32, task: &Task, place: &Place, waits: &[Wait]) -> bool {
        if self.liveness.is_unwakeable(number) {
            return false;
        }
        if let [wait] = waits
            && wait.kind == ResourceKind::Lock
        {
            // A thread outside of all tasks lets go sooner or later, as far as we know.
            return !self.holders.threads(wait).is_empty() || self.holders.of_wait(wait).next().is_none();
        }
        let complete = self.holders.ownership.complete.get(number as usize) == Some(&true);
        let idle = match task.kind {
            TaskKind::Blocking => false,
            // Its memory does not tell whether a main future is being polled right now, in which case it is past what it
            // seems to wait for.
            TaskKind::Main => self.waits.mains_rest || waits.iter().all(|wait| holds_main(wait.kind)),
            _ => task.state == Some(TaskState::Idle),
        };
        if !idle || !complete || waits.is_empty() {
            return true;
        }
        // More wakers than what it waits for accounts for: something else that we do not see may wake it.
        let slots = self.holders.ownership.slots.get(number as usize).copied().unwrap_or(0);
        let handles = place.header.map_or(0, |of| self.holders.of_resource(of, Roles::ABORT).count() as u64);
        let explained = self.waits.of_task(number).len() as u64 + slots + handles;
        if wakers(place).is_some_and(|wakers| wakers > explained) {
            return true;
        }
        waits.iter().any(|wait| match wait.by {
            Waker::Outside | Waker::Task(None) => true,
            Waker::Task(Some(_)) => false,
            // Whoever holds a lock that nobody seems to hold was not found.
            Waker::Handles(_) => {
                let available = task.waits_on.get(wait.leaf).and_then(|on| on.available);
                self.holders.account(wait, available) == Account::Missing
                    || !is_lock(wait.kind) && self.holders.of_wait(wait).next().is_none()
            }
        })
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
