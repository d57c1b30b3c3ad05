//! How functions under `#[delouse::main]` begin and end: with the server, and as they would under `#[tokio::main]`.

use std::net::TcpStream;
use std::process::Command;

use delouse_tests::{Program, program};

/// Whether tokio's task dump is in this build.
const TASKDUMP: bool = cfg!(all(tokio_unstable, feature = "taskdump"));

fn command(how: &str) -> Command {
    let mut command = program!("lifecycle");
    command.arg(how);
    command
}

#[test]
fn every_flavor_is_served_where_the_attribute_says() {
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
            // Too busy a machine for tokio's task dump.
            tasks = program.get("/stacktrace/tokio");
        }
        if TASKDUMP {
            assert!(tasks.stacktrace().contains("lifecycle::waiting"), "{flavor}: {}", tasks.body);
            assert!(tasks.stacktrace().contains("the main future"), "{flavor}: {}", tasks.body);
        }
    }
}

#[test]
fn the_environment_goes_before_the_attribute() {
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
fn servers_may_come_and_go() {
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
fn a_runtime_that_hangs_on_its_way_out_is_still_shown() {
    let program = Program::start(command("exit_hangs"));
    program.printed("ready");
    // The body ends after it has said so: then the main thread is in the runtime's shutdown.
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
