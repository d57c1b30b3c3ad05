//! Limits of the connections that a listening socket accepts.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use rustix::net::{getsockname, sockopt};

/// Descriptors below this number are searched for the socket: it was just opened, and the kernel assigns the lowest free
/// number.
const SEARCHED: RawFd = 1 << 14;

/// Sets options of the socket that listens at `address`, which its connections inherit: the kernel closes a connection on
/// which it could not send for `stalled`, and buffers at most about twice `buffer` bytes for each connection. The socket
/// must be delouse's own; its descriptor is searched, because the server does not expose it. Returns whether the socket was
/// found and the options were set.
pub(crate) fn limit_connections(address: SocketAddr, stalled: Duration, buffer: usize) -> bool {
    let Some(listener) = (0..SEARCHED).find_map(|file| listening_at(file, address)) else { return false };
    let stalled = u32::try_from(stalled.as_millis()).unwrap_or(u32::MAX);
    // Also while the client's window is closed (tcp(7), TCP_USER_TIMEOUT).
    sockopt::set_tcp_user_timeout(listener, stalled).is_ok()
        && sockopt::set_socket_send_buffer_size(listener, buffer).is_ok()
}

fn listening_at(file: RawFd, address: SocketAddr) -> Option<BorrowedFd<'static>> {
    // SAFETY: the calls fail if the number is not an open socket. The caller uses it only if it is the server's listener,
    // which stays open.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    let is_listening = sockopt::socket_acceptconn(file).ok()?;
    let at = SocketAddr::try_from(getsockname(file).ok()?).ok()?;
    (is_listening && at == address).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_closes_the_connection_of_a_client_that_stops_reading() {
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
        // The client can read what was sent, and then sees that the connection was reset.
        assert!(client.read_to_end(&mut rest).is_err() || !rest.is_empty());
        drop(listener);
        assert!(!limit_connections(address, Duration::from_millis(500), 64 << 10), "the listener is closed");
    }
}
