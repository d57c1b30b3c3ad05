//! Ownership: the handles and shared objects that tasks own, directly or through one another.
//!
//! The walk follows what is owned: fields, enum variants, `Box`, `&mut`, collections, `dyn` and the values behind `Arc`
//! and `Rc`. A shared object is walked once; its counters say whether all references to it were found. Plain references
//! are not followed: their targets have other owners.

mod parts;
mod paths;
mod walk;
mod walk_context;

pub(super) use parts::Parts;
pub(super) use paths::{PathId, Paths};

use rustc_hash::{FxHashMap, FxHashSet};

use super::wait::{ResourceKey, thread_in_call};
use crate::snapshot::{Address, Hidden};
use crate::tasks::layout::handles::{self, HandleFact};
use crate::tasks::{Examination, LeafPlace, OwnFrames, TaskState};

/// An owner of handles and shared objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Node {
    /// A task, by its index in the listing.
    Task(u32),
    /// A part of a task, by its number: a branch of a `join!`.
    Part(u32),
    /// A shared object, by its number.
    Object(u32),
    /// The statics of the program.
    Statics,
}

/// A handle of a resource that has waiters.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    pub(super) owner: Node,
    /// An address until [`Holders`] indexes it by what it wakes.
    ///
    /// [`Holders`]: super::holders::Holders
    pub(super) resource: ResourceKey,
    /// The number of permits that it holds; 1 for a handle without permits.
    pub(super) permits: u64,
    /// Of a channel's handle: how many handles the other end has, where the channel counts them.
    pub(super) others: Option<u64>,
    /// Its index in the table of handles.
    pub(super) handle: u16,
    /// The path from its owner to it.
    pub(super) path: PathId,
    /// If it is inside a future that its task does not poll at the moment: the path to that future.
    pub(super) unpolled: Option<PathId>,
    /// It may have been moved or dropped: a drop flag says so, or its task is running.
    pub(super) uncertain: bool,
    /// Its address; null if that is not known.
    pub(super) place: Address,
    /// It is not a variable of a suspended function: that may have been moved or dropped without a trace in memory.
    pub(super) solid: bool,
    /// It is a whole variable, not a part of one: no other code can take it while its function is suspended.
    pub(super) kept: bool,
}

impl Holding {
    /// The holding of a task whose thread has the address of a lock on its stack.
    pub(super) fn on_stack(task: u32, lock: ResourceKey) -> Self {
        Self {
            owner: Node::Task(task),
            resource: lock,
            permits: 1,
            others: None,
            handle: handles::ON_STACK,
            path: PathId::default(),
            unpolled: None,
            uncertain: true,
            place: Address::NULL,
            solid: false,
            kept: false,
        }
    }

    /// The holding of a task whose thread has the address of another resource on its stack.
    pub(super) fn on_waiting_stack(task: u32, resource: ResourceKey) -> Self {
        Self { handle: handles::ON_WAITING_STACK, ..Self::on_stack(task, resource) }
    }

    /// Whether it is a place in the queue of a lock, in a future that its task polls. Some permits are assigned to it
    /// already; its task waits for the others, or is about to be woken. The holders of the other permits are what
    /// blocks the task.
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
    /// It is part of a handle that can only add messages to the queue in the object: it does not own these.
    pub(super) only_adds: bool,
    /// Address of the pointer; null if that is not known.
    pub(super) place: Address,
    /// It is not a variable of a suspended function: that may have been moved or dropped without a trace in memory.
    pub(super) solid: bool,
    /// It is part of a value that was reached through a raw pointer, and that may have another owner.
    pub(super) borrowed: bool,
}

/// A shared object: the value of an `Arc` or `Rc`.
#[derive(Debug, Clone)]
pub(super) struct Object {
    /// The address of its counters.
    pub(super) counters: Hidden,
    pub(super) strong: u64,
    /// Weak pointers, without the one that all strong pointers have in common.
    pub(super) weak: u64,
    /// Address of its value; null if that is not known.
    pub(super) value: Address,
    /// Not all of it could be walked.
    pub(super) cut: bool,
}

/// What all tasks own.
#[derive(Default)]
pub(super) struct Ownership {
    pub(super) holdings: Vec<Holding>,
    pub(super) references: Vec<Reference>,
    pub(super) objects: Vec<Object>,
    pub(super) paths: Paths,
    /// The branches that tasks wait in.
    pub(super) parts: Parts,
    /// Of each task, whether all that it owns was seen.
    pub(super) complete: Vec<bool>,
    /// For each task, the number of places that may store a waker of it although it does not wait there now: receivers,
    /// timers and sockets that it polled before.
    pub(super) slots: Vec<u64>,
    /// Addresses and sizes of all values that were walked.
    values: Vec<(Address, u64)>,
    /// The number of functions with a variable whose place is not known.
    pub(super) unplaced: usize,
    /// The walk is incomplete: it reached a limit.
    pub(super) cut: bool,
}

/// Finds what all tasks own; [`Survey::add_statics`] continues with the statics.
pub(super) struct Survey<'s, 'p, 'i> {
    walker: walk::Walker<'s, 'p, 'i>,
    parts: Parts,
    complete: Vec<bool>,
    slots: Vec<u64>,
}

