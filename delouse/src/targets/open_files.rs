//! Describes open file descriptors of this process and of others.
//!
//! A descriptor of this process is not duplicated, because a duplicate would keep the connection open after the program has
//! closed its own. Sockets and pipes of another process are, for some microseconds: they can be asked in no other way. If
//! the program closes the descriptor meanwhile, the result is `None`, or describes another file with the same number.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, getpeername, getsockname, sockopt,
};

use super::unix_peers::UnixPeers;
use crate::snapshot::{ConnectionEnd, HalfClosed, OpenFile, OwnConnection};

/// Describes `fd` by `/proc/self/fd` and, for sockets, getsockname(2) and getpeername(2). `None` if it is not open. Takes
/// a few microseconds.
pub(crate) fn open_file(fd: i32) -> Option<OpenFile> {
    let path = format!("/proc/self/fd/{fd}");
    let link = fs::read_link(&path).ok()?;
    // SAFETY: it was open above. If the program closes it meanwhile, calls fail or describe another file.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    describe(|| Some(file), &path, &link.to_string_lossy())
}

/// The descriptors of another process.
pub(crate) struct OtherFiles {
    pid: u32,
    process: OwnedFd,
}

impl OtherFiles {
    /// Those of the process `pid`.
    ///
    /// # Errors
    /// If there is no such process.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, process: pidfd_open(id, PidfdFlags::empty())? })
    }

    /// Describes a descriptor. `None` if it is not open, or if the process may not be traced.
    pub(crate) fn describe(&self, fd: i32) -> Option<OpenFile> {
        let path = format!("/proc/{}/fd/{fd}", self.pid);
        let link = fs::read_link(&path).ok()?;
        describe(|| self.duplicate(fd), &path, &link.to_string_lossy())
    }

    /// As [`closed_by_peer`], for this process.
    pub(crate) fn closed_by_peer(&self, limit: usize) -> Vec<HalfClosed> {
        let open = descriptors(&format!("/proc/{}/fd", self.pid)).into_iter().take(limit);
        // Other descriptors than sockets are not duplicated.
        let is_socket = |fd: &i32| {
            let link = fs::read_link(format!("/proc/{}/fd/{fd}", self.pid));
            link.is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
        };
        open.filter(is_socket).filter_map(|fd| half_closed(fd, self.duplicate(fd)?.as_fd())).collect()
    }

    /// As [`own_connections`], for this process.
    pub(crate) fn own_connections(&self, fds: &[i32]) -> Vec<OwnConnection> {
        let peers = OnceCell::new();
        let of = |fd: &i32| end(*fd, self.duplicate(*fd)?.as_fd(), &peers);
        pairs(&format!("/proc/{}/fd", self.pid), fds.iter().filter_map(of))
    }

    fn duplicate(&self, fd: i32) -> Option<OwnedFd> {
        pidfd_getfd(&self.process, fd, PidfdGetfdFlags::empty()).ok()
    }
}

/// Describes a file, which is open as `path` with the target `link`. `file` opens it; of files that are neither sockets nor
/// pipes, nothing is asked that needs that.
fn describe<F: AsFd>(file: impl FnOnce() -> Option<F>, path: &str, link: &str) -> Option<OpenFile> {
    let plain = |kind: &str| OpenFile { kind: kind.to_owned(), ..OpenFile::default() };
    if link.starts_with("socket:") {
        return Some(socket(file()?.as_fd()).unwrap_or_else(|| plain("socket")));
    }
    if link.starts_with("pipe:") {
        return Some(OpenFile { receive_queue: queue(file()?.as_fd(), libc::FIONREAD), ..plain("pipe") });
    }
    // `anon_inode:[eventfd]`, `anon_inode:inotify`; pidfds of kernels since 6.9 are `pidfd:[…]`.
    if let Some(name) = link.strip_prefix("anon_inode:") {
        return Some(plain(name.trim_matches(['[', ']'])));
    }
    if link.starts_with("pidfd:") {
        return Some(plain("pidfd"));
    }
    let kind = fs::metadata(path).ok()?.file_type();
    let what = match () {
        () if kind.is_fifo() => "named pipe",
        () if link.starts_with("/dev/pts/") || link.starts_with("/dev/tty") => "terminal",
        () if kind.is_char_device() || kind.is_block_device() => "device",
        () if kind.is_dir() => "directory",
        () => "file",
    };
    Some(plain(what))
}

/// Whether a process waits in the kernel until something reads from a pipe (`pipe_write` of `fs/pipe.c`, by proc_pid_wchan(5),
/// which a kernel need not show).
pub(crate) fn writes_to_a_full_pipe(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|place| place.contains("pipe_write"))
}

