//! Sockets that the other end has closed, and that tasks keep open.

use rustc_hash::FxHashSet;

use super::kept::ClosedSocket;
use super::sample::Sample;
use super::{CodeLocation, Observation, Observed};
use crate::snapshot::HalfClosed;
use crate::tasks::Examination;
use crate::tasks::inputs::{Input, Source};

/// Addresses of connections that are listed.
const MAX_PEERS: usize = 4;

/// The most tasks whose variables are searched for connections.
const MAX_TASKS: usize = 256;

/// The variables of tasks that wait with connections that the other end has closed for its part.
pub(crate) fn closed_sockets(examination: &Examination<'_, '_, '_>) -> Vec<ClosedSocket> {
    let closed = |input: &Input| input.source == Source::File && input.ended == Some(true);
    let all = examination.inputs_of_waiting(MAX_TASKS).filter(|(_, input)| closed(input));
    all.filter_map(|(task, input)| {
        let place = input.function.as_ref().map(|frame| CodeLocation::of_frame(frame).into());
        Some(ClosedSocket { fd: input.fd?, task, variable: input.variable, place })
    })
    .collect()
}

/// The connections that the other end has closed in every sample. One sample is not enough: each connection passes through
/// this state.
pub(super) fn closed_by_peer(samples: &[Sample]) -> Option<Observation> {
    let [before @ .., last] = samples else { return None };
    let lasted = |one: &&HalfClosed| before.iter().all(|sample| sample.half_closed.contains(one));
    let closed: Vec<&HalfClosed> =
        last.half_closed.iter().filter(|_| !before.is_empty()).filter(lasted).collect();
    let fds: FxHashSet<i32> = closed.iter().map(|one| one.fd).collect();
    let sockets: Vec<&ClosedSocket> =
        last.closed_sockets.iter().filter(|socket| fds.contains(&socket.fd)).collect();
    let mut tasks: Vec<u64> = sockets.iter().map(|socket| socket.task).collect();
    tasks.dedup();
    let peers = closed.iter().take(MAX_PEERS).map(|one| one.peer.clone()).collect();
    // A connection that was moved to a function that is called is listed of the caller, too, which comes first.
    let is_first = |socket: &&&ClosedSocket| sockets.first().is_some_and(|first| first.fd == socket.fd);
    let socket = sockets.iter().rev().find(is_first).map(|socket| (*socket).clone());
    let fact = Observed::ClosedByPeer { peers, socket };
    let count = closed.len();
    (count > 0).then_some(Observation { tasks, count, waiting: None, fact })
}