impl<'s, 'p, 'i> Survey<'s, 'p, 'i> {
    /// Walks every task. Handles of resources that are not `wanted` are left out. `blocked`: the locks that threads wait
    /// for; `in_primitive`: whether the thread of a task waits in a primitive that blocks it.
    pub(super) fn of(
        examination: &Examination<'s, 'p, 'i>,
        wanted: &'s FxHashSet<Hidden>,
        blocked: &FxHashMap<i32, Address>,
        in_primitive: impl Fn(u32) -> bool,
    ) -> Self {
        let mut walker = walk::Walker::new(examination.process, examination.layouts, wanted);
        let mut complete = Vec::with_capacity(examination.places.len());
        let mut slots = Vec::with_capacity(examination.places.len());
        let tasks = examination.listing.tasks.iter().zip(&examination.places);
        let mut parts = Parts::default();
        let mut shared_locks = Vec::new();
        let own_frames: FxHashMap<i32, &OwnFrames> =
            examination.listing.own_frames.iter().map(|(tid, own)| (*tid, own)).collect();
        for (number, (task, place)) in (0..).zip(tasks) {
            let before = walker.found.counts();
            // A task that a thread polls has passed the leaves at which it was suspended last.
            let running = task.state == Some(TaskState::Running);
            let mut all = place.future.is_none_or(|(of, at)| match running || task.thread.is_some() {
                true => walker.task(number, of, at, running),
                false => walker.suspended(number, (of, at), &place.leaves, &mut parts),
            });
            // A future that is being driven on the thread's stack may have changed since it was last stored.
            for (of, at) in &place.driven {
                all &= walker.task(number, *of, *at, true);
            }
            let lock = task.thread.and_then(|tid| blocked.get(&tid));
            if let (Some(lock), Some(future)) = (lock, place.future) {
                walker.own_guards(number, future, *lock);
            }
            slots.push(idle(&walker.slots, &place.leaves));
            // What a thread has around a call that blocks it stays as it is until the call returns.
            let blocked_thread = task.thread.filter(|_| lock.is_some() || in_primitive(number));
            let around = thread_in_call(task).or(blocked_thread).and_then(|tid| own_frames.get(&tid));
            walker.variables_around(number, around.map_or(&[], |own| own.variables.as_slice()), before);
            shared_locks.extend(lock.map(|lock| (number, *lock)));
            complete.push(all);
        }
        walker.objects();
        shared_locks.into_iter().for_each(|(number, lock)| walker.own_shared_guards(number, lock));
        Self { walker, parts, complete, slots }
    }

    /// Returns everything that was found, and keeps nothing of it.
    pub(super) fn hand_over(&mut self) -> Ownership {
        let found = std::mem::take(&mut self.walker.found);
        Ownership {
            holdings: found.holdings,
            references: found.references,
            objects: found.objects,
            paths: std::mem::take(&mut self.walker.paths),
            parts: std::mem::take(&mut self.parts),
            complete: std::mem::take(&mut self.complete),
            slots: std::mem::take(&mut self.slots),
            values: found.values,
            unplaced: found.unplaced,
            cut: self.walker.cut,
        }
    }

    /// Walks the statics, too, and adds what they own to `ownership`. It may take a second to find their types.
    ///
    /// Returns whether this may affect tasks: whether a handle was found, or a reference to an object that tasks refer
    /// to.
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
        self.walker.paths = before.paths;
        (self.parts, self.complete, self.slots) = (before.parts, before.complete, before.slots);
        for (address, of) in examination.process.types.statics() {
            self.walker.of_static(*of, examination.process.bias.process_address(*address));
        }
        self.walker.objects();
        *ownership = self.hand_over();
        ownership.order_values();
        let new = ownership.references.get(references..).unwrap_or_default();
        ownership.holdings.len() > holdings || new.iter().any(|reference| reference.object < objects)
    }
}

/// How many of `slots` are not among the places at which the task waits now.
fn idle(slots: &[Address], leaves: &[LeafPlace]) -> u64 {
    if slots.is_empty() {
        return 0;
    }
    let places = leaves.iter().flat_map(|leaf| [Some(leaf.at), leaf.resource, leaf.address]);
    let waits: FxHashSet<Address> = places.flatten().collect();
    slots.iter().filter(|slot| !waits.contains(slot)).count() as u64
}

impl Ownership {
    /// Prepares for [`Self::was_walked`].
    pub(super) fn order_values(&mut self) {
        self.values.sort_unstable();
    }

    /// Whether an address is inside a value that was walked. Only after [`Self::order_values`].
    pub(super) fn was_walked(&self, address: Address) -> bool {
        let after = self.values.partition_point(|(start, _)| *start <= address);
        // Values contain one another: the value that contains the address is one of the last that start before it.
        let before = self.values.get(after.saturating_sub(64)..after).unwrap_or_default();
        before.iter().any(|(start, size)| address.offset_from(*start).is_some_and(|offset| offset < *size))
    }
}
