//! What a list of all tasks costs, side by side with tokio's own `Handle::dump()`:
//!
//! ```text
//! cargo bench -p delouse-tests --bench tasks               # 1,000 to 100,000 tasks
//! cargo bench -p delouse-tests --bench tasks -- quick      # 1,000
//! cargo bench -p delouse-tests --bench tasks -- million    # 1,000,000 as well
//! cargo bench -p delouse-tests --bench tasks -- 100000     # so many only
//! cargo bench -p delouse-tests --bench tasks -- large      # the first answer of a large binary only
//! ```
//!
//! The program is `src/bin/many_tasks.rs`: tasks of eight functions each. Every one of these is a box of its own, with 3 or
//! with 300 different stacks; `plain` has 3 stacks, and each task is one future.
//! `first` is the first text answer, for which debug information is read; `text` those that follow, over HTTP, to
//! the last byte; `stop` how long the program was stopped, as delouse reports it. `dump()` is the time that
//! `Handle::dump()` took, in which no worker does anything else, and which gives traces, no text. `gap` is the longest
//! time between two ticks of a task that sleeps for a millisecond, in the course of either. Memory is `RssAnon`:
//! before the first request, the most during those for text, after the last, and a minute later.
//!
//! The large binary is `scenarios`, which links servers and clients of several libraries; each first answer is of a new
//! process, with the file in the page cache.
#![cfg(target_os = "linux")]

use std::thread;
use std::time::Duration;

use delouse_tests::controlled::Controlled;
use delouse_tests::measure::{anonymous, median_and_worst, show, watched};
use delouse_tests::{Program, program};
use object::{Object, ObjectSection};

const TEXT: &str = "/stacktrace/tokio?format=text";
/// The same capture; the answer has one task.
const ONE: &str = "/stacktrace/tokio?task=1";
/// Warm answers.
const ROUNDS: usize = 15;
/// What delouse keeps for the next request, it keeps for a minute.
const FORGOTTEN: Duration = Duration::from_secs(65);

fn main() {
    // cargo passes `--bench`.
    let asked = |word: &str| std::env::args().any(|argument| argument == word);
    if cfg!(debug_assertions) {
        println!("(a debug build: figures mean little)");
    }
    let wanted: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if wanted.is_empty() {
        large(!asked("quick"));
    }
    if asked("large") {
        return;
    }
    let sizes: &[usize] = match (asked("quick"), asked("million")) {
        _ if !wanted.is_empty() => &wanted,
        (true, _) => &[1_000],
        (_, false) => &[1_000, 10_000, 100_000],
        (_, true) => &[1_000, 10_000, 100_000, 1_000_000],
    };
    println!(
        "| tasks | stacks | first | text | worst | stop | gap | dump() | its gap | dump() / stop | gap / gap | \
         MB before | most | after | later |"
    );
    println!("|{}", " ---: |".repeat(15));
    for &tasks in sizes {
        for stacks in ["plain", "3", "300"] {
            compare(tasks, stacks, !asked("quick"));
        }
    }
}

/// First answers of a binary with much debug information, with 20,000 tasks of three stacks.
fn large(and_later: bool) {
    let file = std::fs::read(env!("CARGO_BIN_EXE_scenarios")).unwrap();
    let file = object::File::parse(&*file).unwrap();
    let debug =
        file.sections().filter(|section| section.name().is_ok_and(|name| name.starts_with(".debug_")));
    let megabytes = debug.map(|section| section.size()).sum::<u64>() >> 20;
    let (mut firsts, mut before, mut most, mut later) = (Vec::new(), 0, 0, String::new());
    for round in 0..5 {
        let mut command = program!("scenarios");
        command.arg("ten_thousand_websockets").env("DELOUSE_PAUSE_BUDGET_MS", "10000");
        let program = Program::start(command);
        program.printed("\"ready\"");
        before = anonymous(program.pid());
        let (response, peak) = watched(program.pid(), || program.get(TEXT));
        assert!(response.body.starts_with("20001 tasks"), "{}", response.body);
        firsts.push(response.took);
        most = most.max(peak);
        if round == 0 && and_later {
            thread::sleep(FORGOTTEN);
            later = (anonymous(program.pid()) >> 20).to_string();
        }
    }
    let (median, worst) = median_and_worst(firsts);
    println!("| MB of debug information | first answer | worst | MB before | most | later |");
    println!("|{}", " ---: |".repeat(6));
    println!(
        "| {megabytes} | {} | {} | {} | {} | {later} |\n",
        show(median),
        show(worst),
        before >> 20,
        most >> 20
    );
}