/// The TCP connections of this process that the other end has closed for its part: the addresses of both ends. Reads the state of at
/// most `limit` descriptors, in about a microsecond each; empty where they cannot be listed.
pub(crate) fn closed_by_peer(limit: usize) -> Vec<HalfClosed> {
    let open = descriptors("/proc/self/fd").into_iter().take(limit);
    // SAFETY: they were open above. If the program closes one meanwhile, calls fail or read another socket.
    open.filter_map(|fd| half_closed(fd, unsafe { BorrowedFd::borrow_raw(fd) })).collect()
}

/// The connections of TCP and of Unix sockets of which both ends are among these descriptors of this process, each open only
/// once. Takes some microseconds for each.
pub(crate) fn own_connections(fds: &[i32]) -> Vec<OwnConnection> {
    let peers = OnceCell::new();
    // SAFETY: they were open a moment ago. If the program closes one meanwhile, calls fail or read another socket.
    let of = |fd: &i32| end(*fd, unsafe { BorrowedFd::borrow_raw(*fd) }, &peers);
    pairs("/proc/self/fd", fds.iter().filter_map(of))
}

/// A connected socket: the addresses of both ends, which are numbers for Unix sockets, and its own state.
struct Connected {
    local: String,
    peer: String,
    end: ConnectionEnd,
}

/// `peers`: the way to ask about Unix sockets, opened by the first of them.
fn end(fd: i32, file: BorrowedFd<'_>, peers: &OnceCell<Option<UnixPeers>>) -> Option<Connected> {
    let (local, peer) = if sockopt::socket_domain(file).ok()? == AddressFamily::UNIX {
        let inode = fstat(file).ok()?.st_ino;
        let peer = peers.get_or_init(UnixPeers::open).as_ref()?.of(inode)?;
        (format!("unix {inode}"), format!("unix {peer}"))
    } else {
        tcp(file)?;
        let local = getsockname(file).ok().and_then(address)?;
        (local, getpeername(file).ok().flatten().and_then(address)?)
    };
    let mut asked = [PollFd::from_borrowed_fd(file, PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP)];
    poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?;
    let [asked] = asked;
    let state = asked.revents();
    let over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    let readable = state.intersects(over | PollFlags::IN | PollFlags::RDHUP);
    let end = ConnectionEnd { fd, readable, writable: state.intersects(over | PollFlags::OUT) };
    Some(Connected { local, peer, end })
}

/// The pairs among some sockets. `directory`: that of all descriptors of their process.
fn pairs(directory: &str, sockets: impl Iterator<Item = Connected>) -> Vec<OwnConnection> {
    let sockets: Vec<Connected> = sockets.collect();
    let by_address: HashMap<(&str, &str), &Connected> =
        sockets.iter().map(|of| ((of.local.as_str(), of.peer.as_str()), of)).collect();
    let other = |of: &Connected| by_address.get(&(of.peer.as_str(), of.local.as_str())).copied();
    let pair = |of: &Connected| {
        let other = other(of).filter(|other| of.end.fd < other.end.fd)?;
        Some(OwnConnection { ends: [of.end, other.end] })
    };
    let mut found: Vec<OwnConnection> = sockets.iter().filter_map(pair).collect();
    if !found.is_empty() {
        // What has a duplicate of a descriptor can use the connection, too.
        let link = |fd: i32| fs::read_link(format!("{directory}/{fd}")).ok();
        let mut open: HashMap<_, usize> = HashMap::new();
        descriptors(directory).into_iter().for_each(|fd| *open.entry(link(fd)).or_default() += 1);
        let is_single = |end: &ConnectionEnd| open.get(&link(end.fd)) == Some(&1);
        found.retain(|pair| pair.ends.iter().all(is_single));
    }
    found
}

/// The numbers in a directory of descriptors; empty where they cannot be listed.
fn descriptors(directory: &str) -> Vec<i32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A TCP connection that the other end has closed for its part.
fn half_closed(fd: i32, file: BorrowedFd<'_>) -> Option<HalfClosed> {
    if tcp(file)?.0 != Some("CLOSE_WAIT") {
        return None;
    }
    let local = getsockname(file).ok().and_then(address)?;
    Some(HalfClosed { fd, local, peer: getpeername(file).ok().flatten().and_then(address)? })
}

