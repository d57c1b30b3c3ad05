//! Describes the descriptors that tasks wait for: which connection, in which state; which pipe.
//!
//! This is not in memory. The kernel is queried after the capture, for our own process only; of a descriptor that was
//! closed meanwhile, nothing is known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Connection, Task};
use crate::snapshot::OpenFile;

/// The most descriptors that are queried.
const MAX_FILES: usize = 1 << 14;
/// The most time that this takes: some microseconds for each descriptor.
const MAX_TIME: Duration = Duration::from_millis(500);

/// Adds the file to every wait for a descriptor. Returns a note if some are left out.
pub(crate) fn describe(tasks: &mut [Task], open_file: impl Fn(i32) -> Option<OpenFile>) -> Option<String> {
    let begun = Instant::now();
    let mut files: BTreeMap<i32, Option<OpenFile>> = BTreeMap::new();
    let mut left_out = false;
    for fd in tasks.iter().flat_map(|task| &task.waits_on).filter_map(|waits| waits.fd) {
        if files.contains_key(&fd) {
            continue;
        }
        if files.len() >= MAX_FILES || begun.elapsed() >= MAX_TIME {
            left_out = true;
            break;
        }
        files.insert(fd, open_file(fd));
    }
    let listeners = Listeners::of(files.values().flatten());
    for waits in tasks.iter_mut().flat_map(|task| &mut task.waits_on) {
        let file = waits.fd.and_then(|fd| files.get(&fd));
        if let Some(Some(file)) = file {
            let io = waits.io.get_or_insert_default();
            io.file = Some(file.kind.clone());
            io.local.clone_from(&file.local);
            io.peer.clone_from(&file.peer);
            io.connection = listeners.connection(file);
            io.state = file.state.map(str::to_owned);
            (io.receive_queue, io.send_queue) = (file.receive_queue, file.send_queue);
        }
    }
    let told = files.len();
    left_out
        .then(|| format!("addresses and states of sockets are shown for the first {told} descriptors only"))
}

/// The addresses at which tasks of this program accept TCP connections.
struct Listeners(BTreeSet<SocketAddr>);

impl Listeners {
    fn of<'f>(files: impl Iterator<Item = &'f OpenFile>) -> Self {
        let listeners = files.filter(|file| file.is_listener() && file.kind.starts_with("tcp"));
        Self(listeners.filter_map(|file| file.local.as_ref()?.parse().ok()).collect())
    }

    /// Which end of a TCP connection opened it. A port of a listener is not given to a connection that this process opens.
    fn connection(&self, file: &OpenFile) -> Option<Connection> {
        let end = |end: &Option<String>| end.as_ref()?.parse::<SocketAddr>().ok();
        let (local, peer) = end(&file.local).zip(end(&file.peer)).filter(|_| file.kind == "tcp")?;
        match (self.listens_at(local), self.listens_at(peer)) {
            (true, false) => Some(Connection::Accepted),
            // The other end of a connection within this machine; a remote address may look the same.
            (false, true) if peer.ip() == local.ip() => Some(Connection::Connected),
            _ => None,
        }
    }

    fn listens_at(&self, at: SocketAddr) -> bool {
        let listens = |listener: &SocketAddr| {
            listener.port() == at.port() && (listener.ip() == at.ip() || listener.ip().is_unspecified())
        };
        self.0.iter().any(listens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: &str, local: &str, peer: Option<&str>) -> OpenFile {
        OpenFile {
            kind: kind.to_owned(),
            local: Some(local.to_owned()),
            peer: peer.map(str::to_owned),
            ..OpenFile::default()
        }
    }

    #[test]
    fn listeners_tell_which_end_opened_a_connection() {
        let listeners = [
            file("tcp listener", "127.0.0.1:80", None),
            file("tcp listener", "[::]:443", None),
            file("unix listener", "/run/socket", None),
        ];
        let listeners = Listeners::of(listeners.iter());
        let of = |local, peer| listeners.connection(&file("tcp", local, Some(peer)));
        assert_eq!(of("127.0.0.1:80", "127.0.0.1:5000"), Some(Connection::Accepted));
        assert_eq!(of("10.0.0.1:443", "10.0.0.9:5000"), Some(Connection::Accepted));
        assert_eq!(of("127.0.0.1:5000", "127.0.0.1:80"), Some(Connection::Connected));
        assert_eq!(of("10.0.0.1:5000", "10.0.0.9:443"), None, "another machine's port");
        assert_eq!(of("127.0.0.1:5000", "127.0.0.1:81"), None);
        assert_eq!(of("127.0.0.1:80", "127.0.0.1:80"), None, "connected to itself");
        assert_eq!(listeners.connection(&file("tcp", "127.0.0.1:80", None)), None);
    }
}
