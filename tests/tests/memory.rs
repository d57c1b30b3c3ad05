//! What answers about a large program take of its memory is given back.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::thread;
use std::time::{Duration, Instant};

use delouse_tests::measure::anonymous;
use delouse_tests::wire::Wire;
use delouse_tests::{Program, program};

const TASKS: usize = 100_000;
/// What delouse keeps for the next answer: types, and what it learned of the program. And what glibc keeps at the upper end of
/// the arena of the thread that reads tasks.
const KEPT: u64 = 28 << 20;

/// After a minute without a question that goes, too, and much else with it.
const SOON: Duration = Duration::from_secs(30);

/// The most that the program has while `ask` runs.
fn most_while<T>(pid: u32, ask: impl FnOnce() -> T + Send) -> u64
where
    T: Send,
{
    thread::scope(|scope| {
        let asking = scope.spawn(ask);
        let mut most = 0;
        while !asking.is_finished() {
            most = most.max(anonymous(pid));
            thread::sleep(Duration::from_millis(1));
        }
        most
    })
}

/// Clients that ask and then do not read: what their answers are made of is kept for few of them.
#[test]
fn clients_that_stop_reading_keep_little_memory() {
    /// An answer of some megabytes, more than sockets take.
    const TASKS: usize = 10_000;
    const CLIENTS: usize = 40;
    let mut command = program!("many_tasks");
    command.args([&TASKS.to_string(), "plain"]).env("DELOUSE_PAUSE_BUDGET_MS", "10000");
    let program = Program::start(command);
    program.printed("control ");
    let (pid, address) = (program.pid(), program.address());
    let before = anonymous(pid);
    let mut clients = Vec::new();
    while clients.len() < CLIENTS {
        let mut wire = Wire::connect(address).unwrap();
        match wire.ask("GET", "/stacktrace/tokio", &[]).unwrap().status {
            200 => clients.push(wire),
            // The last ones have only just been handed something.
            status => assert_eq!(status, 429),
        }
    }
    let kept = anonymous(pid).saturating_sub(before);
    println!("{CLIENTS} clients that do not read: {} MB", kept >> 20);
    assert!(kept < 140 << 20, "{kept} bytes");
    // A client that reads gets all of it.
    let answer = loop {
        match program.get("/stacktrace/tokio") {
            answer if answer.status == 429 => {}
            answer => break answer,
        }
    };
    assert!(answer.json()["tasks"].as_array().unwrap().len() > TASKS);
}

#[test]
fn memory_of_an_answer_is_given_back() {
    let mut command = program!("many_tasks");
    command.args([&TASKS.to_string(), "plain"]).env("DELOUSE_PAUSE_BUDGET_MS", "10000");
    let program = Program::start(command);
    program.printed("control ");
    let pid = program.pid();
    let before = anonymous(pid);
    for path in ["/stacktrace/tokio?format=text", "/stacktrace/tokio?task=17", "/waits?format=text"] {
        let most = most_while(pid, || {
            let answer = program.get(path);
            assert_eq!(answer.status, 200, "{}", answer.body);
        });
        let needed = most.saturating_sub(before);
        assert!(
            needed > KEPT,
            "{path} took {needed} bytes: too few for a test of whether they are given back"
        );
        let since = Instant::now();
        loop {
            let left = anonymous(pid).saturating_sub(before);
            if left < KEPT {
                println!("{path}: {} MB, of which {} are left", needed >> 20, left >> 20);
                break;
            }
            assert!(since.elapsed() < SOON, "{path}: of {needed} bytes {left} are left");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
