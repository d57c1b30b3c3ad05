//! How functions under `#[delouse::main]` start and end: with the server, and otherwise as under `#[tokio::main]`.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

use delouse_tests::{PATIENCE, Program, process, program};

/// Whether tokio's task dump is in this build.
const TASKDUMP: bool = cfg!(all(tokio_unstable, feature = "taskdump"));

fn command(how: &str) -> Command {
    let mut command = program!("lifecycle");
    command.arg(how);
    command
}

#[test]
fn every_flavor_is_served_at_the_address_of_the_attribute() {
    for flavor in ["multi_thread", "current_thread", "local"] {
        let mut command = command(flavor);
        command.env_remove("DELOUSE_BIND");
        let program = Program::start(command);
        program.printed("ready");
        assert_eq!(program.address().ip().to_string(), "127.0.0.3", "{flavor}");
        for path in ["/", "/stacktrace/rust", "/elf/info"] {
            assert_eq!(program.get(path).status, 200, "{flavor} {path}");
        }
        let mut tasks = program.get("/stacktrace/tokio");
        while tasks.status == 503 {
            // The machine is too busy for tokio's task dump.
            tasks = program.get("/stacktrace/tokio");
        }
        if TASKDUMP {
            assert!(tasks.stacktrace().contains("lifecycle::waiting"), "{flavor}: {}", tasks.body);
            assert!(tasks.stacktrace().contains("the main future"), "{flavor}: {}", tasks.body);
        }
    }
}

#[test]
fn the_environment_overrides_the_attribute() {
    let mut command = command("current_thread");
    command.env("DELOUSE_BIND", "127.0.0.4:0");
    let program = Program::start(command);
    assert_eq!(program.address().ip().to_string(), "127.0.0.4");
}

#[test]
fn a_nested_function_leaves_the_server_alone() {
    let program = Program::start(command("nested"));
    program.printed("inner said Some(7132)");
    program.printed("ready");
    assert_eq!(program.get("/").status, 200);
    let servers = program.stderr().iter().filter(|line| line.contains("listening")).count();
    assert_eq!(servers, 1, "{:?}", program.stderr());
}

#[test]
fn servers_can_be_started_again() {
    let mut program = Program::start(command("again_and_again"));
    program.printed("over");
    assert!(program.wait().success());
    assert!(!program.stderr().iter().any(|line| line.contains("not started")), "{:?}", program.stderr());
}

#[test]
fn init_and_the_attribute_share_a_server() {
    let program = Program::start(command("init_around"));
    program.printed("one server: true");
    program.printed("ready");
    assert_eq!(program.get("/").status, 200);
}

#[test]
fn a_runtime_that_hangs_in_its_shutdown_is_still_shown() {
    let program = Program::start(command("exit_hangs"));
    program.printed("ready");
    // The body prints this before it ends; then the main thread is in the runtime's shutdown.
    loop {
        let text = program.get("/stacktrace/rust?format=text&full=true").body;
        assert!(text.contains("lifecycle::never_ends"), "{text}");
        if text.contains("BlockingPool::shutdown") {
            break;
        }
    }
}

#[test]
fn exits_and_panics_end_as_they_would() {
    let mut exits = Program::start(command("exits_inside"));
    assert_eq!(exits.wait().code(), Some(7));
    let mut panics = Program::start(command("panics"));
    let address = panics.address();
    panics.printed("caught: true");
    panics.printed("over");
    assert!(panics.wait().success());
    assert!(TcpStream::connect(address).is_err(), "the server went with the function");
}

#[cfg(tokio_unstable)]
#[test]
fn an_unfinished_body_is_dropped_inside_its_runtime() {
    let mut program = Program::start(command("runtime_gives_up"));
    program.printed("dropped inside a runtime: true");
    program.printed("caught: true");
    assert!(program.wait().success());
}

