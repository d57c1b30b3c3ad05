//! Tells handles that are alive from what is left of handles.
//!
//! A variable that was moved or dropped before an `.await` may still be listed among those of the function,
//! with its bytes in place, and nothing in the debug information tells. Counted as alive, it makes up for a
//! handle that was not found: a sender that was moved into a static looks as if the task still had it. But a
//! handle that was not found lies somewhere, and has the same address in it. So all of memory is asked, once,
//! and only when something looks stuck.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::holders::Holders;
use super::ownership::PathId;
use crate::tasks::{Examination, MemoryPlace as Place};

/// Memory that is looked at; two seconds.
const MAX_MEMORY: u64 = 4 << 30;

/// What memory says of the objects that were asked about.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// Objects that a static or a thread refers to.
    pub(super) held: Vec<u32>,
    /// Objects whose address stands elsewhere on the heap: in a handle that was not found, or in what is left
    /// of one.
    pub(super) doubtful: HashSet<u32>,
}

/// Looks through memory for references to `objects` that were not found.
pub(super) fn look(
    examination: &Examination<'_, '_, '_>,
    holders: &Holders,
    objects: &BTreeSet<u32>,
) -> Remains {
    let asked: Vec<u32> = objects.iter().copied().filter(|object| !is_solid(holders, *object)).collect();
    if asked.is_empty() {
        return Remains::default();
    }
    let hidden = |object: &u32| holders.ownership.objects.get(*object as usize).map(|of| of.hidden);
    let numbers: HashMap<u64, u32> =
        asked.iter().filter_map(|object| Some((hidden(object)?, *object))).collect();
    let references = asked.iter().flat_map(|object| holders.references_to(*object));
    let places: HashSet<u64> = references.map(|reference| reference.place).collect();
    let (lowest, highest) = (numbers.keys().min().copied(), numbers.keys().max().copied());
    let wanted = !highest.unwrap_or(0)..=!lowest.unwrap_or(0);
    let (mut held, mut elsewhere) = (BTreeSet::new(), HashSet::new());
    let all = examination.words_in_use(wanted, MAX_MEMORY, |address, word, place| {
        if let Some(object) = numbers.get(&!word)
            && !places.contains(&address)
            && !holders.ownership.was_walked(address)
        {
            match place {
                Place::Static | Place::Stack => held.insert(*object),
                Place::Heap => elsewhere.insert(*object),
            };
        }
    });
    if !all {
        elsewhere.extend(asked.iter().copied());
    }
    // Whether a variable is alive at an `.await` is the same for all tasks that stand there, unless a flag
    // says otherwise. What is proven for one is true for all of them.
    let free = |object: &&u32| !held.contains(*object) && !elsewhere.contains(*object);
    let references = asked.iter().filter(free).flat_map(|object| holders.references_to(*object));
    let proven: HashSet<(PathId, bool)> =
        references.map(|reference| (reference.path, reference.uncertain)).collect();
    let in_doubt = |object: &u32| {
        holders
            .references_to(*object)
            .any(|reference| !reference.solid && !proven.contains(&(reference.path, reference.uncertain)))
    };
    Remains {
        held: held.into_iter().filter(|object| in_doubt(object)).collect(),
        doubtful: elsewhere.into_iter().filter(|object| in_doubt(object)).collect(),
    }
}

/// Whether the references to an object that are alive beyond doubt are all that there are.
fn is_solid(holders: &Holders, object: u32) -> bool {
    let Some(of) = holders.ownership.objects.get(object as usize) else { return false };
    let solid = holders.references_to(object).filter(|reference| reference.solid && !reference.uncertain);
    let (weak, strong): (Vec<_>, Vec<_>) = solid.partition(|reference| reference.weak);
    strong.len() as u64 == of.strong && weak.len() as u64 == of.weak
}
