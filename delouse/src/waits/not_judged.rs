//! Tasks of which it is not known whether anything will wake them: a diagnosis without findings is no statement about
//! these.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::edges::Edges;
use super::liveness::{Doubtful, Liveness};
use super::unjudged::Unjudged;
use super::wait::Wait;
use super::{CodeLocation, Finding};
use crate::tasks::ResourceKind;

/// The most places that are listed; the others are counted.
const MAX_PLACES: usize = 64;
/// The most ids that are listed of one place.
const MAX_IDS: usize = 64;

/// Tasks that wait at one place, and why delouse cannot say whether they will continue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UnjudgedTasks {
    /// Ids of the tasks, the first few; 0 for a `main` future.
    pub(crate) tasks: Vec<u64>,
    /// The thread that drives it, where that tells several `main` futures apart.
    pub(crate) driver: Option<i32>,
    /// How many tasks there are.
    pub(crate) count: usize,
    /// The program's innermost function that waits.
    pub(crate) place: Option<Arc<CodeLocation>>,
    /// The type of the innermost future that waits.
    pub(crate) leaf: Option<Arc<str>>,
    /// What they wait for.
    pub(crate) resource: ResourceKind,
    /// The thread that is blocked in a lock.
    pub(crate) thread: Option<i32>,
    /// What is not known.
    pub(crate) why: Unjudged,
}

/// All tasks that are not judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UnjudgedList {
    /// First the places where the leaf itself is not judged; of these, the places with most tasks first.
    pub(crate) places: Vec<UnjudgedTasks>,
    /// How many tasks are at other places.
    pub(crate) more: usize,
}

/// Whether the doubt is about what the thread of a task waits for. Of that, nothing is said: only of what waits for the thread.
fn is_of_its_thread(edges: &Edges<'_, '_, '_, '_>, task: u32, doubtful: &Doubtful) -> bool {
    let of_thread = |wait: &Wait| wait.blocks_thread && !wait.kind.is_lock();
    doubtful
        .leaf
        .is_some_and(|leaf| edges.waits.of_task(task).iter().any(|wait| wait.leaf == leaf && of_thread(wait)))
}

impl UnjudgedList {
    /// The tasks that a diagnosis could not judge, without those that its findings are about.
    pub(super) fn of(liveness: &Liveness, edges: &mut Edges<'_, '_, '_, '_>, findings: &[Finding]) -> Self {
        let found: HashSet<u64> = findings.iter().flat_map(|finding| &finding.tasks).copied().collect();
        type Key =
            (Option<Arc<CodeLocation>>, Option<Arc<str>>, ResourceKind, Option<i32>, Option<i32>, Unjudged);
        let mut places: FxHashMap<Key, Vec<u64>> = FxHashMap::default();
        for doubtful in liveness.not_judged() {
            let Some(task) = edges.holders.ownership.parts.task_of(doubtful.node) else { continue };
            if edges.is_thread(task) || is_of_its_thread(edges, task, doubtful) {
                continue;
            }
            // Of several main futures, the thread tells which.
            let (id, driver) = match edges.identity(task) {
                (Some(id), _) => (id, None),
                (None, driver) => (0, driver),
            };
            if found.contains(&id) {
                continue;
            }
            // The wait that the reason is about, or the first one where it is about the task.
            let waits = edges.waits.of_task(task);
            let wait = match doubtful.leaf {
                Some(leaf) => waits.iter().find(|wait| wait.leaf == leaf),
                None => waits.first(),
            };
            let edge = wait.map(|wait| edges.edge(wait)).unwrap_or_default();
            let (place, leaf) = match (wait, doubtful.why) {
                (None, _) => (edges.of_stack(task), None),
                // The leaf of the task itself is known: only its place is of interest.
                (Some(_), Unjudged::Behind) => (edge.place.clone(), None),
                (Some(_), _) => (edge.place.clone(), edge.leaf.clone()),
            };
            let resource = if doubtful.leaf.is_some() { edge.resource.kind } else { ResourceKind::default() };
            // The type of the future does not show which lock its thread is blocked in.
            let thread = edge.thread.filter(|_| resource == ResourceKind::Lock);
            places.entry((place, leaf, resource, thread, driver, doubtful.why)).or_default().push(id);
        }
        let mut places: Vec<UnjudgedTasks> = places
            .into_iter()
            .map(|((place, leaf, resource, thread, driver, why), mut tasks)| {
                tasks.sort_unstable();
                tasks.dedup();
                let count = tasks.len();
                tasks.truncate(MAX_IDS);
                UnjudgedTasks { tasks, driver, count, place, leaf, resource, thread, why }
            })
            .collect();
        let key = |place: &UnjudgedTasks| {
            (place.leaf.is_none(), Reverse(place.count), place.tasks.first().copied())
        };
        places.sort_by_key(key);
        let more = places.iter().skip(MAX_PLACES).map(|place| place.count).sum();
        places.truncate(MAX_PLACES);
        Self { places, more }
    }

    /// Without the tasks that a later finding is about.
    pub(crate) fn without(mut self, findings: &[Finding]) -> Self {
        let found: HashSet<u64> = findings.iter().flat_map(|finding| &finding.tasks).copied().collect();
        for place in &mut self.places {
            let before = place.tasks.len();
            place.tasks.retain(|id| !found.contains(id));
            place.count -= before - place.tasks.len();
        }
        self.places.retain(|place| !place.tasks.is_empty());
        self
    }
}
