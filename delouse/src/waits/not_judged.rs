//! Tasks of which it is not known whether anything will wake them: a diagnosis that finds nothing says nothing of those.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edges::Teller;
use super::liveness::{Liveness, Unjudged};
use super::resources::Wait;
use super::{Edge, Finding};
use crate::tasks::ResourceKind;

/// Places that are listed; what more there is is counted.
const MAX_PLACES: usize = 64;
/// Ids that are listed of one place.
const MAX_IDS: usize = 64;

/// Tasks that wait at one place, and why delouse cannot say whether they will go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotJudged {
    /// Ids of the tasks, the first few; 0 for a `main` future.
    pub tasks: Vec<u64>,
    /// How many tasks there are.
    pub count: usize,
    /// `function at file:line` of the program's innermost function that waits.
    pub place: Option<Arc<str>>,
    /// The type of the innermost future that waits.
    pub leaf: Option<Arc<str>>,
    /// What is not known.
    pub reason: String,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NotJudgedList {
    /// Those first whose own leaf is not judged, and of these the places with most tasks.
    pub(crate) places: Vec<NotJudged>,
    /// How many tasks are at other places.
    pub(crate) more: usize,
}

impl NotJudgedList {
    /// What a diagnosis could not judge, without the tasks that its findings are about.
    pub(super) fn of(liveness: &Liveness, teller: &mut Teller<'_, '_, '_, '_>, findings: &[Finding]) -> Self {
        let found: HashSet<u64> = findings.iter().flat_map(|finding| &finding.tasks).copied().collect();
        type Key = (Option<Arc<str>>, Option<Arc<str>>, String);
        let mut places: FxHashMap<Key, Vec<u64>> = FxHashMap::default();
        for (node, why) in liveness.not_judged() {
            let Some(task) = teller.holders.ownership.parts.task_of(*node) else { continue };
            let id = teller.id(task);
            if found.contains(&id) {
                continue;
            }
            let wait = wait(teller, task, *why);
            let edge = wait.map(|wait| teller.edge(wait)).unwrap_or_default();
            let (place, leaf) = match (wait, why) {
                (None, _) => (teller.of_stack(task), None),
                // Its own leaf is known.
                (Some(_), Unjudged::Behind) => (edge.place.clone(), None),
                (Some(_), _) => (edge.place.clone(), edge.leaf.clone()),
            };
            places.entry((place, leaf, reason(*why, &edge))).or_default().push(id);
        }
        let mut places: Vec<NotJudged> = places
            .into_iter()
            .map(|((place, leaf, reason), mut tasks)| {
                tasks.sort_unstable();
                tasks.dedup();
                let count = tasks.len();
                tasks.truncate(MAX_IDS);
                NotJudged { tasks, count, place, leaf, reason }
            })
            .collect();
        let key =
            |place: &NotJudged| (place.leaf.is_none(), Reverse(place.count), place.tasks.first().copied());
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

/// The wait that the reason is about; the first one where it is about the task.
fn wait<'t>(teller: &Teller<'t, '_, '_, '_>, task: u32, why: Unjudged) -> Option<&'t Wait> {
    let waits = teller.waits.of_task(task);
    match why {
        Unjudged::UnknownFuture(leaf)
        | Unjudged::UnknownResource(leaf)
        | Unjudged::UnknownHandles(leaf)
        | Unjudged::UnknownTask(leaf)
        | Unjudged::MoreHandles(leaf)
        | Unjudged::NoHandles(leaf) => waits.iter().find(|wait| wait.leaf == leaf),
        Unjudged::NoFuture
        | Unjudged::Unread
        | Unjudged::MoreWakers
        | Unjudged::OpenBranch
        | Unjudged::Behind => waits.first(),
    }
}

fn reason(why: Unjudged, edge: &Edge) -> String {
    let what = ends(edge.resource.kind);
    match why {
        Unjudged::NoFuture => "its future could not be read".to_owned(),
        Unjudged::UnknownFuture(_) => "delouse does not know what this type of future waits for".to_owned(),
        Unjudged::UnknownResource(_) => "it could not be read what it waits for".to_owned(),
        Unjudged::UnknownHandles(_) => {
            format!("delouse does not know {what}: it knows no handles of this type")
        }
        Unjudged::UnknownTask(_) => "the task that it waits for was not found".to_owned(),
        Unjudged::MoreHandles(_) => {
            format!("delouse does not know {what}: more handles exist than were found")
        }
        Unjudged::NoHandles(_) => format!("delouse does not know {what}: no handle was found"),
        Unjudged::Unread => "not all of its variables could be read".to_owned(),
        Unjudged::MoreWakers => "something that was not found has a waker of it".to_owned(),
        Unjudged::OpenBranch => "delouse cannot tell what else may end this branch of a `join!`".to_owned(),
        Unjudged::Behind => "what could end its wait is not judged itself".to_owned(),
    }
}

/// `who holds it`: what would have to be known to judge a wait.
pub(crate) fn ends(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Mutex | ResourceKind::Rwlock | ResourceKind::Lock | ResourceKind::OnceCell => {
            "what holds it"
        }
        ResourceKind::Closed => "what has its receivers",
        ResourceKind::Barrier => "what can arrive at it",
        ResourceKind::SetOnce => "what can set it",
        ResourceKind::Cancellation => "what can cancel it",
        ResourceKind::Semaphore => "what has its permits",
        ResourceKind::ChannelRecv | ResourceKind::Oneshot | ResourceKind::Watch | ResourceKind::Broadcast => {
            "what can send to it"
        }
        ResourceKind::ChannelSend => "what receives from it",
        ResourceKind::Notify => "what can notify it",
        ResourceKind::Join => "which task it is",
        ResourceKind::Thread => "what blocks that thread",
        ResourceKind::Timer
        | ResourceKind::Io
        | ResourceKind::Signal
        | ResourceKind::Process
        | ResourceKind::Http2Stream
        | ResourceKind::Never
        | ResourceKind::Unknown => "what ends it",
    }
}
