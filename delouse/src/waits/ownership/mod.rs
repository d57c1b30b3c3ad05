//! Who owns what: the handles and shared objects that tasks own, directly or through one another.
//!
//! The walk follows what is owned: fields, enum variants, `Box`, `&mut`, collections, `dyn` and the values
//! behind `Arc` and `Rc`. A shared object is walked once; its counters tell whether all who refer to it were
//! found. Plain references are not followed: what they lead to has an owner of its own.

mod collections;
mod ends;
mod labels;
mod parts;
mod plan;
mod standing;
mod variables;
mod walk;

pub(super) use labels::{Labels, PathId};
pub(super) use parts::Parts;
pub(in crate::waits) use plan::Plans;

use rustc_hash::FxHashSet;

use super::handles::{self, HandleFact};
use crate::tasks::{Examination, LeafPlace, TaskState};

/// One that can own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Node {
    /// A task, by its place in the listing.
    Task(u32),
    /// A part of a task, by its number: a branch of a `join!`.
    Part(u32),
    /// A shared object, by its number.
    Object(u32),
    /// The statics of the program.
    Statics,
}

/// A handle of a resource that somebody waits for.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    pub(super) owner: Node,
    pub(super) resource: u64,
    /// Permits that it holds; 1 where that means nothing.
    pub(super) permits: u64,
    /// Its place in the table of handles.
    pub(super) handle: u16,
    /// The way to it from its owner.
    pub(super) path: PathId,
    /// The way to a future that its task does not poll at the moment, and that it belongs to.
    pub(super) unpolled: Option<PathId>,
    /// A drop flag says that it may have been moved away or dropped, or its task runs.
    pub(super) uncertain: bool,
    /// Where it lies.
    pub(super) place: u64,
    /// It is no variable of a suspended function, which might have been moved away or dropped without a
    /// trace.
    pub(super) solid: bool,
    /// It is a variable of its own: nobody takes it out of there while its function is suspended.
    pub(super) kept: bool,
}

impl Holding {
    /// That of a task whose thread has the address of a lock on its stack.
    pub(super) fn on_stack(task: u32, lock: u64) -> Self {
        Self {
            owner: Node::Task(task),
            resource: lock,
            permits: 1,
            handle: handles::ON_STACK,
            path: PathId::default(),
            unpolled: None,
            uncertain: true,
            place: 0,
            solid: false,
            kept: false,
        }
    }

    /// A place in the queue that its task does poll: it has been given permits, and waits for more or is
    /// about to be woken. What its task waits for is what keeps it.
    pub(super) fn is_in_line(&self) -> bool {
        self.unpolled.is_none() && handles::at(self.handle).is_some_and(HandleFact::is_queue_place)
    }
}

/// A counted pointer to a shared object.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) owner: Node,
    pub(super) object: u32,
    pub(super) weak: bool,
    pub(super) path: PathId,
    pub(super) uncertain: bool,
    pub(super) unpolled: Option<PathId>,
    /// Where the pointer lies.
    pub(super) place: u64,
    /// It is no variable of a suspended function, which might have been moved away or dropped without a
    /// trace.
    pub(super) solid: bool,
}

/// A shared object: the value of an `Arc` or `Rc`.
#[derive(Debug, Clone)]
pub(super) struct Object {
    /// The complement of the address of its counters.
    pub(super) hidden: u64,
    pub(super) strong: u64,
    /// Weak pointers, without the one that stands for all strong ones.
    pub(super) weak: u64,
    /// Where its value lies.
    pub(super) value: u64,
    /// Not all of it could be walked.
    pub(super) cut: bool,
}

/// What all tasks own.
#[derive(Default)]
pub(super) struct Ownership {
    pub(super) holdings: Vec<Holding>,
    pub(super) references: Vec<Reference>,
    pub(super) objects: Vec<Object>,
    pub(super) labels: Labels,
    /// The branches that tasks wait in.
    pub(super) parts: Parts,
    /// Of each task, whether all that it owns was seen.
    pub(super) complete: Vec<bool>,
    /// Of each task, places where wakers of it may lie that it does not wait at now: receivers, timers and
    /// sockets that it polled before.
    pub(super) slots: Vec<u64>,
    /// Addresses and sizes of all values that were walked.
    values: Vec<(u64, u64)>,
    /// Functions with a variable whose place is not known.
    pub(super) unplaced: usize,
    /// Not all of what there was could be walked.
    pub(super) cut: bool,
}

