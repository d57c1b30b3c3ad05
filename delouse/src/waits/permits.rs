//! Tasks that wait for permits that nothing seems to have.

use std::collections::{BTreeMap, HashSet};

use super::observation::{Observation, Observed};
use super::sample::Sample;
use super::{Edge, Holder};
use crate::tasks::{ResourceKind, Task, WaitsOn};

/// The tasks that wait for a semaphore of which no task holds a permit, although it has fewer free ones than they want:
/// permits were forgotten, or more are wanted than there are. A semaphore with no permit and one waiter may be a signal.
pub(super) fn check(last: &Sample, known: &HashSet<u64>) -> Option<Observation> {
    let mut short: BTreeMap<&str, Vec<(&Edge, &Task, &WaitsOn)>> = BTreeMap::new();
    for edge in last.graph.edges.iter().filter(|edge| edge.resource.kind == ResourceKind::Semaphore) {
        // The waiter's own place in the queue has the permits that were assigned to it already.
        let is_no_holder = |holder: &Holder| holder.is_access() || holder.task == edge.waiter;
        let nothing_holds_it = edge.holders.iter().all(is_no_holder) && !edge.unknown_handles;
        let Some(task) = edge.waiter.filter(|id| !known.contains(id)).and_then(|id| last.task(id)) else {
            continue;
        };
        let of_edge = |on: &&WaitsOn| {
            on.kind == ResourceKind::Semaphore
                && on.address.map(|address| address.to_string()) == edge.resource.address
        };
        if let Some(on) = task.waits_on.iter().find(of_edge)
            && nothing_holds_it
        {
            short.entry(edge.resource.id.as_str()).or_default().push((edge, task, on));
        }
    }
    let is_short = |waits: &&Vec<(&Edge, &Task, &WaitsOn)>| {
        let free = waits.first().and_then(|(.., on)| on.available).unwrap_or(0);
        let wanted = waits.iter().filter_map(|(.., on)| on.wanted).max().unwrap_or(1);
        free < wanted && (wanted > 1 || waits.len() > 1)
    };
    let worst = short.values().filter(is_short).max_by_key(|waits| waits.len())?;
    let (edge, _, on) = worst.first()?;
    Some(Observation {
        tasks: worst.iter().map(|(_, task, _)| task.id).collect(),
        count: worst.len(),
        waiting: None,
        fact: Observed::NoPermits {
            place: edge.place.clone(),
            wanted: on.wanted.unwrap_or(1),
            free: on.available.unwrap_or(0),
        },
    })
}
