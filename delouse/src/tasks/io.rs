//! What is known of the input or output that a leaf waits for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Input or output, by the program's memory, and the descriptor, by the kernel.
///
/// The kernel is queried after the capture, for the running program only; what it does not report is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Io {
    /// Whether the task waits to read or to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The descriptor has just become ready for that: the task is about to be woken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
    /// What it is open on: `tcp`, `tcp listener`, `udp`, `unix`, `pipe`, `pidfd`, `terminal`, `stdin`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The socket's own address: `127.0.0.1:8080`, or the path of a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// The address of the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Which end opened the connection, if the program's listeners show that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// The state of a TCP socket, as in `ss`: `ESTABLISHED`, `CLOSE_WAIT`, `LISTEN`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Bytes that have arrived and were not read; of a listener, connections that were not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_queue: Option<u64>,
    /// Bytes that were written and the other end has not taken yet; of a listener, how many connections may wait to
    /// be accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_queue: Option<u64>,
    /// Bytes of bodies that have come over the HTTP/2 connection and that the program has not read, if they use up the
    /// connection's window: the other end may send no more until some are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_used_up: Option<u64>,
}

/// Whether a task waits to read or to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Direction {
    /// For bytes, a message, a connection or an end to arrive.
    Read,
    /// For room to send.
    Write,
    /// For either.
    ReadOrWrite,
}

/// Which end opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Connection {
    /// The other end connected to a listener at this socket's own address.
    Accepted,
    /// This end connected to a listener of this machine.
    Connected,
}