/// Finds out what all tasks own, and goes on from there where more is asked for.
pub(super) struct Survey<'s, 'a, 'p, 'i> {
    plans: &'s Plans<'a, 'p, 'i>,
    walker: walk::Walker<'s, 'a, 'p, 'i>,
    parts: Parts,
    complete: Vec<bool>,
    slots: Vec<u64>,
}

impl<'s, 'a, 'p, 'i> Survey<'s, 'a, 'p, 'i> {
    /// Walks every task. Handles of resources that are not `wanted` are left out.
    pub(super) fn of(
        examination: &Examination<'_, '_, '_>,
        plans: &'s Plans<'a, 'p, 'i>,
        wanted: &'s FxHashSet<u64>,
    ) -> Self {
        let mut walker = walk::Walker::new(plans, wanted);
        let mut complete = Vec::with_capacity(examination.places.len());
        let mut slots = Vec::with_capacity(examination.places.len());
        let tasks = examination.listing.tasks.iter().zip(&examination.places);
        let mut parts = Parts::default();
        for (number, (task, place)) in (0..).zip(tasks) {
            // Where its thread is blocked, it is past what it seems to wait for.
            let running = task.state == Some(TaskState::Running);
            let mut all = place.future.is_none_or(|(of, at)| match running || task.thread.is_some() {
                true => walker.task(number, of, at, running),
                false => walker.suspended(number, (of, at), &place.leaves, &mut parts),
            });
            // What it drives on its thread's stack may be of the moment before.
            for (of, at) in &place.driven {
                all &= walker.task(number, *of, *at, true);
            }
            complete.push(all);
            slots.push(idle(&walker.slots, &place.leaves));
        }
        walker.objects();
        Self { plans, walker, parts, complete, slots }
    }

    /// Hands over what was found.
    pub(super) fn hand_over(&mut self) -> Ownership {
        let found = std::mem::take(&mut self.walker.found);
        Ownership {
            holdings: found.holdings,
            references: found.references,
            objects: found.objects,
            labels: self.plans.labels.take(),
            parts: std::mem::take(&mut self.parts),
            complete: std::mem::take(&mut self.complete),
            slots: std::mem::take(&mut self.slots),
            values: found.values,
            unplaced: found.unplaced,
            cut: self.walker.cut,
        }
    }

    /// Goes on from what was handed over, with the statics, whose types may take a second to find.
    ///
    /// Says whether any of it matters to tasks: whether there is a handle, or a reference to an object of theirs.
    pub(super) fn add_statics(
        &mut self,
        examination: &Examination<'_, '_, '_>,
        ownership: &mut Ownership,
    ) -> bool {
        let before = std::mem::take(ownership);
        let (holdings, references) = (before.holdings.len(), before.references.len());
        let objects = before.objects.len() as u32;
        self.walker.found = walk::Found {
            holdings: before.holdings,
            references: before.references,
            objects: before.objects,
            values: before.values,
            unplaced: before.unplaced,
        };
        self.plans.labels.replace(before.labels);
        (self.parts, self.complete, self.slots) = (before.parts, before.complete, before.slots);
        for (address, of) in examination.process.types.statics() {
            self.walker.of_static(*of, address.wrapping_add(examination.process.bias));
        }
        self.walker.objects();
        *ownership = self.hand_over();
        ownership.values.sort_unstable();
        let new = ownership.references.get(references..).unwrap_or_default();
        ownership.holdings.len() > holdings || new.iter().any(|reference| reference.object < objects)
    }
}

/// How many places for wakers are not waited at now.
fn idle(slots: &[u64], leaves: &[LeafPlace]) -> u64 {
    if slots.is_empty() {
        return 0;
    }
    let places = leaves.iter().flat_map(|leaf| [Some(leaf.at), leaf.resource, leaf.address]);
    let waits: FxHashSet<u64> = places.flatten().collect();
    slots.iter().filter(|slot| !waits.contains(slot)).count() as u64
}

impl Ownership {
    /// Whether an address lies in a value that was walked. After [`Survey::add_statics`].
    pub(super) fn was_walked(&self, address: u64) -> bool {
        let after = self.values.partition_point(|(start, _)| *start <= address);
        // Values lie inside of one another: the outermost of those that begin before is not far.
        let before = self.values.get(after.saturating_sub(64)..after).unwrap_or_default();
        before.iter().any(|(start, size)| address - start < *size)
    }
}
