//! What a descriptor of ours is open on.
//!
//! Asks the kernel about the descriptor itself, without duplicating it: a second one would keep the peer of a
//! connection waiting for its end. Who closes it meanwhile gets an answer about nothing, or about the file
//! that has taken its number.

use std::fs;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;

use crate::snapshot::OpenFile;

/// What `fd` is, by `/proc/self/fd` and, for sockets, getsockname(2) and getpeername(2). `None` where it is
/// not open. Some microseconds.
pub(crate) fn open_file(fd: i32) -> Option<OpenFile> {
    let link = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let link = link.to_string_lossy();
    let plain = |what: &str| OpenFile { what: what.to_owned(), ..OpenFile::default() };
    if link.starts_with("socket:") {
        return Some(socket(fd).unwrap_or_else(|| plain("socket")));
    }
    if link.starts_with("pipe:") {
        return Some(OpenFile { receive_queue: queue(fd, libc::FIONREAD), ..plain("pipe") });
    }
    // `anon_inode:[eventfd]`, `anon_inode:inotify`; pidfds of kernels since 6.9 are `pidfd:[…]`.
    if let Some(name) = link.strip_prefix("anon_inode:") {
        return Some(plain(name.trim_matches(['[', ']'])));
    }
    if link.starts_with("pidfd:") {
        return Some(plain("pidfd"));
    }
    let kind = fs::metadata(format!("/proc/self/fd/{fd}")).ok()?.file_type();
    let what = match () {
        () if kind.is_fifo() => "named pipe",
        () if link.starts_with("/dev/pts/") || link.starts_with("/dev/tty") => "terminal",
        () if kind.is_char_device() || kind.is_block_device() => "device",
        () if kind.is_dir() => "directory",
        () => "file",
    };
    Some(plain(what))
}

fn socket(fd: i32) -> Option<OpenFile> {
    let (domain, kind) = (option(fd, libc::SO_DOMAIN)?, option(fd, libc::SO_TYPE)?);
    let name = match (domain, kind) {
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) => "tcp",
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) => "udp",
        (libc::AF_UNIX, _) => "unix",
        (libc::AF_NETLINK, _) => "netlink",
        _ => "socket",
    };
    let listens = option(fd, libc::SO_ACCEPTCONN).is_some_and(|listens| listens != 0);
    let (state, (receive_queue, send_queue)) = match tcp(fd).filter(|_| name == "tcp") {
        Some((state, backlog)) if listens => (state, backlog),
        of_tcp => {
            (of_tcp.and_then(|(state, _)| state), (queue(fd, libc::FIONREAD), queue(fd, libc::TIOCOUTQ)))
        }
    };
    Some(OpenFile {
        what: if listens { format!("{name} listener") } else { name.to_owned() },
        local: address(fd, libc::getsockname),
        peer: address(fd, libc::getpeername),
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

/// Connections that wait to be accepted, and how many may.
type Backlog = (Option<u64>, Option<u64>);

/// The state of a TCP socket and the queue of a listener, by the beginning of `struct tcp_info`
/// (`include/uapi/linux/tcp.h`): the state is its first byte, `tcpi_unacked` and `tcpi_sacked` its words 6 and 7.
fn tcp(fd: i32) -> Option<(Option<&'static str>, Backlog)> {
    let mut info = [0_u32; 8];
    let mut length = size_of_val(&info) as libc::socklen_t;
    let place = info.as_mut_ptr();
    // SAFETY: `info` has room for `length` bytes; a descriptor that is none gives an error.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, place.cast(), &raw mut length) };
    if result != 0 || (length as usize) < size_of_val(&info) {
        return None;
    }
    let [first, .., waiting, most] = info;
    let state = usize::from(first.to_ne_bytes()[0]).checked_sub(1).and_then(|at| TCP_STATES.get(at));
    Some((state.copied(), (Some(waiting.into()), Some(most.into()))))
}

/// The length of a queue, in bytes.
fn queue(fd: i32, request: libc::Ioctl) -> Option<u64> {
    let mut bytes = 0_i32;
    // SAFETY: both requests write one `int`; a descriptor that has no queue gives an error.
    let result = unsafe { libc::ioctl(fd, request, &raw mut bytes) };
    u64::try_from(bytes).ok().filter(|_| result == 0)
}

/// A number of `SOL_SOCKET`.
fn option(fd: i32, name: i32) -> Option<i32> {
    let mut value = 0_i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` has room for `length` bytes; a descriptor that is none gives an error.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length) };
    (result == 0).then_some(value)
}

type Ask = unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32;

/// One end's address as people write it; `None` where it has none.
fn address(fd: i32, ask: Ask) -> Option<String> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` has room for `length` bytes; a descriptor that is no socket gives an error.
    if unsafe { ask(fd, storage.as_mut_ptr().cast(), &raw mut length) } != 0 {
        return None;
    }
    // SAFETY: zeroes are valid, and so is what the kernel wrote over them.
    let storage = unsafe { storage.assume_init() };
    let place = &raw const storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure it is; the storage is large and aligned enough for all.
            let of = unsafe { place.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(of.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(of.sin_port)).to_string())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let of = unsafe { place.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(of.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(of.sin6_port)).to_string())
        }
        libc::AF_UNIX => {
            // SAFETY: as above.
            let of = unsafe { place.cast::<libc::sockaddr_un>().read() };
            // `c_char` has a sign here and none there.
            let bytes: Vec<u8> = of.sun_path.iter().flat_map(|byte| byte.to_ne_bytes()).collect();
            let length = (length as usize).checked_sub(std::mem::offset_of!(libc::sockaddr_un, sun_path))?;
            unix_name(bytes.get(..length)?)
        }
        _ => None,
    }
}

