//! Distinguishes living handles from stale copies of handles.
//!
//! A variable that was moved or dropped before an `.await` may still be listed among those of the function, with its
//! old bytes; debug information does not show that it is gone. If it is counted as alive, it hides a handle that was
//! not found: a sender that was moved into a static seems to be owned by the task. But the handle that was not found is
//! in memory, and contains the same address. So all of memory is searched, once, and only if something seems to be
//! stuck.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use super::account::Account;
use super::holders::Holders;
use super::ownership::{PathId, Reference};
use super::threads::ThreadNodes;
use super::wait::sleeping;
use crate::snapshot::{Address, Hidden};
use crate::tasks::{Examination, MemoryPlace as Place};

/// The most memory that is searched. This takes half a second in an image, two seconds elsewhere.
const MAX_MEMORY: u64 = 4 << 30;

/// Where else in memory the addresses of suspected objects were found.
#[derive(Debug, Default)]
pub(super) struct StaleReferences {
    /// Objects that a static or a thread refers to.
    pub(super) held: Vec<u32>,
    /// Objects to which a thread refers that is not an idle thread of a runtime: it may have a guard of a lock in the
    /// object.
    pub(super) on_stacks: BTreeSet<u32>,
    /// Objects whose address is elsewhere on the heap, or on the stack of a thread that may run any code: in a handle
    /// that was not found, or in a stale copy of one.
    pub(super) doubtful: FxHashSet<u32>,
    /// Objects to which nothing refers except the references that were found, some of which may be stale.
    pub(super) confined: FxHashSet<u32>,
}

/// Whether all references to `objects` are known for certain, so that no search is necessary.
pub(super) fn are_solid(holders: &Holders, objects: &BTreeSet<u32>) -> bool {
    objects.iter().all(|object| is_solid(holders, *object))
}

/// Searches memory for references to `objects` that were not found.
pub(super) fn sample(
    examination: &Examination<'_, '_, '_>,
    holders: &Holders,
    objects: &BTreeSet<u32>,
    threads: &ThreadNodes,
) -> StaleReferences {
    let asked: Vec<u32> = objects.iter().copied().filter(|object| !is_solid(holders, *object)).collect();
    if asked.is_empty() {
        return StaleReferences { confined: objects.iter().copied().collect(), ..StaleReferences::default() };
    }
    let counters = |object: &u32| holders.ownership.objects.get(*object as usize).map(|of| of.counters);
    let numbers: FxHashMap<Hidden, u32> =
        asked.iter().filter_map(|object| Some((counters(object)?, *object))).collect();
    let references = asked.iter().flat_map(|object| holders.references_to(*object));
    let places: FxHashSet<Address> = references.map(|reference| reference.place).collect();
    let wanted = Hidden::range(numbers.keys());
    let waited_for = waited_for(examination, holders);
    let sleeping = sleeping(examination);
    let is_its_own =
        |tid: i32, object: u32| {
            let owner = |of: &Reference| holders.ownership.parts.task_of(of.owner);
            sleeping.get(&tid).copied().or_else(|| threads.waiting(tid)).is_some_and(|task| {
                holders.references_to(object).any(|reference| owner(reference) == Some(task))
            })
        };
    let (mut held, mut on_stacks) = (BTreeSet::new(), BTreeSet::new());
    let mut elsewhere = FxHashSet::default();
    let all = examination.words_in_use(wanted, MAX_MEMORY, |address, word, place| {
        if let Some(object) = numbers.get(&word.into())
            && !places.contains(&address)
            && !holders.ownership.was_walked(address)
        {
            match place {
                Place::Static => held.insert(*object),
                // What it waits with: it can do nothing with that until the wait has ended.
                Place::DrivingStack(tid) if waited_for.contains(&(tid, *object)) => false,
                Place::DrivingStack(tid) if threads.has(tid, *object, holders) => false,
                // What its task was found to have.
                Place::DrivingStack(tid) if is_its_own(tid, *object) => false,
                Place::Stack | Place::DrivingStack(_) => on_stacks.insert(*object) | held.insert(*object),
                // On the stack of a thread that may run any code, it is a handle or a stale copy of one, as on the
                // heap.
                Place::Heap | Place::RuntimeStack => elsewhere.insert(*object),
            };
        }
    });
    if !all {
        elsewhere.extend(asked.iter().copied());
    }
    let sees_all = examination.sees_all_threads();
    // A variable is alive either for all tasks suspended at an `.await` or for none, unless there is a drop flag. What
    // is proven for one task is true for all of them.
    let alone = |object: &u32| !held.contains(object) && !elsewhere.contains(object);
    let confined: FxHashSet<u32> =
        objects.iter().copied().filter(|object| sees_all && alone(object)).collect();
    let asked = asked.iter().filter(|object| alone(object));
    let exact = asked.filter(|object| holders.account_of_object(**object) == Account::Exact);
    let references = exact.flat_map(|object| holders.references_to(*object));
    let proven: FxHashSet<(PathId, bool)> =
        references.map(|reference| (reference.path, reference.uncertain)).collect();
    let in_doubt = |object: &u32| {
        holders
            .references_to(*object)
            .any(|reference| !reference.solid && !proven.contains(&(reference.path, reference.uncertain)))
    };
    StaleReferences {
        held: held.into_iter().filter(|object| in_doubt(object)).collect(),
        on_stacks,
        doubtful: elsewhere.into_iter().filter(|object| in_doubt(object)).collect(),
        confined,
    }
}

/// The objects with which threads wait in calls that block them: the channel itself, or what contains the lock.
fn waited_for(examination: &Examination<'_, '_, '_>, holders: &Holders) -> FxHashSet<(i32, u32)> {
    let tasks = examination.listing.tasks.iter().zip(&examination.places);
    let of = tasks.filter_map(|(task, place)| Some((task.drives.last()?.call.thread, place)));
    of.flat_map(|(tid, place)| {
        let resources = place.leaves.iter().filter_map(|leaf| leaf.address);
        resources.flat_map(move |resource| holders.objects_of(resource).map(move |object| (tid, object)))
    })
    .collect()
}

/// Whether the references to an object that are certainly alive are all that exist.
fn is_solid(holders: &Holders, object: u32) -> bool {
    let Some(of) = holders.ownership.objects.get(object as usize) else { return false };
    let solid = holders.references_to(object).filter(|reference| reference.solid && !reference.uncertain);
    let (weak, strong): (Vec<_>, Vec<_>) = solid.partition(|reference| reference.weak);
    strong.len() as u64 == of.strong && weak.len() as u64 == of.weak
}
