//! Connections of which the program has both ends, two sockets or a pipe in memory: the task at one end waits for the task at
//! the other.

use rustc_hash::FxHashMap;

use crate::snapshot::{Address, ConnectionEnd, OwnConnection};
use crate::tasks::{DUPLEX, Direction, Examination, LeafPlace, ResourceKind, WaitsOn};

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

/// The descriptor and the record of a socket, if a leaf waits for one.
fn socket(on: &WaitsOn, leaf: &LeafPlace) -> Option<(i32, Address)> {
    let fd = on.fd.filter(|_| on.kind == ResourceKind::Io)?;
    Some((fd, leaf.address?))
}
