//! The first answers of fresh processes, for which debug information is read, and the second ones:
//!
//! ```text
//! cargo bench -p delouse-tests --bench first_answers                          # the deadlock example, in the profile of the benchmark
//! cargo bench -p delouse-tests --bench first_answers -- ./target/debug/deadlock   # any program with a debug server
//! ```
//!
//! Each figure is the median of five processes. Memory is `RssAnon`, in MB: before the first request, the most meanwhile, and three
//! seconds after the last answer.
#![cfg(target_os = "linux")]

use std::process::Command;
use std::thread;
use std::time::Duration;

use delouse_tests::measure::{anonymous, median_and_worst, show, watched};
use delouse_tests::{Program, program};

const PROCESSES: usize = 5;
/// In which the program gets to the state that it is asked about.
const SETTLED: Duration = Duration::from_secs(1);
/// In which the answer's memory is given back.
const GIVEN_BACK: Duration = Duration::from_secs(3);

fn main() {
    let named = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    println!("| answer | first | second | MB before | most | after |");
    println!("| --- |{}", " ---: |".repeat(5));
    for path in ["/stacktrace/rust", "/stacktrace/tokio", "/waits", "/diagnosis"] {
        let mut rounds: Vec<_> = (0..PROCESSES).map(|_| ask(named.as_deref(), path)).collect();
        let times = |of: fn(&Round) -> Duration, rounds: &[Round]| {
            show(median_and_worst(rounds.iter().map(of).collect()).0)
        };
        let (first, second) = (times(|round| round.first, &rounds), times(|round| round.second, &rounds));
        let memory = [0, 1, 2].map(|of| {
            rounds.sort_by_key(|round| round.memory[of]);
            (rounds[rounds.len() / 2].memory[of] >> 20).to_string()
        });
        println!("| `{path}` | {first} | {second} | {} |", memory.join(" | "));
    }
}

struct Round {
    first: Duration,
    second: Duration,
    /// Before, the most, after.
    memory: [u64; 3],
}

fn ask(named: Option<&str>, path: &str) -> Round {
    let command = named.map_or_else(|| program!("example-deadlock"), Command::new);
    let program = Program::start(command);
    let _address = program.address();
    thread::sleep(SETTLED);
    let before = anonymous(program.pid());
    let path = format!("{path}?format=text");
    let get = || {
        let response = program.get(&path);
        assert_eq!(response.status, 200, "{}", response.body);
        response.took
    };
    let ((first, second), most) = watched(program.pid(), || (get(), get()));
    thread::sleep(GIVEN_BACK);
    Round { first, second, memory: [before, most, anonymous(program.pid())] }
}
