//! Captures of a program that spawns tasks and ends them as fast as it can: see `src/bin/churn.rs`.
//!
//! The short form takes some seconds; the long one is
//! `DELOUSE_CHURN=2000 cargo test --release -p delouse-tests --test churn -- --nocapture`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::HashSet;
use std::fmt::Write as _;

use delouse_tests::controlled::Controlled;
use delouse_tests::{Program, program};

/// Tasks that live for as long as the program: its idle ones, those that spawn (two for each processor).
struct Lasting {
    idle: usize,
    spawners: usize,
}

/// The monotonic clock, which all processes share.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[test]
fn every_task_that_is_listed_was_alive() {
    let captures: usize = std::env::var("DELOUSE_CHURN").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
    let mut churn = Controlled::of(Program::start(program!("churn")));
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let polls = churn.tell("polls");
    let (polled, idle) = polls.split_once(' ').expect("two numbers");
    assert_eq!(polled, idle, "each idle task was polled once");
    let lasting = Lasting { idle: idle.parse().unwrap(), spawners: 2 * processors };
    let (mut listed, mut late, mut torn) = (0, 0, 0);
    let mut spawned: u64 = churn.tell("spawned").parse().unwrap();
    let first = spawned;
    for capture in 0..captures {
        let seen = capture_once(&mut churn, &lasting);
        listed += seen.short_lived;
        late += seen.late;
        torn += usize::from(seen.torn);
        let so_far = churn.tell("spawned").parse().unwrap();
        assert!(so_far > spawned, "the program makes no progress after capture {capture}");
        spawned = so_far;
    }
    assert_eq!(churn.tell("polls"), polls, "nothing polls idle tasks");
    assert!(churn.program.is_running());
    assert!(listed > 0, "no short-lived task was ever seen");
    println!(
        "{captures} captures while {} tasks came and went; {listed} of these listed, {late} of them just as a \
         worker let go; {torn} captures were not consistent",
        spawned - first
    );
}

/// The result of one capture.
struct Seen {
    /// How many short-lived tasks were listed.
    short_lived: usize,
    /// How many of those a worker was about to release.
    late: usize,
    torn: bool,
}

fn capture_once(churn: &mut Controlled, lasting: &Lasting) -> Seen {
    let from = now();
    let response = churn.program.get("/stacktrace/tokio");
    let until = now();
    assert_eq!(response.status, 200, "{}", response.body);
    let answer = response.json();
    let consistent = answer["capture"]["consistent"].as_bool().unwrap();
    let mut ids = HashSet::new();
    let (mut idle, mut spawners, mut short_lived) = (0, 0, 0);
    let mut request = format!("check {from} {until}");
    for task in answer["tasks"].as_array().unwrap() {
        if task["kind"] != "task" {
            continue;
        }
        let (id, state) = (task["id"].as_u64().unwrap(), task["state"].as_str().unwrap());
        assert!(ids.insert(id), "task {id} is listed twice");
        let spawned_at = task["stack"].to_string();
        if spawned_at.contains("churn::idles_") {
            assert!(state == "idle" || !consistent, "{task}");
            idle += 1;
        } else if spawned_at.contains("churn::spawner") {
            spawners += 1;
        } else {
            short_lived += 1;
            let _infallible = write!(request, " {id}:{state}");
        }
    }
    let notes = &answer["capture"]["notes"];
    if consistent {
        let text = answer["stacktrace"].as_str().unwrap_or_default();
        assert_eq!((idle, spawners), (lasting.idle, lasting.spawners), "{notes}\n{text}");
    }
    let answer = churn.tell(&request);
    let (wrong, late) = answer.split_once(" late").unwrap_or((&answer, ""));
    assert_eq!(wrong, "wrong", "listed, but not alive between {from} and {until}; {notes}");
    let late = late.split_whitespace().count();
    // One for each worker: the release of a task is its last step.
    assert!(late <= lasting.spawners / 2, "{answer}");
    Seen { short_lived, late, torn: !consistent }
}