/// How often a program is killed, or executes itself, and is started again.
fn rounds(usual: usize) -> usize {
    let rounds = std::env::var("DELOUSE_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    rounds.unwrap_or(usual)
}

/// An address on which nothing listens. Clients' own ports are those of 127.0.0.1.
fn free_address(host: Ipv4Addr) -> SocketAddr {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

/// A program that cannot run twice at the same time.
struct Single {
    debug: SocketAddr,
    own: SocketAddr,
    lock: tempfile::NamedTempFile,
}

impl Single {
    fn new() -> Self {
        let [debug, own] = [5, 6].map(|last| free_address(Ipv4Addr::new(127, 0, 0, last)));
        Self { debug, own, lock: tempfile::NamedTempFile::new().unwrap() }
    }

    fn start(&self, round: usize) -> Program {
        let mut command = command("restarts");
        command.arg(self.own.to_string()).arg(self.lock.path()).arg(round.to_string());
        command.env("DELOUSE_BIND", self.debug.to_string());
        Program::start(command)
    }

    fn wait_for(&self, program: &Program, round: usize) {
        let said = program.printed(&format!("round {round}: "));
        assert!(said.ends_with("ready"), "{said}");
        assert_eq!(program.address(), self.debug);
    }

    /// Sends a request, and returns when the program has a forked image of itself, or had one.
    fn ask(&self, program: &Program, round: usize) -> TcpStream {
        let path = if round.is_multiple_of(2) { "/diagnosis" } else { "/core?force=true" };
        let mut client = TcpStream::connect(self.debug).unwrap();
        // Many programs that read their debug information may run beside this one.
        client.set_read_timeout(Some(5 * PATIENCE)).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        match round % 4 {
            // After the answer.
            0 => drop(io::copy(&mut client, &mut io::sink()).unwrap()),
            // While it is sent.
            1 | 3 => client.read_exact(&mut [0; 512]).unwrap(),
            // Before it.
            _ => {
                let begun = Instant::now();
                client.set_nonblocking(true).unwrap();
                let is_unanswered =
                    || client.peek(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
                while process::images(program.pid()).is_empty() && is_unanswered() {
                    assert!(begun.elapsed() < PATIENCE);
                    std::thread::yield_now();
                }
            }
        }
        client
    }
}

/// When a program has ended, its own ports and locks, delouse's port and its end of a pipe are free.
#[test]
fn a_program_that_was_captured_and_killed_can_be_started_again_at_once() {
    let single = Single::new();
    let rounds = rounds(8);
    for round in 0..rounds {
        let mut program = single.start(round);
        single.wait_for(&program, round);
        let _client = single.ask(&program, round);
        let signal = if round % 3 == 0 { libc::SIGTERM } else { libc::SIGKILL };
        // SAFETY: our own child.
        unsafe { libc::kill(program.pid() as i32, signal) };
        program.wait_closely();
        assert!(program.has_closed_stdout(), "round {round}: the program's end of a pipe is still open");
    }
    println!("{rounds} rounds, nothing was taken");
}

/// The same for a program that executes itself.
#[test]
fn a_program_that_was_captured_and_executes_itself_finds_its_ports_free() {
    let single = Single::new();
    let rounds = rounds(4);
    let caller = UdpSocket::bind("127.0.0.1:0").unwrap();
    let program = single.start(0);
    for round in 0..rounds {
        single.wait_for(&program, round);
        let _client = single.ask(&program, round);
        caller.send_to(b"again", single.own).unwrap();
    }
    single.wait_for(&program, rounds);
    let taken: Vec<String> = program.stderr().into_iter().filter(|line| line.contains("is in use")).collect();
    assert_eq!(taken, Vec::<String>::new());
    // Images of earlier programs of this process are not left behind, as the last of them may be.
    drop(single.ask(&program, 0));
    let left = process::children(program.pid());
    assert!(left.iter().all(|child| child.state != 'Z'), "{left:?}");
    println!("{rounds} rounds, nothing was taken");
}
