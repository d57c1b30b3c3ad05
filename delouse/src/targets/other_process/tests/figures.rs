//! Measures for how long captures hold up a process, beside gdb and gcore:
//!
//! ```text
//! cargo test --release -p delouse --no-default-features --features engine --lib other_process::tests::figures -- --ignored --nocapture
//! ```

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::{AttachOptions, attach};
use super::harness::Target;
use crate::snapshot::Snapshot as _;

const OPTIONS: AttachOptions = AttachOptions { pause: true, max_pause: Duration::from_millis(500) };

/// Runs `work`, and prints the longest gap of the target's ticker meanwhile, and how long it took.
fn row(target: &mut Target, what: &str, rounds: usize, mut work: impl FnMut(u32) -> String) {
    let mut gaps = Vec::new();
    let mut detail = String::new();
    let began = Instant::now();
    for _ in 0..rounds {
        let _reset = target.report();
        detail = work(target.pid());
        gaps.push(target.report()["gap"].parse::<u64>().unwrap());
    }
    gaps.sort_unstable();
    let (median, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    let each = began.elapsed() / rounds as u32;
    println!(
        "  {what:24} longest gap of a 1 ms ticker: median {median:>8} us, worst {worst:>8} us; {each:.1?} each; {detail}"
    );
}

fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) => format!("{status}"),
        Err(error) => format!("not run: {error}"),
    }
}

#[test]
#[ignore = "prints figures, and takes minutes"]
fn figures() {
    let directory = tempfile::tempdir().unwrap();
    let core = directory.path().join("core");
    for (threads, megabytes) in [(10, 50), (198, 50), (998, 50), (10, 1000)] {
        println!("{} threads, {megabytes} MB", threads + 2);
        let mut target = Target::start(&format!("ticker {}", megabytes * 10_000 + threads));
        row(&mut target, "nothing", 10, |_| {
            std::thread::sleep(Duration::from_millis(50));
            String::new()
        });
        row(&mut target, "an image", 20, |pid| {
            let image = attach(pid, &OPTIONS).unwrap();
            let capture = image.capture();
            format!(
                "pause {} us, held {} us, capture {} us, consistent {}, {:?}",
                capture.pause_us, capture.held_us, capture.total_us, capture.consistent, capture.notes
            )
        });
        row(&mut target, "without a pause", 5, |pid| {
            let live = attach(pid, &AttachOptions { pause: false, ..OPTIONS }).unwrap();
            format!("capture {} us", live.capture().total_us)
        });
        row(&mut target, "gdb, all backtraces", 1, |pid| {
            run("gdb", &["-p", &pid.to_string(), "-batch", "-ex", "thread apply all bt"])
        });
        let path = core.to_string_lossy();
        row(&mut target, "gcore", 1, |pid| run("gcore", &["-o", &path, &pid.to_string()]));
        target.finish();
    }
}
