//! What captures cost the program, side by side with gdb and gcore:
//!
//! ```text
//! cargo bench -p delouse-tests --bench threads             # everything: about five minutes
//! cargo bench -p delouse-tests --bench threads -- quick    # 200 threads, 50 MB
//! OUTSIDE=$PWD/target/release/delouse cargo bench …        # the command `delouse` on the same program, too
//! ```
//!
//! The program is `src/bin/sized_process.rs`: threads that rest, memory in 4K pages that were all written, and a
//! ticker that sleeps for a millisecond and notes the longest time between two ticks. That gap is what the
//! program notices; it is taken over each single capture, beside the gap of an equally long time in which
//! nothing is asked ("nothing"). `stop` is what delouse itself reports: for rolling captures, the longest that
//! any one thread was away, and for others, how long all stood still. `per thread` is the stop through the
//! number of threads for those that stop all.
#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use delouse_tests::controlled::Controlled;
use delouse_tests::measure::{median_and_worst, show};
use delouse_tests::program;
use delouse_tests::wire::Wire;

/// What is compared.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Nothing,
    Rolling,
    Freeze,
    FreezeForkThaw,
    Gdb,
    Gcore,
    /// Memory is in small pages each time it is asked: that they are joined before is part of the capture.
    JoinFreezeForkThaw,
    /// `delouse tasks PID`, from outside.
    Tasks,
    /// `delouse diagnose PID`.
    Diagnose,
}

const WAYS: [Way; 9] = [
    Way::Nothing,
    Way::Rolling,
    Way::Freeze,
    Way::FreezeForkThaw,
    Way::Gdb,
    Way::Gcore,
    Way::JoinFreezeForkThaw,
    Way::Tasks,
    Way::Diagnose,
];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Rolling => "rolling",
            Self::Freeze => "freeze",
            Self::FreezeForkThaw => "freeze, fork, thaw",
            Self::Gdb => "gdb -p, all backtraces",
            Self::Gcore => "gcore",
            Self::JoinFreezeForkThaw => "join, freeze, fork, thaw",
            Self::Tasks => "`delouse tasks`",
            Self::Diagnose => "`delouse diagnose`",
        }
    }

    /// Debuggers are slow: medians of few.
    fn rounds(self) -> usize {
        match self {
            Self::Gdb | Self::Gcore => 3,
            Self::FreezeForkThaw | Self::JoinFreezeForkThaw | Self::Tasks | Self::Diagnose => 7,
            Self::Nothing | Self::Rolling | Self::Freeze => 15,
        }
    }
}

/// One capture.
struct Sample {
    gap: Duration,
    stop: Option<Duration>,
    took: Duration,
}

/// The medians of some.
struct Medians {
    gap: Duration,
    worst_gap: Duration,
    stop: Option<Duration>,
    took: Duration,
}

fn main() {
    // cargo passes `--bench`.
    let quick = std::env::args().any(|argument| argument == "quick");
    if cfg!(debug_assertions) {
        println!("(a debug build: figures mean little)");
    }
    cold_and_warm();
    println!();
    let all = [(200, 50), (200, 1024), (10, 50), (1000, 50), (1000, 1024), (10, 1024)];
    let sizes = if quick { &all[..1] } else { &all[..] };
    println!(
        "| threads | MB | capture | stop | per thread | longest gap, median | worst | took | gap of gcore / gap |"
    );
    println!("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for &(threads, megabytes) in sizes {
        compare(threads, megabytes);
    }
}

fn compare(threads: usize, megabytes: usize) {
    let mut controlled = Controlled::start(program!("sized_process"), threads, megabytes);
    // Debug information is opened once.
    let _cold = controlled.program.get("/stacktrace/rust");
    let medians: Vec<_> = WAYS
        .into_iter()
        .filter_map(|way| {
            let samples: Option<Vec<_>> = (0..way.rounds()).map(|_| sample(&mut controlled, way)).collect();
            Some((way, medians(samples?)))
        })
        .collect();
    let gcore = medians.iter().find(|(way, _)| *way == Way::Gcore).map(|(_, medians)| medians.gap);
    for (way, Medians { gap, worst_gap, stop, took }) in medians {
        let each = stop.filter(|_| way != Way::Rolling).map(|stop| stop / threads as u32);
        println!(
            "| {threads} | {megabytes} | {} | {} | {} | {} | {} | {} | {} |",
            way.name(),
            stop.map(show).unwrap_or_default(),
            each.map(show).unwrap_or_default(),
            show(gap),
            show(worst_gap),
            show(took),
            gcore.map(|gcore| format!("{:.1}", gcore.as_secs_f64() / gap.as_secs_f64())).unwrap_or_default(),
        );
    }
}

