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
    let plain = |what: &str| OpenFile { what: what.to_owned(), local: None, peer: None };
    if link.starts_with("socket:") {
        return Some(socket(fd).unwrap_or_else(|| plain("socket")));
    }
    if link.starts_with("pipe:") {
        return Some(plain("pipe"));
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
    Some(OpenFile {
        what: if listens { format!("{name} listener") } else { name.to_owned() },
        local: address(fd, libc::getsockname),
        peer: address(fd, libc::getpeername),
    })
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
        let OpenFile { what, local, peer } = open_file(file.as_raw_fd()).unwrap();
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
    fn what_is_no_socket() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(of(&reader).0, "pipe");
        assert_eq!(of(&fs::File::open("/dev/null").unwrap()).0, "device");
        assert_eq!(of(&fs::File::open("/proc/self/status").unwrap()).0, "file");
        assert_eq!(of(&fs::File::open("/").unwrap()).0, "directory");
        assert_eq!((open_file(-1), open_file(i32::MAX)), (None, None));
    }
}
