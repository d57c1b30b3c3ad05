//! Which Unix sockets are connected with each other, by sock_diag(7): no other interface of the kernel tells it.

use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY` (`include/uapi/linux/sock_diag.h`).
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` (`include/uapi/linux/netlink.h`).
const REQUEST: u16 = 1;
/// `UDIAG_SHOW_PEER` (`include/uapi/linux/unix_diag.h`).
const SHOW_PEER: u32 = 4;
/// `UNIX_DIAG_PEER`: the attribute with the number of the other end.
const PEER: u16 = 2;
/// `struct nlmsghdr`, and `struct unix_diag_req` or `struct unix_diag_msg`.
const HEADER: usize = 16;
const REQUEST_BODY: usize = 24;
const ANSWER_BODY: usize = 16;

/// Asks the kernel about Unix sockets of the caller's network namespace.
pub(super) struct UnixPeers(OwnedFd);

impl UnixPeers {
    /// `None` where the kernel does not have this interface, or does not permit its use.
    pub(super) fn open() -> Option<Self> {
        let protocol = Some(netlink::SOCK_DIAG);
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol).ok().map(Self)
    }

    /// The inode of the socket at the other end of the connection of the socket with that inode. `None` if it has none, or
    /// is no Unix socket. Takes a few microseconds.
    pub(super) fn of(&self, inode: u64) -> Option<u64> {
        let inode = u32::try_from(inode).ok()?;
        send(&self.0, &request(inode), SendFlags::empty()).ok()?;
        // The kernel has answered when `send` returns.
        let mut answer = [0_u8; 256];
        let (_, length) = recv(&self.0, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
        peer(answer.get(..length)?, inode).map(u64::from)
    }
}

fn request(inode: u32) -> Vec<u8> {
    let family = libc::AF_UNIX as u8;
    let mut request = Vec::with_capacity(HEADER + REQUEST_BODY);
    request.extend(((HEADER + REQUEST_BODY) as u32).to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    // Sequence number and port.
    request.extend([0; 8]);
    request.extend([family, 0, 0, 0]);
    // All states.
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(inode.to_ne_bytes());
    request.extend(SHOW_PEER.to_ne_bytes());
    // No cookie.
    request.extend([u8::MAX; 8]);
    request
}

/// The other end, in the answer for the socket `inode`.
fn peer(answer: &[u8], inode: u32) -> Option<u32> {
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at.checked_add(4)?)?.try_into().ok()?));
    // Otherwise it is an error.
    if half(4)? != BY_FAMILY || word(HEADER + 4)? != inode {
        return None;
    }
    let mut at = HEADER + ANSWER_BODY;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        if kind == PEER && length == 8 {
            return word(at + 4).filter(|peer| *peer != 0);
        }
        // An attribute contains at least its own head.
        at += usize::from(length).max(4).next_multiple_of(4);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn inode(socket: &impl AsFd) -> u64 {
        let duplicate: OwnedFd = socket.as_fd().try_clone_to_owned().unwrap();
        File::from(duplicate).metadata().unwrap().ino()
    }

    #[test]
    fn each_end_names_the_other() {
        let (one, other) = UnixStream::pair().unwrap();
        let Some(peers) = UnixPeers::open().filter(|peers| peers.of(inode(&one)).is_some()) else {
            skipped!("this kernel does not tell the peers of Unix sockets");
            return;
        };
        assert_eq!(peers.of(inode(&one)), Some(inode(&other)));
        assert_eq!(peers.of(inode(&other)), Some(inode(&one)));
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        assert_eq!(peers.of(inode(&listener)), None);
        let client = UnixStream::connect(directory.path().join("socket")).unwrap();
        assert_eq!(peers.of(inode(&client)), None, "nothing has accepted it");
        let server = listener.accept().unwrap().0;
        assert_eq!(peers.of(inode(&client)), Some(inode(&server)));
        drop(other);
        assert_eq!(peers.of(inode(&one)), None);
        assert_eq!(peers.of(u64::MAX), None);
    }

    #[test]
    fn answers_that_are_cut_or_strange() {
        let mut answer = vec![0; HEADER + ANSWER_BODY];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        answer[HEADER + 4..HEADER + 8].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(peer(&answer, 7), None);
        // An attribute of length 0, then the one that is wanted.
        answer.extend([0, 0, 9, 0]);
        answer.extend([8_u16, PEER].iter().flat_map(|half| half.to_ne_bytes()));
        answer.extend(5_u32.to_ne_bytes());
        assert_eq!((peer(&answer, 7), peer(&answer, 8)), (Some(5), None));
        for length in 0..answer.len() {
            assert_eq!(peer(&answer[..length], 7), None);
        }
    }
}
