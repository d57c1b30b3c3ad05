//! What a leaf waits for, as text.

use std::fmt::Write as _;

use super::format::{count, in_time};
use super::kinds;
use crate::tasks::{Connection, Direction, Io, ResourceKind, WaitsOn};

/// `mutex 0x55…`, `to read from tcp 127.0.0.1:8080 ← 127.0.0.1:51234 (fd 12, ESTABLISHED)`.
pub(super) fn text(waits: &WaitsOn) -> String {
    with_details(what(waits), waits)
}

/// The same behind `waits for`: `input from tcp 127.0.0.1:8080 ← 127.0.0.1:51234 (fd 12, ESTABLISHED)`.
pub(super) fn noun(waits: &WaitsOn) -> String {
    let what = what(waits);
    let nouns = [
        ("for ", ""),
        ("to read from or write to ", "input from or room in "),
        ("to read from ", "input from "),
        ("to write to ", "room in "),
    ];
    let noun = nouns.into_iter().filter(|_| waits.kind == ResourceKind::Io).find_map(|(verb, noun)| {
        let rest = what.strip_prefix(verb)?;
        Some(format!("{noun}{rest}"))
    });
    with_details(noun.unwrap_or(what), waits)
}

fn with_details(mut text: String, waits: &WaitsOn) -> String {
    let mut details = details(waits);
    if waits.kind == ResourceKind::Io {
        let is_named = waits.io.as_ref().is_some_and(|io| io.file.is_some());
        details.splice(0..0, waits.fd.map(|fd| format!("fd {fd}")).filter(|_| is_named));
    }
    if !details.is_empty() {
        let _infallible = write!(text, " ({})", details.join(", "));
    }
    text
}

/// The resource itself.
fn what(waits: &WaitsOn) -> String {
    let address = || waits.address.map(|address| format!(" {address}")).unwrap_or_default();
    match (waits.kind, waits) {
        (ResourceKind::Io, _) => io(waits),
        (ResourceKind::Join, WaitsOn { task: Some(task), .. }) => format!("the end of task {task}"),
        (ResourceKind::Signal, WaitsOn { signal: Some(number), .. }) => {
            format!("signal {number}{}", signal_name(*number))
        }
        (ResourceKind::Process, WaitsOn { pid: Some(pid), .. }) => format!("the end of child process {pid}"),
        (ResourceKind::Http2Stream, WaitsOn { stream: Some(stream), .. }) => {
            format!("HTTP/2 stream {stream} of connection{}", address())
        }
        // Those of which each task has one of its own.
        (kind, _) if kind.is_outside() || matches!(kind, ResourceKind::Never | ResourceKind::Unknown) => {
            kinds::words(kind).wanted.to_owned()
        }
        (kind, _) => format!("{}{}", kinds::named(kind, kind.noun()), address()),
    }
}

fn details(waits: &WaitsOn) -> Vec<String> {
    let mut details = Vec::new();
    match (waits.kind, &waits.io) {
        (ResourceKind::Io, Some(io)) => queues(io, &mut details),
        (ResourceKind::Join, Some(io)) => details.extend(blocking(io)),
        _ => {}
    }
    details.extend(waits.senders.map(|senders| count(senders as usize, "sender")));
    match (waits.kind, waits.wanted) {
        (ResourceKind::Semaphore, Some(wanted)) => {
            details.extend(waits.available.map(|available| format!("wants {wanted}, {available} available")));
        }
        (ResourceKind::Barrier, Some(wanted)) => {
            details.extend(waits.arrived.map(|arrived| format!("{arrived} of {wanted} have arrived")));
        }
        _ => {}
    }
    details.extend(waits.in_ms.map(in_time));
    details
}

/// `to read from tcp 127.0.0.1:8080 ← 127.0.0.1:51234`.
fn io(waits: &WaitsOn) -> String {
    let io = waits.io.as_deref();
    let listens = io.and_then(|io| io.file.as_ref()).is_some_and(|file| file.ends_with(" listener"));
    let begin = match io.and_then(|io| io.direction) {
        Some(Direction::Read) if listens => "for a connection at",
        Some(Direction::Read) => "to read from",
        Some(Direction::Write) => "to write to",
        Some(Direction::ReadOrWrite) => "to read from or write to",
        None => "I/O",
    };
    let file = io.and_then(file);
    match (file, waits.fd, waits.address) {
        (Some(file), ..) => format!("{begin} {file}"),
        (None, Some(fd), _) => format!("{begin} fd {fd}"),
        (None, None, Some(address)) => format!("{begin} {address}"),
        (None, None, None) => begin.to_owned(),
    }
}

/// `tcp 127.0.0.1:8080 ← 127.0.0.1:51234`: what the descriptor is, its own end, the other end; the arrow comes from the
/// end that opened the connection.
fn file(io: &Io) -> Option<String> {
    let mut text = io.file.clone()?;
    if let Some(local) = &io.local {
        let _infallible = write!(text, " {local}");
    }
    if let Some(peer) = &io.peer {
        let arrow = match io.connection {
            Some(Connection::Accepted) => "←",
            Some(Connection::Connected) => "→",
            None => "↔",
        };
        let _infallible = write!(text, " {arrow} {peer}");
    }
    Some(text)
}

