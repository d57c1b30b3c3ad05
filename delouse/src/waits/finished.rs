//! Finished tasks that handles keep.

use std::collections::{BTreeMap, HashSet};

use super::observation::{Observation, Observed};
use super::sample::Sample;
use crate::tasks::{Task, TaskState};

/// Fewer finished tasks may be joined soon.
const MANY: usize = 100;

/// The most finished tasks that were spawned at one line.
pub(super) fn check(last: &Sample, known: &HashSet<u64>) -> Option<Observation> {
    let mut finished: BTreeMap<Option<&str>, Vec<&Task>> = BTreeMap::new();
    let tasks = last.listing.tasks.iter().filter(|task| task.state == Some(TaskState::Complete));
    for task in tasks.filter(|task| !known.contains(&task.id)) {
        finished.entry(task.spawned_at.as_deref()).or_default().push(task);
    }
    let (_, most) = finished.into_iter().max_by_key(|(_, tasks)| tasks.len())?;
    let first = most.first().filter(|_| most.len() >= MANY)?;
    Some(Observation {
        tasks: most.iter().map(|task| task.id).collect(),
        count: most.len(),
        waiting: None,
        fact: Observed::FinishedTasks { spawned_at: first.spawned_at.clone() },
    })
}