fn compare(tasks: usize, stacks: &str, and_later: bool) {
    let mut command = program!("many_tasks");
    command.args([&tasks.to_string(), stacks]);
    // The budget is for programs of which nothing is known; here the cost is what is asked for.
    command.env("DELOUSE_PAUSE_BUDGET_MS", "10000");
    let mut controlled = Controlled::of(Program::start(command));
    let pid = controlled.program.pid();
    let before = anonymous(pid);
    let (first, most_at_first) = watched(pid, || text(&controlled, tasks));
    controlled.longest_gap();
    let (warm, most) = watched(pid, || (0..ROUNDS).map(|_| text(&controlled, tasks)).collect::<Vec<_>>());
    let mut stops = Vec::new();
    let mut gaps = Vec::new();
    for _ in 0..ROUNDS {
        controlled.longest_gap();
        let answer = controlled.program.get(ONE).json();
        assert_eq!(answer["capture"]["consistent"], true, "{answer}");
        stops.push(Duration::from_micros(answer["capture"]["pause_us"].as_u64().unwrap()));
        gaps.push(controlled.longest_gap());
    }
    let after = settled(pid);
    let (mut dumps, mut dump_gaps, mut fewest) = (Vec::new(), Vec::new(), tasks);
    for _ in 0..5 {
        controlled.longest_gap();
        // Now and then it never ends, and stops the runtime for good.
        let Some(answer) = controlled.try_tell("dump") else { break };
        let (took, dumped) = answer.split_once(' ').unwrap_or_else(|| panic!("{answer}"));
        let took = took.parse().unwrap_or_else(|_| panic!("{answer}"));
        fewest = fewest.min(dumped.parse().unwrap_or_else(|_| panic!("{answer}")));
        dumps.push(Duration::from_micros(took));
        dump_gaps.push(controlled.longest_gap());
    }
    let mut flaws = if dumps.len() < 5 { format!(", froze after {}", dumps.len()) } else { String::new() };
    if fewest < tasks {
        flaws.push_str(&format!(", saw {fewest}"));
    }
    let later = and_later.then(|| {
        thread::sleep(FORGOTTEN);
        anonymous(pid)
    });
    let (text, worst) = median_and_worst(warm);
    let (stop, gap) = (median_and_worst(stops).0, median_and_worst(gaps).0);
    let of = |times: Vec<Duration>| if times.is_empty() { Duration::ZERO } else { median_and_worst(times).0 };
    let (dump, dump_gap) = (of(dumps), of(dump_gaps));
    println!(
        "| {tasks} | {stacks} | {} | {} | {} | {} | {} | {}{flaws} | {} | {:.1} | {:.1} | {} | {} | {} | {} |",
        show(first),
        show(text),
        show(worst),
        show(stop),
        show(gap),
        show(dump),
        show(dump_gap),
        dump.as_secs_f64() / stop.as_secs_f64(),
        dump_gap.as_secs_f64() / gap.as_secs_f64(),
        before >> 20,
        most.max(most_at_first) >> 20,
        after >> 20,
        later.map(|later| (later >> 20).to_string()).unwrap_or_default(),
    );
}

/// Anonymous memory of a program once it stays the same: what an answer was made of is freed after it.
fn settled(pid: u32) -> u64 {
    let mut before = anonymous(pid);
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = anonymous(pid);
        if now == std::mem::replace(&mut before, now) {
            return now;
        }
    }
}

/// One text answer, which has all tasks in it.
fn text(controlled: &Controlled, tasks: usize) -> Duration {
    let response = controlled.program.get(TEXT);
    assert_eq!(response.status, 200, "{}", response.body);
    let counted = response.body.split(' ').next().and_then(|count| count.parse::<usize>().ok());
    assert!(counted.is_some_and(|counted| counted >= tasks), "{}", response.body);
    response.took
}