/// The state of a socket and what is in its queues.
fn queues(io: &Io, details: &mut Vec<String>) {
    if io.ready {
        details.push("ready: the task is about to be woken".to_owned());
    }
    match io.state.as_deref() {
        None | Some("LISTEN") => {}
        Some("CLOSE_WAIT") => details.push("CLOSE_WAIT: the other end has closed its side".to_owned()),
        Some(state) => details.push(state.to_owned()),
    }
    if io.state.as_deref() == Some("LISTEN") {
        let most = io.send_queue.map(|most| format!(" of at most {most}")).unwrap_or_default();
        let waiting = io.receive_queue.filter(|waiting| *waiting > 0);
        details.extend(waiting.map(|waiting| format!("{waiting}{most} connections wait to be accepted")));
        return;
    }
    let shown = |bytes: Option<u64>| bytes.filter(|bytes| *bytes > 0);
    details
        .extend(shown(io.receive_queue).map(|bytes| format!("{bytes} bytes have arrived and were not read")));
    details
        .extend(shown(io.send_queue).map(|bytes| format!("{bytes} bytes that the other end has not taken")));
}

/// What a function of the blocking pool reads or writes.
fn blocking(io: &Io) -> Option<String> {
    let file = io.file.as_ref()?;
    let name = if file == "file" { "a file" } else { file };
    Some(match io.direction {
        Some(Direction::Read) => format!("which reads {name} on the blocking pool"),
        Some(Direction::Write) => format!("which writes {name} on the blocking pool"),
        _ => format!("which uses {name} on the blocking pool"),
    })
}

/// ` (SIGINT)`, as in signal(7), on x86 and ARM.
fn signal_name(number: i32) -> String {
    const NAMES: &[&str] = &[
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    at.and_then(|at| NAMES.get(at)).map(|name| format!(" (SIG{name})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(direction: Option<Direction>, io: Io) -> WaitsOn {
        let io = Some(Box::new(Io { direction, ..io }));
        WaitsOn { kind: ResourceKind::Io, fd: Some(7), io, ..WaitsOn::default() }
    }

    fn tcp(state: &str, connection: Option<Connection>) -> Io {
        Io {
            file: Some("tcp".to_owned()),
            local: Some("127.0.0.1:80".to_owned()),
            peer: Some("127.0.0.1:5000".to_owned()),
            state: Some(state.to_owned()),
            connection,
            ..Io::default()
        }
    }

    #[test]
    fn sockets_with_direction_state_and_queues() {
        let full = Io { send_queue: Some(4096), ..tcp("CLOSE_WAIT", Some(Connection::Accepted)) };
        let waits = socket(Some(Direction::Write), full);
        let details = "(fd 7, CLOSE_WAIT: the other end has closed its side, 4096 bytes that the other end has not taken)";
        assert_eq!(text(&waits), format!("to write to tcp 127.0.0.1:80 ← 127.0.0.1:5000 {details}"));
        assert_eq!(noun(&waits), format!("room in tcp 127.0.0.1:80 ← 127.0.0.1:5000 {details}"));
        let waits = socket(Some(Direction::Read), tcp("ESTABLISHED", Some(Connection::Connected)));
        assert_eq!(text(&waits), "to read from tcp 127.0.0.1:80 → 127.0.0.1:5000 (fd 7, ESTABLISHED)");
        let waits = socket(None, tcp("ESTABLISHED", None));
        assert_eq!(text(&waits), "I/O tcp 127.0.0.1:80 ↔ 127.0.0.1:5000 (fd 7, ESTABLISHED)");
        assert_eq!(
            text(&socket(Some(Direction::ReadOrWrite), Io::default())),
            "to read from or write to fd 7"
        );
        assert_eq!(noun(&socket(Some(Direction::Read), Io::default())), "input from fd 7");
    }

    #[test]
    fn listeners_with_their_queues() {
        let listener = Io {
            file: Some("tcp listener".to_owned()),
            local: Some("127.0.0.1:80".to_owned()),
            state: Some("LISTEN".to_owned()),
            receive_queue: Some(3),
            send_queue: Some(128),
            ..Io::default()
        };
        let waits = socket(Some(Direction::Read), listener);
        let rest = "a connection at tcp listener 127.0.0.1:80 (fd 7, 3 of at most 128 connections wait to be accepted)";
        assert_eq!(text(&waits), format!("for {rest}"));
        assert_eq!(noun(&waits), rest);
    }

    #[test]
    fn signals_children_and_blocking_reads() {
        let of = |kind| WaitsOn { kind, ..WaitsOn::default() };
        let signal = |number| text(&WaitsOn { signal: Some(number), ..of(ResourceKind::Signal) });
        assert_eq!(
            (signal(2), signal(12), signal(40)),
            ("signal 2 (SIGINT)".to_owned(), "signal 12 (SIGUSR2)".to_owned(), "signal 40".to_owned())
        );
        let child = WaitsOn { pid: Some(9), fd: Some(3), ..of(ResourceKind::Process) };
        assert_eq!(text(&child), "the end of child process 9");
        let stdin = Io { file: Some("stdin".to_owned()), direction: Some(Direction::Read), ..Io::default() };
        let join = WaitsOn { task: Some(4), io: Some(Box::new(stdin)), ..of(ResourceKind::Join) };
        assert_eq!(text(&join), "the end of task 4 (which reads stdin on the blocking pool)");
        assert_eq!(text(&of(ResourceKind::Never)), "nothing: the future never ends");
    }
}
