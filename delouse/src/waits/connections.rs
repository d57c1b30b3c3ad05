//! Connections between two tasks of the program, through two sockets or an in-memory pipe: a task that waits at one end
//! waits for the task that has the other end.

use rustc_hash::FxHashMap;

use crate::snapshot::{Address, ConnectionEnd, OwnConnection};
use crate::tasks::{DUPLEX, Direction, Examination, LeafPlace, ResourceKind, WaitsOn};

/// Asks the kernel which of these sockets are connected to each other, and whether each can be read and written.
pub(crate) type Kernel<'k> = dyn Fn(&[i32]) -> Vec<OwnConnection> + 'k;

/// The other end of each socket that a task waits for.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// By descriptor: the state of that end, and the address of the resource that the task at the other end waits for.
    peers: FxHashMap<i32, (ConnectionEnd, Address)>,
}

impl Connections {
    /// Asks the kernel only if tasks wait for two sockets or more. Call this after the capture, so that a task whose data
    /// has arrived meanwhile does not count as waiting for the other end.
    pub(super) fn of(examination: &Examination<'_, '_, '_>, kernel: &Kernel<'_>) -> Self {
        let tasks = examination.listing.tasks.iter().zip(&examination.places);
        let leaves = tasks.flat_map(|(task, place)| task.waits_on.iter().zip(&place.leaves));
        let resources: FxHashMap<i32, Address> = leaves.filter_map(|(on, leaf)| socket(on, leaf)).collect();
        if resources.len() < 2 {
            return Self::default();
        }
        let mut fds: Vec<i32> = resources.keys().copied().collect();
        fds.sort_unstable();
        let mut peers = FxHashMap::default();
        for OwnConnection { ends: [first, second] } in kernel(&fds) {
            for (end, peer) in [(first, second), (second, first)] {
                peers.extend(resources.get(&peer.fd).map(|resource| (end.fd, (end, *resource))));
            }
        }
        Self { peers }
    }

    /// The address of the other end of the connection that a leaf waits for. `None` if the wait may end without that end,
    /// because data has arrived or there is room to write.
    pub(super) fn other_end(&self, on: &WaitsOn, leaf: &LeafPlace) -> Option<Address> {
        if on.kind == ResourceKind::Io && leaf.path == DUPLEX {
            // The address of the buffer that this end reads from and the other end writes to.
            return leaf.address;
        }
        let (fd, _) = socket(on, leaf)?;
        let (end, peer) = self.peers.get(&fd)?;
        let io = on.io.as_deref();
        if io.is_some_and(|io| io.ready) {
            return None;
        }
        let is_blocked = match io.and_then(|io| io.direction) {
            Some(Direction::Read) => !end.readable,
            Some(Direction::Write) => !end.writable,
            Some(Direction::ReadOrWrite) | None => !end.readable && !end.writable,
        };
        is_blocked.then_some(*peer)
    }
}

/// The descriptor of the socket that a leaf waits for, and the address of its resource.
fn socket(on: &WaitsOn, leaf: &LeafPlace) -> Option<(i32, Address)> {
    let fd = on.fd.filter(|_| on.kind == ResourceKind::Io)?;
    Some((fd, leaf.address?))
}