/// `None` where the tool is missing.
fn sample(controlled: &mut Controlled, way: Way) -> Option<Sample> {
    if way == Way::JoinFreezeForkThaw {
        controlled.tell("joinable");
    }
    controlled.longest_gap();
    let begun = Instant::now();
    let stop = match way {
        Way::Nothing => {
            thread::sleep(Duration::from_millis(50));
            None
        }
        Way::Rolling => Some(stacks(controlled, "/stacktrace/rust")),
        Way::Freeze => Some(stacks(controlled, "/stacktrace/rust?consistent=true")),
        Way::FreezeForkThaw | Way::JoinFreezeForkThaw => {
            let join = way == Way::JoinFreezeForkThaw;
            let mut wire = Wire::connect(controlled.program.address()).unwrap();
            let head = wire.ask("GET", &format!("/core?force=true&huge_pages={join}"), &[]).unwrap();
            let stop = head.header("x-delouse-pause-us").unwrap().parse().unwrap();
            drop(wire.body(&head).unwrap());
            Some(Duration::from_micros(stop))
        }
        Way::Tasks | Way::Diagnose => {
            let what = if way == Way::Tasks { "tasks" } else { "diagnose" };
            let pid = controlled.program.pid().to_string();
            run(Command::new(std::env::var_os("OUTSIDE")?).args([what, &pid]))?;
            None
        }
        Way::Gdb => {
            let pid = controlled.program.pid().to_string();
            let words = [
                "-nx",
                "-batch",
                "-ex",
                "set debuginfod enabled off",
                "-ex",
                "thread apply all bt",
                "-p",
                &pid,
            ];
            run(Command::new("gdb").args(words))?;
            None
        }
        Way::Gcore => {
            let directory = tempfile::tempdir().unwrap();
            let words = ["-o", "core", &controlled.program.pid().to_string()];
            run(Command::new("gcore").args(words).current_dir(directory.path()))?;
            None
        }
    };
    let took = begun.elapsed();
    Some(Sample { gap: controlled.longest_gap(), stop, took })
}

fn run(command: &mut Command) -> Option<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success()).then_some(())
}

/// Asks for stacks and returns the stop.
fn stacks(controlled: &Controlled, path: &str) -> Duration {
    let response = controlled.program.get(path);
    assert_eq!(response.status, 200, "{}", response.body);
    Duration::from_micros(response.json()["capture"]["pause_us"].as_u64().unwrap())
}

fn medians(samples: Vec<Sample>) -> Medians {
    let of = median_and_worst;
    let (gap, worst_gap) = of(samples.iter().map(|sample| sample.gap).collect());
    let stops: Option<Vec<_>> = samples.iter().map(|sample| sample.stop).collect();
    let (took, _) = of(samples.iter().map(|sample| sample.took).collect());
    Medians { gap, worst_gap, stop: stops.map(|stops| of(stops).0), took }
}

/// `/stacktrace/rust` of 200 threads: the first one, and later ones.
fn cold_and_warm() {
    println!("| `/stacktrace/rust` of 200 threads | median | worst |");
    println!("| --- | ---: | ---: |");
    let mut cold: Vec<Duration> = Vec::new();
    let mut warm: Vec<Duration> = Vec::new();
    for _ in 0..3 {
        let controlled = Controlled::start(program!("sized_process"), 200, 50);
        cold.push(controlled.program.get("/stacktrace/rust").took);
        warm.extend((0..20).map(|_| controlled.program.get("/stacktrace/rust").took));
    }
    for (what, times) in [("cold", cold), ("warm", warm)] {
        let (median, worst) = median_and_worst(times);
        println!("| {what} | {} | {} |", show(median), show(worst));
    }
}
