//! Connections of which the program has both ends, two sockets or a pipe in memory: the task at one end waits for the task at
//! the other.

use rustc_hash::{FxHashMap, FxHashSet};

use super::kept::ClosedSocket;
use super::sample::Sample;
use super::{CodeLocation, Observation, Observed};
use crate::snapshot::{Address, ConnectionEnd, HalfClosed, OwnConnection};
use crate::tasks::inputs::{Input, Source};
use crate::tasks::{DUPLEX, Direction, Examination, LeafPlace, ResourceKind, WaitsOn};

/// Addresses of connections that are listed.
const MAX_PEERS: usize = 4;

/// The kernel's view of the sockets that tasks wait for: the connections among these descriptors of which the program
/// has both ends.
pub(crate) type Kernel<'k> = dyn Fn(&[i32]) -> Vec<OwnConnection> + 'k;

/// For the wait at each socket, the other end.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// By descriptor: its own state, and the address of tokio's record of the other end.
    others: FxHashMap<i32, (ConnectionEnd, Address)>,
}

impl Connections {
    /// Asks the kernel if tasks wait for two sockets or more. Must be called after the capture: what has arrived at a
    /// socket by then will wake its task.
    pub(super) fn of(examination: &Examination<'_, '_, '_>, kernel: &Kernel<'_>) -> Self {
        let tasks = examination.listing.tasks.iter().zip(&examination.places);
        let leaves = tasks.flat_map(|(task, place)| task.waits_on.iter().zip(&place.leaves));
        let records: FxHashMap<i32, Address> = leaves.filter_map(|(on, leaf)| socket(on, leaf)).collect();
        if records.len() < 2 {
            return Self::default();
        }
        let mut fds: Vec<i32> = records.keys().copied().collect();
        fds.sort_unstable();
        let mut others = FxHashMap::default();
        for OwnConnection { ends: [one, other] } in kernel(&fds) {
            for (end, other) in [(one, other), (other, one)] {
                others.extend(records.get(&other.fd).map(|record| (end.fd, (end, *record))));
            }
        }
        Self { others }
    }

    /// The other end of the connection that a leaf waits for, if only what has that end can end the wait: nothing has arrived,
    /// or there is no room.
    pub(super) fn other_end(&self, on: &WaitsOn, leaf: &LeafPlace) -> Option<Address> {
        if on.kind == ResourceKind::Io && leaf.path == DUPLEX {
            // It is identified by what this end reads from.
            return leaf.address;
        }
        let (fd, _) = socket(on, leaf)?;
        let (own, other) = self.others.get(&fd)?;
        let io = on.io.as_deref();
        if io.is_some_and(|io| io.ready) {
            return None;
        }
        let waits = match io.and_then(|io| io.direction) {
            Some(Direction::Read) => !own.readable,
            Some(Direction::Write) => !own.writable,
            Some(Direction::ReadOrWrite) | None => !own.readable && !own.writable,
        };
        waits.then_some(*other)
    }
}

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

/// The descriptor and the record of a socket, if a leaf waits for one.
fn socket(on: &WaitsOn, leaf: &LeafPlace) -> Option<(i32, Address)> {
    let fd = on.fd.filter(|_| on.kind == ResourceKind::Io)?;
    Some((fd, leaf.address?))
}