fn socket(file: BorrowedFd<'_>) -> Option<OpenFile> {
    let (family, kind) = (sockopt::socket_domain(file).ok()?, sockopt::socket_type(file).ok()?);
    let name = match (family, kind) {
        (AddressFamily::INET | AddressFamily::INET6, SocketType::STREAM) => "tcp",
        (AddressFamily::INET | AddressFamily::INET6, SocketType::DGRAM) => "udp",
        (AddressFamily::UNIX, _) => "unix",
        (AddressFamily::NETLINK, _) => "netlink",
        _ => "socket",
    };
    let listens = sockopt::socket_acceptconn(file).is_ok_and(|listens| listens);
    let (state, (receive_queue, send_queue)) = match tcp(file).filter(|_| name == "tcp") {
        Some((state, backlog)) if listens => (state, backlog),
        tcp_info => (
            tcp_info.and_then(|(state, _)| state),
            (queue(file, libc::FIONREAD), queue(file, libc::TIOCOUTQ)),
        ),
    };
    Some(OpenFile {
        kind: if listens { format!("{name} listener") } else { name.to_owned() },
        local: getsockname(file).ok().and_then(address),
        peer: getpeername(file).ok().flatten().and_then(address),
        state,
        receive_queue,
        send_queue,
    })
}

/// States of a TCP socket: `include/net/tcp_states.h`.
const TCP_STATES: &[&str] = &[
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
];

/// Number of connections that wait to be accepted, and its maximum.
type Backlog = (Option<u64>, Option<u64>);

/// The state of a TCP socket and the backlog of a listener, from the beginning of `struct tcp_info`
/// (`include/uapi/linux/tcp.h`): the state is the first byte; `tcpi_unacked` and `tcpi_sacked` are words 6 and 7.
fn tcp(file: BorrowedFd<'_>) -> Option<(Option<&'static str>, Backlog)> {
    let mut info = [0_u32; 8];
    let mut length = size_of_val(&info) as libc::socklen_t;
    let place = info.as_mut_ptr();
    // SAFETY: `info` is `length` bytes large; the call fails for a closed descriptor.
    let result = unsafe {
        libc::getsockopt(file.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, place.cast(), &raw mut length)
    };
    if result != 0 || (length as usize) < size_of_val(&info) {
        return None;
    }
    let [first, .., waiting, most] = info;
    let state = usize::from(first.to_ne_bytes()[0]).checked_sub(1).and_then(|at| TCP_STATES.get(at));
    Some((state.copied(), (Some(waiting.into()), Some(most.into()))))
}

/// The length of a queue, in bytes.
fn queue(file: BorrowedFd<'_>, request: libc::Ioctl) -> Option<u64> {
    let mut bytes = 0_i32;
    // SAFETY: both requests write one `int`; the call fails for a descriptor without a queue.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut bytes) };
    u64::try_from(bytes).ok().filter(|_| result == 0)
}

/// An address as text; `None` for an unnamed socket.
fn address(address: SocketAddrAny) -> Option<String> {
    match SocketAddr::try_from(address.clone()) {
        Ok(ip) => Some(SocketAddr::new(ip.ip(), ip.port()).to_string()),
        Err(_) => unix_name(&SocketAddrUnix::try_from(address).ok()?),
    }
}