/// unix(7): a path that may end with a NUL; or a NUL and a name, which is written with `@` before it; or
/// nothing.
fn unix_name(bytes: &[u8]) -> Option<String> {
    let (mark, name) = match bytes {
        [] => return None,
        [0, name @ ..] => ("@", name),
        path => ("", path.split(|&byte| byte == 0).next().unwrap_or(path)),
    };
    Some(format!("{mark}{}", String::from_utf8_lossy(name).escape_debug()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn of(file: &impl AsRawFd) -> (String, Option<String>, Option<String>) {
        let OpenFile { what, local, peer, .. } = open_file(file.as_raw_fd()).unwrap();
        (what, local, peer)
    }

    #[test]
    fn both_ends_of_a_connection() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                println!("skipped: no {host}");
                continue;
            };
            let at = listener.local_addr().unwrap();
            assert_eq!(of(&listener), ("tcp listener".to_owned(), Some(at.to_string()), None));
            let client = TcpStream::connect(at).unwrap();
            let (server, from) = listener.accept().unwrap();
            let (at, from) = (Some(at.to_string()), Some(from.to_string()));
            assert_eq!(of(&server), ("tcp".to_owned(), at.clone(), from.clone()));
            assert_eq!(of(&client), ("tcp".to_owned(), from, at));
        }
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(of(&udp), ("udp".to_owned(), Some(udp.local_addr().unwrap().to_string()), None));
    }

    #[test]
    fn sockets_with_names_of_all_kinds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let name = Some(path.to_string_lossy().into_owned());
        assert_eq!(of(&listener), ("unix listener".to_owned(), name.clone(), None));
        let client = UnixStream::connect(&path).unwrap();
        assert_eq!(of(&client), ("unix".to_owned(), None, name));
        assert_eq!(of(&UnixStream::pair().unwrap().0), ("unix".to_owned(), None, None));
        assert_eq!(unix_name(b"\0hidden"), Some("@hidden".to_owned()));
        assert_eq!(unix_name(b"/run/a\nb\0rest"), Some("/run/a\\nb".to_owned()));
    }

    #[test]
    fn states_and_queues_of_connections() {
        use std::io::Write as _;

        let of = |file: &dyn AsRawFd| {
            let OpenFile { state, receive_queue, send_queue, .. } = open_file(file.as_raw_fd()).unwrap();
            (state, receive_queue, send_queue)
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (state, waiting, most) = of(&listener);
        assert_eq!((state, waiting), (Some("LISTEN"), Some(1)));
        assert!(most >= Some(1), "{most:?}");
        let (server, _) = listener.accept().unwrap();
        assert_eq!(of(&listener).1, Some(0));
        client.write_all(b"hello").unwrap();
        // Loopback delivers before `write` returns.
        assert_eq!(of(&server), (Some("ESTABLISHED"), Some(5), Some(0)));
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 1 << 16]).is_ok() {}
        assert!(of(&client).2 > Some(0), "{:?}", of(&client));
        drop(client);
        let (other, server) = {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        drop(other);
        assert_eq!(of(&server).0, Some("CLOSE_WAIT"));
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"hello").unwrap();
        assert_eq!(of(&reader), (None, Some(5), None));
    }

    #[test]
    fn what_is_no_socket() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(of(&reader).0, "pipe");
        assert_eq!(of(&fs::File::open("/dev/null").unwrap()).0, "device");
        assert_eq!(of(&fs::File::open("/proc/self/status").unwrap()).0, "file");
        assert_eq!(of(&fs::File::open("/").unwrap()).0, "directory");
        assert_eq!((open_file(-1), open_file(i32::MAX)), (None, None));
    }
}
