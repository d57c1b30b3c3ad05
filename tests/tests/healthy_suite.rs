//! A healthy suite of `#[delouse::test]` again and again: no test fails, nothing is printed, and it takes no longer than
//! with `#[tokio::test]`.
//!
//! `SUITE_RUNS=200` for more than a few runs.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use delouse_tests::measure::{median_and_worst, show};

/// The program with the suite, as the workspace builds it.
fn suite() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--quiet", "--workspace", "--no-run", "--test", "healthy", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.stderr(Stdio::inherit()).output().expect("cargo");
    assert!(output.status.success());
    let messages = String::from_utf8(output.stdout).expect("text");
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut programs = messages.filter_map(|message: serde_json::Value| {
        let is_it = message["target"]["name"] == "healthy";
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    programs.next().expect("a program")
}

/// Runs all tests of a module, and returns how many passed and how long it took.
fn run(suite: &Path, module: &str) -> (u32, Duration) {
    let mut command = Command::new(suite);
    command.arg(format!("{module}::")).env_remove("DELOUSE_TEST_TIMEOUT");
    let begun = Instant::now();
    let output = command.output().expect("it runs");
    let took = begun.elapsed();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && !out.contains("delouse: ") && err.is_empty(), "{module}: {out}{err}");
    let result = out.lines().find_map(|line| line.strip_prefix("test result: ok. "));
    let passed = result.and_then(|result| result.split(' ').next()?.parse().ok());
    (passed.unwrap_or_else(|| panic!("{out}")), took)
}

#[test]
fn no_run_of_a_healthy_suite_fails() {
    let runs: usize = std::env::var("SUITE_RUNS").map_or(5, |runs| runs.parse().expect("a number"));
    let suite = suite();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        // In turns, so that other work of the machine slows both.
        let (with_delouse, with_tokio) = (run(&suite, "with_delouse"), run(&suite, "with_tokio"));
        assert!(with_delouse.0 > 20 && with_delouse.0 == with_tokio.0, "{with_delouse:?} {with_tokio:?}");
        ours.push(with_delouse.1);
        theirs.push(with_tokio.1);
    }
    let [ours, theirs] = [ours, theirs].map(median_and_worst);
    println!("{runs} runs of each: #[delouse::test] {} (longest {})", show(ours.0), show(ours.1));
    println!("#[tokio::test] {} (longest {})", show(theirs.0), show(theirs.1));
}
