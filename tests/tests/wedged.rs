//! A program in which nothing runs any more still answers: every endpoint, within two seconds, again and again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by it")]

use std::time::Duration;

use delouse_tests::{Program, program};

/// Whether tokio's task dump is in this build.
const TASKDUMP: bool = cfg!(all(tokio_unstable, feature = "taskdump"));

/// What an answer may take at most, however wedged the program is.
const BOUND: Duration = Duration::from_secs(2);

fn wedge(how: &str) -> Program {
    let mut command = program!("wedged");
    command.arg(how);
    let program = Program::start(command);
    program.printed("wedged");
    program
}

fn all_answer(how: &str, reason: &str) {
    let mut program = wedge(how);
    for round in 0..50 {
        for path in ["/", "/stacktrace/rust", "/elf/info", "/stacktrace/tokio"] {
            let response = program.get(path);
            assert!(response.took < BOUND, "{path} took {:?} in round {round}", response.took);
            match (path, response.status) {
                ("/stacktrace/tokio", 503) => {
                    let message = response.json()["message"].as_str().unwrap().to_owned();
                    assert!(message.contains(reason), "{message}");
                    assert!(message.contains("Try /stacktrace/rust"), "{message}");
                    assert_eq!(response.header("retry-after"), Some("1"));
                }
                ("/stacktrace/tokio", 501) if !TASKDUMP => {}
                (_, status) => assert_eq!(status, 200, "{path}: {}", response.body),
            }
        }
    }
    assert!(program.is_running());
}

#[test]
fn all_workers_blocked() {
    all_answer("workers", "3 of 3 workers did not answer");
}

#[test]
fn current_thread_blocked() {
    all_answer("current_thread", "its thread is blocked");
}

#[test]
fn local_blocked() {
    all_answer("local", "its thread is blocked");
}
