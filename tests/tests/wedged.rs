//! A program whose worker threads are all blocked still answers: every endpoint, within two seconds, repeatedly.

use std::{collections::HashMap, time::Duration};

use delouse_tests::{Program, program, request};

/// Whether tokio's task dump is in this build.
const TASKDUMP: bool = cfg!(all(tokio_unstable, feature = "taskdump"));

/// The longest that an answer may take.
const BOUND: Duration = Duration::from_secs(2);
/// How many answers of each endpoint may exceed it: the first, which reads the debug information (benchmarks measure how long
/// that takes), and two for which the machine may have been too busy.
const EXEMPT: usize = 3;

fn wedge(how: &str) -> Program {
    let mut command = program!("wedged");
    command.arg(how);
    let program = Program::start(command);
    program.printed("wedged");
    program
}

/// `blocked` is the function of the task that blocks its thread.
fn all_answer(how: &str, blocked: Option<&str>, reason: &str) {
    let mut program = wedge(how);
    let mut took = HashMap::<_, Vec<Duration>>::new();
    for _ in 0..40 {
        for path in
            ["/", "/stacktrace/rust", "/elf/info", "/stacktrace/tokio", "/stacktrace/tokio?engine=taskdump"]
        {
            let response = program.get(path);
            took.entry(path).or_default().push(response.took);
            match (path, response.status) {
                ("/stacktrace/tokio?engine=taskdump", 503) => {
                    let message = response.json()["message"].as_str().unwrap().to_owned();
                    assert!(message.contains(reason), "{message}");
                    assert!(message.contains("Try /stacktrace/rust"), "{message}");
                    assert_eq!(response.header("retry-after"), Some("1"));
                }
                ("/stacktrace/tokio?engine=taskdump", 501) if !TASKDUMP => {}
                (_, status) => assert_eq!(status, 200, "{path}: {}", response.body),
            }
            if path == "/stacktrace/rust" {
                let text = response.stacktrace();
                assert!(text.contains("wedged::block at "), "{text}");
            }
            if let (Some(blocked), "/stacktrace/tokio") = (blocked, path) {
                let text = response.stacktrace();
                assert!(text.contains(blocked) && text.contains("running"), "{text}");
            }
        }
    }
    for (path, mut took) in took {
        took.sort();
        assert!(took[took.len() - 1 - EXEMPT] < BOUND, "{path} took {took:?}");
    }
    assert!(program.is_running());
}

#[test]
fn all_workers_blocked() {
    all_answer("workers", Some("wedged::workers::"), "3 of 3 workers did not answer");
}

#[test]
fn current_thread_blocked() {
    all_answer("current_thread", None, "its thread is blocked");
}

#[test]
fn local_blocked() {
    all_answer("local", None, "its thread is blocked");
}

/// Reading debug information takes seconds in a build without optimisations. The server answers requests for `/` meanwhile. The
/// test counts these answers instead of measuring time, so that it does not depend on the load of the machine.
#[test]
fn the_server_answers_while_debug_information_is_read() {
    for load in ["/diagnosis", "/stacktrace/rust", "/stacktrace/tokio", "/waits"] {
        let program = wedge("workers");
        let address = program.address();
        let (mut meanwhile, mut longest) = (0, Duration::ZERO);
        let loaded = std::thread::scope(|scope| {
            let loading = scope.spawn(move || request("GET", address, load, &[]));
            while !loading.is_finished() {
                let answer = program.get("/?format=text");
                assert_eq!(answer.status, 200);
                meanwhile += u32::from(!loading.is_finished());
                longest = longest.max(answer.took);
            }
            loading.join().unwrap()
        });
        assert_eq!(loaded.status, 200, "{}", loaded.body);
        println!("{load} took {:?}; / answered {meanwhile} times, in {longest:?} at most", loaded.took);
        assert!(meanwhile >= 5, "{load} took {:?}; / answered {meanwhile} times meanwhile", loaded.took);
    }
}
