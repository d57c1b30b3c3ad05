//! What `/diagnosis` and `/waits` cost where many wait for much:
//!
//! ```text
//! cargo bench -p delouse-tests --bench diagnosis               # 100,000 tasks, 10,000 mutexes and channels
//! cargo bench -p delouse-tests --bench diagnosis -- quick      # a tenth of that
//! ```
//!
//! The program is `src/bin/wait_graph.rs`, in two forms: a healthy one, and one whose 10,000 holders of a mutex wait for one
//! another in pairs, with all others behind them. `first` is the first answer, for which debug information is read; the
//! others follow, over HTTP, to the last byte of the text. A diagnosis that finds something takes two samples, 150 ms apart.
//! `/waits` is one look: the graph and its findings. `stop` is how long the program stood still. Memory is `RssAnon`:
//! before the first request, the most meanwhile, after the last, and a minute later.
#![cfg(target_os = "linux")]

use std::thread;
use std::time::Duration;

use delouse_tests::measure::{anonymous, median_and_worst, show, watched};
use delouse_tests::{Program, program};

/// Warm answers.
const ROUNDS: usize = 9;
/// What delouse keeps for the next request, it keeps for a minute.
const FORGOTTEN: Duration = Duration::from_secs(65);

fn main() {
    // cargo passes `--bench`.
    let quick = std::env::args().any(|argument| argument == "quick");
    if cfg!(debug_assertions) {
        println!("(a debug build: figures mean little)");
    }
    let (tasks, resources) = if quick { (10_000, 1_000) } else { (100_000, 10_000) };
    println!(
        "| wait graph | tasks | mutexes | first | diagnosis | worst | waits | worst | stop | MB before | most | after | later |"
    );
    println!("| --- |{}", " ---: |".repeat(12));
    for faulty in [false, true] {
        measure(tasks, resources, faulty, !quick);
    }
}

fn measure(tasks: usize, resources: usize, faulty: bool, and_later: bool) {
    let mut command = program!("wait_graph");
    command.args([tasks.to_string(), resources.to_string()]).args(faulty.then_some("faulty"));
    // The budget is for programs of which nothing is known; here the cost is what is asked for.
    command.env("DELOUSE_PAUSE_BUDGET_MS", "10000");
    let program = Program::start(command);
    program.printed("control ");
    let before = anonymous(program.pid());
    let diagnosis = || {
        let response = program.get("/diagnosis?format=text");
        let first = response.body.lines().next().unwrap_or_default();
        let right = if faulty { first.contains("eaked tasks") } else { first.starts_with("nothing ") };
        assert!(right, "{}", response.body);
        response.took
    };
    let waits = || {
        let response = program.get("/waits?format=text");
        assert!(response.body.starts_with(&format!("{} tasks", tasks + 1)), "{}", response.body);
        response.took
    };
    let all = || {
        let first = diagnosis();
        let warm: Vec<Duration> = (0..ROUNDS).map(|_| diagnosis()).collect();
        let graphs: Vec<Duration> = (0..ROUNDS).map(|_| waits()).collect();
        (first, warm, graphs)
    };
    let ((first, warm, graphs), most) = watched(program.pid(), all);
    let capture = program.get("/diagnosis").json()["capture"]["pause_us"].as_u64();
    let after = anonymous(program.pid());
    let later = and_later.then(|| {
        thread::sleep(FORGOTTEN);
        (anonymous(program.pid()) >> 20).to_string()
    });
    let later = later.unwrap_or_default();
    let (diagnosis, worst_diagnosis) = median_and_worst(warm);
    let (waits, worst_waits) = median_and_worst(graphs);
    println!(
        "| {} | {tasks} | {resources} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {later} |",
        if faulty { "in pairs" } else { "healthy" },
        show(first),
        show(diagnosis),
        show(worst_diagnosis),
        show(waits),
        show(worst_waits),
        capture.map(Duration::from_micros).map(show).unwrap_or_default(),
        before >> 20,
        most >> 20,
        after >> 20,
    );
}