/// The name of a Unix socket (unix(7)): a path, or an abstract name, which is written with `@`.
fn unix_name(address: &SocketAddrUnix) -> Option<String> {
    let (mark, name) = match address.abstract_name() {
        Some([]) => return None,
        Some(name) => ("@", name),
        None => ("", address.path_bytes()?),
    };
    Some(format!("{mark}{}", String::from_utf8_lossy(name).escape_debug()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn describe(file: &impl AsRawFd) -> (String, Option<String>, Option<String>) {
        let found = open_file(file.as_raw_fd()).unwrap();
        // By the way of other processes, it is the same.
        let other = OtherFiles::of(std::process::id()).unwrap().describe(file.as_raw_fd());
        assert_eq!(other.as_ref(), Some(&found));
        let OpenFile { kind, local, peer, .. } = found;
        (kind, local, peer)
    }

    #[test]
    fn connections_of_which_both_ends_are_here() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let other = listener.accept().unwrap().0;
        let fds = [one.as_raw_fd(), other.as_raw_fd(), listener.as_raw_fd()];
        let end = |file: &TcpStream, readable| {
            let fd = file.as_raw_fd();
            ConnectionEnd { fd, readable, writable: true }
        };
        let pair = |ends: [ConnectionEnd; 2]| {
            let mut ends = ends;
            ends.sort_by_key(|end| end.fd);
            vec![OwnConnection { ends }]
        };
        let found = own_connections(&fds);
        assert_eq!(found, pair([end(&one, false), end(&other, false)]));
        assert_eq!(OtherFiles::of(std::process::id()).unwrap().own_connections(&fds), found);
        io::Write::write_all(&mut one, b"1").unwrap();
        while own_connections(&fds) == found {}
        assert_eq!(own_connections(&fds), pair([end(&one, false), end(&other, true)]));
        assert_eq!(own_connections(&fds[1..]), [], "only one end was asked for");
        let duplicate = one.try_clone().unwrap();
        assert_eq!(own_connections(&fds), [], "another descriptor may be used");
        drop(duplicate);
    }

    #[test]
    fn unix_sockets_of_which_both_ends_are_here() {
        let (one, other) = UnixStream::pair().unwrap();
        let (stranger, _) = UnixStream::pair().unwrap();
        let mut fds = [one.as_raw_fd(), other.as_raw_fd(), stranger.as_raw_fd()];
        let found = own_connections(&fds);
        if found.is_empty() {
            skipped!("this kernel does not tell the peers of Unix sockets");
            return;
        }
        fds[..2].sort_unstable();
        let end = |fd: i32| ConnectionEnd { fd, readable: false, writable: true };
        assert_eq!(found, [OwnConnection { ends: [end(fds[0]), end(fds[1])] }]);
        assert_eq!(OtherFiles::of(std::process::id()).unwrap().own_connections(&fds), found);
    }

    #[test]
    fn addresses_of_both_ends_of_a_connection() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                skipped!("no {host}");
                continue;
            };
            let at = listener.local_addr().unwrap();
            assert_eq!(describe(&listener), ("tcp listener".to_owned(), Some(at.to_string()), None));
            let client = TcpStream::connect(at).unwrap();
            let (server, from) = listener.accept().unwrap();
            let (at, from) = (Some(at.to_string()), Some(from.to_string()));
            assert_eq!(describe(&server), ("tcp".to_owned(), at.clone(), from.clone()));
            assert_eq!(describe(&client), ("tcp".to_owned(), from, at));
        }
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(describe(&udp), ("udp".to_owned(), Some(udp.local_addr().unwrap().to_string()), None));
    }

    #[test]
    fn names_of_unix_sockets() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let name = Some(path.to_string_lossy().into_owned());
        assert_eq!(describe(&listener), ("unix listener".to_owned(), name.clone(), None));
        let client = UnixStream::connect(&path).unwrap();
        assert_eq!(describe(&client), ("unix".to_owned(), None, name));
        assert_eq!(describe(&UnixStream::pair().unwrap().0), ("unix".to_owned(), None, None));
        let hidden = SocketAddrUnix::new_abstract_name(b"hidden").unwrap();
        assert_eq!(unix_name(&hidden), Some("@hidden".to_owned()));
        assert_eq!(unix_name(&SocketAddrUnix::new("/run/a\nb").unwrap()), Some("/run/a\\nb".to_owned()));
    }

    #[test]
    fn states_and_queues_of_connections() {
        use std::io::Write as _;

        let describe = |file: &dyn AsRawFd| {
            let OpenFile { state, receive_queue, send_queue, .. } = open_file(file.as_raw_fd()).unwrap();
            (state, receive_queue, send_queue)
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (state, waiting, most) = describe(&listener);
        assert_eq!((state, waiting), (Some("LISTEN"), Some(1)));
        assert!(most >= Some(1), "{most:?}");
        let (server, _) = listener.accept().unwrap();
        assert_eq!(describe(&listener).1, Some(0));
        client.write_all(b"hello").unwrap();
        // Loopback delivers before `write` returns.
        assert_eq!(describe(&server), (Some("ESTABLISHED"), Some(5), Some(0)));
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 1 << 16]).is_ok() {}
        assert!(describe(&client).2 > Some(0), "{:?}", describe(&client));
        drop(client);
        let (other, server) = {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        drop(other);
        assert_eq!(describe(&server).0, Some("CLOSE_WAIT"));
        let own = (server.local_addr().unwrap().to_string(), server.peer_addr().unwrap().to_string());
        let is_own = |all: Vec<HalfClosed>| all.into_iter().any(|one| (one.local, one.peer) == own);
        assert!(is_own(closed_by_peer(usize::MAX)));
        let other = OtherFiles::of(std::process::id()).unwrap();
        assert!(is_own(other.closed_by_peer(usize::MAX)));
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"hello").unwrap();
        assert_eq!(describe(&reader), (None, Some(5), None));
    }

    #[test]
    fn descriptors_other_than_sockets() {
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(describe(&reader).0, "pipe");
        assert_eq!(describe(&fs::File::open("/dev/null").unwrap()).0, "device");
        assert_eq!(describe(&fs::File::open("/proc/self/status").unwrap()).0, "file");
        assert_eq!(describe(&fs::File::open("/").unwrap()).0, "directory");
        assert_eq!((open_file(-1), open_file(i32::MAX)), (None, None));
    }
}
