//! Tells handles that are alive from what is left of handles.
//!
//! A variable that was moved or dropped before an `.await` may still be listed among those of the function,
//! with its bytes in place, and nothing in the debug information tells. Counted as alive, it makes up for a
//! handle that was not found: a sender that was moved into a static looks as if the task still had it. But a
//! handle that was not found lies somewhere, and has the same address in it. So all of memory is asked, once,
//! and only when something looks stuck.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use super::holders::{Account, Holders};
use super::ownership::PathId;
use crate::tasks::{Examination, MemoryPlace as Place};

/// Memory that is looked at: half a second of an image, two seconds of anything else.
const MAX_MEMORY: u64 = 4 << 30;

/// What memory says of the objects that were asked about.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// Objects that a static or a thread refers to.
    pub(super) held: Vec<u32>,
    /// Objects that a thread refers to which is no idle one of a runtime: it may have a guard of a lock in it.
    pub(super) on_stacks: BTreeSet<u32>,
    /// Objects whose address stands elsewhere on the heap, or on the stack of a thread that may run anything: in a handle
    /// that was not found, or in what is left of one.
    pub(super) doubtful: FxHashSet<u32>,
    /// Objects that nothing refers to but what was found: some of that may be what is left of handles, too.
    pub(super) confined: FxHashSet<u32>,
}

/// Whether all of what keeps `objects` is known beyond doubt, so that nothing has to be looked for.
pub(super) fn are_solid(holders: &Holders, objects: &BTreeSet<u32>) -> bool {
    objects.iter().all(|object| is_solid(holders, *object))
}

/// Looks through memory for references to `objects` that were not found.
pub(super) fn look(
    examination: &Examination<'_, '_, '_>,
    holders: &Holders,
    objects: &BTreeSet<u32>,
) -> Remains {
    let asked: Vec<u32> = objects.iter().copied().filter(|object| !is_solid(holders, *object)).collect();
    if asked.is_empty() {
        return Remains { confined: objects.iter().copied().collect(), ..Remains::default() };
    }
    let hidden = |object: &u32| holders.ownership.objects.get(*object as usize).map(|of| of.hidden);
    let numbers: FxHashMap<u64, u32> =
        asked.iter().filter_map(|object| Some((hidden(object)?, *object))).collect();
    let references = asked.iter().flat_map(|object| holders.references_to(*object));
    let places: FxHashSet<u64> = references.map(|reference| reference.place).collect();
    let (lowest, highest) = (numbers.keys().min().copied(), numbers.keys().max().copied());
    let wanted = !highest.unwrap_or(0)..=!lowest.unwrap_or(0);
    let (mut held, mut on_stacks) = (BTreeSet::new(), BTreeSet::new());
    let mut elsewhere = FxHashSet::default();
    let all = examination.words_in_use(wanted, MAX_MEMORY, |address, word, place| {
        if let Some(object) = numbers.get(&!word)
            && !places.contains(&address)
            && !holders.ownership.was_walked(address)
        {
            match place {
                Place::Static => held.insert(*object),
                Place::Stack => on_stacks.insert(*object) | held.insert(*object),
                // On the stack of a thread that may run anything, it is a handle or what is left of one, as on the heap.
                Place::Heap | Place::RuntimeStack => elsewhere.insert(*object),
            };
        }
    });
    if !all {
        elsewhere.extend(asked.iter().copied());
    }
    let sees_all = examination.sees_all_threads();
    // Whether a variable is alive at an `.await` is the same for all tasks that stand there, unless a flag
    // says otherwise. What is proven for one is true for all of them.
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
    Remains {
        held: held.into_iter().filter(|object| in_doubt(object)).collect(),
        on_stacks,
        doubtful: elsewhere.into_iter().filter(|object| in_doubt(object)).collect(),
        confined,
    }
}

/// Whether the references to an object that are alive beyond doubt are all that there are.
fn is_solid(holders: &Holders, object: u32) -> bool {
    let Some(of) = holders.ownership.objects.get(object as usize) else { return false };
    let solid = holders.references_to(object).filter(|reference| reference.solid && !reference.uncertain);
    let (weak, strong): (Vec<_>, Vec<_>) = solid.partition(|reference| reference.weak);
    strong.len() as u64 == of.strong && weak.len() as u64 == of.weak
}
