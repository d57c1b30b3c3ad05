//! Finished tasks whose results are kept, and what keeps them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::CodeLocation;
use super::kept::Keeper;
use super::observation::{Observation, Observed};
use super::sample::Sample;
use crate::tasks::{Examination, Task, TaskState};

/// Fewer finished tasks may be joined soon.
pub(super) const MANY: usize = 100;
/// The most tasks whose variables are searched for what keeps results.
const MAX_TASKS: usize = 128;

/// What finished tasks have in common that are one group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FinishedKind {
    /// The function whose future they were.
    pub(super) function: Option<CodeLocation>,
    /// `file:line:column` of the spawning call, where it is known.
    pub(super) spawned_at: Option<Arc<str>>,
}

/// Tasks that have finished, whose results nothing has taken, in groups.
pub(super) fn groups<'t>(tasks: impl Iterator<Item = &'t Task>) -> BTreeMap<FinishedKind, Vec<&'t Task>> {
    let mut groups: BTreeMap<FinishedKind, Vec<&Task>> = BTreeMap::new();
    for task in tasks.filter(|task| task.state == Some(TaskState::Complete)) {
        let function = task.completed.as_deref().map(CodeLocation::of_frame);
        groups.entry(FinishedKind { function, spawned_at: task.spawned_at.clone() }).or_default().push(task);
    }
    groups
}

/// The variable of a task with the most handles, if many tasks have finished.
pub(super) fn keeper(examination: &Examination<'_, '_, '_>) -> Option<Keeper> {
    let tasks = &examination.listing.tasks;
    let finished = tasks.iter().filter(|task| task.state == Some(TaskState::Complete));
    if finished.take(MANY).count() < MANY {
        return None;
    }
    let found = examination.inputs_of_waiting(MAX_TASKS).filter_map(|(task, input)| {
        let handles = input.handles.filter(|handles| *handles >= MANY as u64)?;
        let place = input.function.as_ref().map(|frame| CodeLocation::of_frame(frame).into());
        Some(Keeper { task, variable: input.variable, place, handles })
    });
    found.max_by_key(|keeper| keeper.handles)
}

/// The largest group of finished tasks.
pub(super) fn check(last: &Sample, known: &HashSet<u64>) -> Option<Observation> {
    let groups = groups(last.listing.tasks.iter().filter(|task| !known.contains(&task.id)));
    let (kind, tasks) = groups.into_iter().max_by_key(|(_, tasks)| tasks.len())?;
    if tasks.len() < MANY {
        return None;
    }
    Some(Observation {
        tasks: tasks.iter().map(|task| task.id).collect(),
        count: tasks.len(),
        waiting: None,
        fact: Observed::FinishedTasks {
            function: kind.function,
            spawned_at: kind.spawned_at,
            keeper: last.keeper.clone(),
        },
    })
}
