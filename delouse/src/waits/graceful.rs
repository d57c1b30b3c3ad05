//! Shutdowns that have begun and wait for tasks which wait for messages themselves.

use std::collections::HashSet;

use super::Edge;
use super::observation::{Awaited, Observation, Observed};
use super::sample::Sample;
use crate::tasks::{Frame, ResourceKind, Task};

/// The most tasks that are listed.
const MAX_TASKS: usize = 4;

/// A shutdown that takes longer, in milliseconds, is worth a look whatever its tasks wait for.
const LONG_WAIT: u64 = 10_000;

/// A shutdown in one sample.
struct Shutdown<'s> {
    edge: &'s Edge,
    name: &'static str,
    awaited: Vec<&'s Edge>,
}

/// A task that waits in a graceful shutdown for the end of other tasks.
#[cfg(feature = "dump")]
pub(crate) struct Graceful {
    pub(crate) waiter: u64,
    pub(crate) name: &'static str,
    pub(crate) tasks: Vec<u64>,
}

/// All of them, whatever the tasks wait for.
#[cfg(feature = "dump")]
pub(crate) fn graceful_shutdowns(sample: &Sample) -> Vec<Graceful> {
    let of = |edge: &Edge| {
        let (name, tasks) = awaited_by(sample, edge)?;
        Some(Graceful { waiter: edge.waiter?, name, tasks })
    };
    sample.graph.edges.iter().filter_map(of).collect()
}

/// Whether another sample could confirm an observation.
pub(super) fn is_undecided(samples: &[Sample]) -> bool {
    matches!(samples, [only] if shutdown(only, &HashSet::new()).is_some())
}

/// The observation, where all samples show it.
pub(super) fn check(samples: &[Sample], known: &HashSet<u64>) -> Option<Observation> {
    let (last, before) = samples.split_last()?;
    let Shutdown { edge, name, awaited } = shutdown(last, known)?;
    let same = |sample: &Sample| {
        shutdown(sample, known).is_some_and(|then| {
            let ids = |edges: &[&Edge]| edges.iter().filter_map(|edge| edge.waiter).collect::<Vec<u64>>();
            then.edge.waiter == edge.waiter && ids(&then.awaited) == ids(&awaited)
        })
    };
    if before.is_empty() || !before.iter().all(same) {
        return None;
    }
    let mut tasks: Vec<u64> = awaited.iter().filter_map(|edge| edge.waiter).collect();
    tasks.dedup();
    let count = tasks.len();
    let list = awaited.iter().take(MAX_TASKS).map(|edge| Awaited {
        task: edge.waiter.unwrap_or_default(),
        place: edge.place.clone(),
        resource: edge.resource.clone(),
    });
    let fact = Observed::Shutdown {
        task: edge.waiter.unwrap_or_default(),
        place: edge.place.clone(),
        name,
        awaited: list.collect(),
    };
    Some(Observation { tasks, count, waiting: None, fact })
}

/// The first shutdown that waits for tasks that wait for messages, and not for a timer; or for any tasks, for long.
fn shutdown<'s>(sample: &'s Sample, known: &HashSet<u64>) -> Option<Shutdown<'s>> {
    sample.graph.edges.iter().find_map(|edge| {
        let (name, tasks) = awaited_by(sample, edge)?;
        let mut awaited = Vec::new();
        let waiting = edge.waiter.and_then(|id| task(sample, id)).and_then(|task| task.waiting);
        let is_long = waiting.is_some_and(|waiting| waiting.at_least_ms >= LONG_WAIT);
        for task in tasks.into_iter().filter(|task| !known.contains(task)) {
            let own = || sample.graph.edges.iter().filter(move |edge| edge.waiter == Some(task));
            let message = || own().find(|edge| is_message(edge.resource.kind));
            if is_long {
                awaited.extend(message().or_else(|| own().next()));
            } else if own().all(|edge| edge.resource.kind != ResourceKind::Timer) {
                awaited.extend(message());
            }
        }
        (!awaited.is_empty()).then_some(Shutdown { edge, name, awaited })
    })
}

/// What a wait is called, and the tasks whose end it waits for, if it is part of a shutdown.
fn awaited_by(sample: &Sample, edge: &Edge) -> Option<(&'static str, Vec<u64>)> {
    let waiter = edge.waiter?;
    let holders = || edge.holders.iter().filter(|holder| holder.task.is_some_and(|task| task != waiter));
    let ids = |mut tasks: Vec<u64>| {
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    };
    match edge.resource.kind {
        // `axum::serve` has its connections keep a `close_rx`.
        ResourceKind::Closed => {
            let is_connection = |holder: &&super::Holder| {
                let place = holder.place.as_ref().map(|place| place.function.as_str());
                place.is_some_and(|place| place.contains("axum::serve")) && holder.variable == "close_rx"
            };
            let of_axum: Vec<u64> =
                holders().filter(is_connection).filter_map(|holder| holder.task).collect();
            if !of_axum.is_empty() {
                return Some(("the graceful shutdown of axum", ids(of_axum)));
            }
            let task = task(sample, waiter)?;
            let is_graceful = |frame: &Frame| frame.function.contains("hyper_util::server::graceful");
            any(&task.stack, &is_graceful).then(|| {
                let all = holders().filter_map(|holder| holder.task).collect();
                ("the graceful shutdown of hyper-util", ids(all))
            })
        }
        ResourceKind::Notify => {
            let task = task(sample, waiter)?;
            let waits = |frame: &Frame| frame.function.contains("task_tracker::TaskTrackerWaitFuture");
            let is_tracked = |frame: &Frame| frame.function.contains("task_tracker::TrackedFuture");
            any(&task.stack, &waits).then(|| {
                let tracked = sample.listing.tasks.iter().filter(|task| any(&task.stack, &is_tracked));
                ("TaskTracker::wait", ids(tracked.map(|task| task.id).collect()))
            })
        }
        _ => None,
    }
}

fn task(sample: &Sample, id: u64) -> Option<&Task> {
    match id {
        0 => sample.listing.tasks.first().filter(|task| task.id == 0),
        id => sample.task(id),
    }
}

/// Whether a wait ends by a message or a signal of another part of the program.
fn is_message(kind: ResourceKind) -> bool {
    matches!(
        kind,
        ResourceKind::ChannelRecv
            | ResourceKind::Oneshot
            | ResourceKind::Watch
            | ResourceKind::Broadcast
            | ResourceKind::Notify
            | ResourceKind::Cancellation
            | ResourceKind::Barrier
            | ResourceKind::SetOnce
    )
}

/// Whether some frame of a stack is like that. The walk that made the stack has bounded its depth.
fn any(frames: &[Frame], is_it: &dyn Fn(&Frame) -> bool) -> bool {
    frames.iter().any(|frame| is_it(frame) || any(&frame.children, is_it))
}
