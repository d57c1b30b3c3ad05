//! HTTP/2 connections whose window is used up: the other end may send no more until the program reads what has come.

use std::collections::HashSet;

use super::kept::UnreadBody;
use super::observation::{Observation, Observed};
use super::sample::Sample;
use super::{CodeLocation, location};
use crate::snapshot::Address;
use crate::tasks::inputs::Source;
use crate::tasks::{Examination, Task, WaitsOn};

/// The most tasks whose variables are searched for bodies.
const MAX_TASKS: usize = 128;
/// The most bodies that are listed.
const MAX_BODIES: usize = 4;

/// The bodies that tasks have and do not read, of connections whose window is used up.
pub(super) fn unread_bodies(examination: &Examination<'_, '_, '_>) -> Vec<UnreadBody> {
    let tasks = &examination.listing.tasks;
    let used_up: HashSet<Address> =
        tasks.iter().flat_map(|task| &task.waits_on).filter_map(|waits| Some(used_up(waits)?.0)).collect();
    if used_up.is_empty() {
        return Vec::new();
    }
    // Of the bodies that are being read, copies may be left in variables that were moved.
    let read: HashSet<(Address, u32)> = tasks
        .iter()
        .flat_map(|task| &task.waits_on)
        .filter_map(|waits| Some((waits.address?, waits.stream?)))
        .collect();
    let inputs = examination.inputs_of_waiting(MAX_TASKS);
    let found = inputs.filter(|(_, input)| input.source == Source::Body).filter_map(|(task, body)| {
        let connection = body.resource.filter(|connection| used_up.contains(connection))?;
        let stream = u32::try_from(body.progress?).ok()?;
        let place = body.function.as_ref().map(|frame| CodeLocation::of_frame(frame).into());
        let unread = UnreadBody { connection, task, variable: body.variable, place };
        (!read.contains(&(connection, stream))).then_some(unread)
    });
    found.collect()
}

/// The connection of a wait for a body, and the unread bytes, if these use up the connection's window.
fn used_up(waits: &WaitsOn) -> Option<(Address, u64)> {
    Some((waits.address?, waits.io.as_ref()?.window_used_up?))
}

/// The tasks that wait for a connection whose window is used up.
fn waiting(sample: &Sample) -> impl Iterator<Item = (&Task, Address, u64)> {
    sample.listing.tasks.iter().flat_map(|task| {
        let waits = task.waits_on.iter().filter_map(used_up);
        waits.map(move |(connection, bytes)| (task, connection, bytes))
    })
}

/// Whether another sample could show that a window stays used up.
pub(super) fn is_undecided(samples: &[Sample]) -> bool {
    matches!(samples, [only] if waiting(only).next().is_some())
}

/// A connection whose window was used up by the same bytes in every sample. One sample is not enough: a fast connection often
/// is in this state for a moment.
pub(super) fn check(samples: &[Sample], known: &HashSet<u64>) -> Option<Observation> {
    let [before @ .., last] = samples else { return None };
    let lasted = |(_, connection, bytes): &(&Task, Address, u64)| {
        let same = |sample| waiting(sample).any(|(_, of, then)| (of, then) == (*connection, *bytes));
        !before.is_empty() && before.iter().all(same)
    };
    let (_, connection, bytes) = waiting(last).filter(|(task, ..)| !known.contains(&task.id)).find(lasted)?;
    let tasks: Vec<&Task> =
        waiting(last).filter(|(_, of, _)| *of == connection).map(|(task, ..)| task).collect();
    let mut ids: Vec<u64> = tasks.iter().map(|task| task.id).collect();
    ids.dedup();
    let of = last.unread_bodies.iter().filter(|body| body.connection == connection);
    Some(Observation {
        count: ids.len(),
        tasks: ids,
        waiting: tasks.iter().filter_map(|task| task.waiting).max_by_key(|waiting| waiting.at_least_ms),
        fact: Observed::Http2Window {
            place: tasks.first().and_then(|task| location::of_task(&task.stack)),
            bytes,
            bodies: of.take(MAX_BODIES).cloned().collect(),
        },
    })
}
