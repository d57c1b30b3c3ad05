//! Limits of the connections that a listening socket accepts.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, RawFd};
use std::time::Duration;

/// Numbers of files among which the socket is looked for: it was opened a moment ago, and the kernel gives the lowest.
const MOST_FILES: RawFd = 1 << 14;

/// Has the kernel close connections on which nothing could be sent for `stalled`, and keep at most about twice `buffer`
/// bytes for each. Connections inherit both from the socket that listens at `address`, which must be delouse's own: the
/// server does not hand it out. Returns whether it was found.
pub(crate) fn limit_connections(address: SocketAddr, stalled: Duration, buffer: usize) -> bool {
    let Some(listener) = (0..MOST_FILES).find(|&file| is_listening_at(file, address)) else { return false };
    let stalled = libc::c_int::try_from(stalled.as_millis()).unwrap_or(libc::c_int::MAX);
    let buffer = libc::c_int::try_from(buffer).unwrap_or(libc::c_int::MAX);
    // Also while the client's window is closed (tcp(7), TCP_USER_TIMEOUT).
    set(listener, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, stalled)
        && set(listener, libc::SOL_SOCKET, libc::SO_SNDBUF, buffer)
}

fn is_listening_at(file: RawFd, address: SocketAddr) -> bool {
    let (mut listens, mut length): (libc::c_int, libc::socklen_t) = (0, size_of::<libc::c_int>() as _);
    // SAFETY: writes one `c_int`, and knows how long that is. A number that is no open socket is refused.
    let asked = unsafe {
        libc::getsockopt(
            file,
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut listens).cast(),
            &raw mut length,
        )
    };
    if asked != 0 || listens == 0 {
        return false;
    }
    // SAFETY: open a moment ago. Should the program close it now, the next call fails or tells of another socket.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    // SAFETY: asks only, and is forgotten instead of closed.
    let listener = std::mem::ManuallyDrop::new(unsafe { TcpListener::from_raw_fd(file.as_raw_fd()) });
    listener.local_addr().is_ok_and(|at| at == address)
}

fn set(file: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> bool {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: reads one `c_int`.
    unsafe { libc::setsockopt(file, level, option, (&raw const value).cast(), length) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    #[test]
    fn a_client_that_stops_reading_is_given_up_by_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(limit_connections(address, Duration::from_millis(500), 64 << 10));
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        // Blocks once the buffers are full.
        let error = std::iter::repeat_with(|| server.write_all(&[0; 64 << 10])).find_map(Result::err);
        assert_eq!(error.unwrap().kind(), std::io::ErrorKind::TimedOut);
        drop(server);
        let mut rest = Vec::new();
        // What was sent can be read, and then that it was cut.
        assert!(client.read_to_end(&mut rest).is_err() || !rest.is_empty());
        drop(listener);
        assert!(!limit_connections(address, Duration::from_millis(500), 64 << 10), "it is closed");
    }
}
