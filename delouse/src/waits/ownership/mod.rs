//! Who owns what: the handles and shared objects that tasks own, directly or through one another.
//!
//! The walk follows what is owned: fields, enum variants, `Box`, `&mut`, collections, `dyn` and the values
//! behind `Arc` and `Rc`. A shared object is walked once; its counters tell whether all who refer to it were
//! found. Plain references are not followed: what they lead to has an owner of its own.

mod collections;
mod labels;
mod plan;
mod walk;

pub(super) use labels::{Labels, PathId};

use rustc_hash::FxHashSet;

use super::handles::{self, HandleFact};
use crate::tasks::{Examination, TaskState};

/// One that can own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Node {
    /// A task, by its place in the listing.
    Task(u32),
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
    /// Of each task, whether all that it owns was seen.
    pub(super) complete: Vec<bool>,
    /// Of each task, places where wakers of it may lie that it does not wait at now: receivers, timers and
    /// sockets that it polled before.
    pub(super) slots: Vec<u64>,
    /// Addresses and sizes of all values that were walked, ordered by address.
    values: Vec<(u64, u64)>,
    pub(super) notes: Vec<String>,
}

impl Ownership {
    /// Walks every task, and the `statics` where asked to: their types may take a second to find. Handles of
    /// resources that are not `wanted` are left out.
    pub(super) fn of(examination: &Examination<'_, '_, '_>, wanted: &FxHashSet<u64>, statics: bool) -> Self {
        let plans = plan::Plans::new(examination.process);
        let mut walker = walk::Walker::new(&plans, wanted);
        let mut complete = Vec::with_capacity(examination.places.len());
        let mut slots = Vec::with_capacity(examination.places.len());
        let tasks = examination.listing.tasks.iter().zip(&examination.places);
        for (number, (task, place)) in (0..).zip(tasks) {
            let running = task.state == Some(TaskState::Running);
            let all = place.future.is_none_or(|(of, at)| walker.task(number, of, at, running));
            complete.push(all);
            let waits: FxHashSet<u64> = place
                .leaves
                .iter()
                .flat_map(|leaf| [Some(leaf.at), leaf.resource, leaf.address])
                .flatten()
                .collect();
            let idle = |resource: &&u64| !waits.contains(resource);
            slots.push(walker.slots.iter().filter(idle).count() as u64);
        }
        if statics {
            for (address, of) in examination.process.types.statics() {
                walker.of_static(*of, address.wrapping_add(examination.process.bias));
            }
        }
        walker.objects();
        let mut found = walker.found;
        found.values.sort_unstable();
        Self {
            holdings: found.holdings,
            references: found.references,
            objects: found.objects,
            labels: plans.labels.into_inner(),
            complete,
            slots,
            values: found.values,
            notes: found.notes,
        }
    }

    /// Whether an address lies in a value that was walked.
    pub(super) fn was_walked(&self, address: u64) -> bool {
        let after = self.values.partition_point(|(start, _)| *start <= address);
        // Values lie inside of one another: the outermost of those that begin before is not far.
        let before = self.values.get(after.saturating_sub(64)..after).unwrap_or_default();
        before.iter().any(|(start, size)| address - start < *size)
    }
}
