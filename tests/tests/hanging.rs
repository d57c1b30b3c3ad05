//! Tests that hang under `#[delouse::test]`: each fails, and the first line of its message says why.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

use delouse_tests::hangs::{ENDING, FAILING, HEALTHY, names};

/// The program with the tests of the package `hanging`, as the workspace builds it.
fn hangs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = Command::new(env!("CARGO"))
            .args(["test", "--quiet", "--workspace", "--no-run", "--test", "hangs", "--message-format=json"])
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo");
        assert!(cargo.status.success());
        let messages = String::from_utf8(cargo.stdout).expect("text");
        let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut programs = messages.filter_map(|message: serde_json::Value| {
            let is_it = message["target"]["name"] == "hangs";
            message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
        });
        programs.next().expect("a program")
    })
}

fn run(tests: &[&str]) -> Output {
    let mut command = Command::new(hangs());
    command.arg("--exact").args(tests).env_remove("DELOUSE_TEST_TIMEOUT").env_remove("RUST_BACKTRACE");
    command.output().expect("it runs")
}

/// The first line of the panic's message, if the test `name` fails; or of what is printed before the process ends.
fn verdict(name: &str, ends_process: bool) -> String {
    let output = run(&[name]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let lines = if ends_process {
        assert_eq!(output.status.code(), None, "{name} ends by a signal");
        let last = err.split("=== delouse: end ===\n").last().unwrap_or_default().to_owned();
        assert!(last.contains("its runtime does not react"), "{last}");
        last
    } else {
        assert_eq!(output.status.code(), Some(101), "{name}: {out}{err}");
        let message = out.split(" panicked at ").nth(1).unwrap_or_else(|| panic!("{name}: {out}{err}"));
        message.split_once('\n').expect("a message").1.to_owned()
    };
    let limit = if name == "leaves_a_task" { "" } else { " within 1s; the report is in " };
    let second = lines.lines().nth(1).unwrap_or_default();
    assert!(second.contains(limit), "{second}");
    if let Some((_, path)) = second.split_once(limit).filter(|_| !limit.is_empty()) {
        let report = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(report.contains("=== delouse: every thread ==="), "{report}");
        let json = std::fs::read(Path::new(path).with_extension("json")).expect("it is beside the text");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["test"], format!("hangs::{name}"));
    }
    lines.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn each_test_that_hangs_fails_with_its_cause() {
    let leaves = ("leaves_a_task", "1 task is left after the body of test", "hangs::leaves_a_task");
    for (name, cause, place) in FAILING.into_iter().chain([leaves]) {
        let line = verdict(name, false);
        assert!(names(&line, cause, place), "{name}: {line}");
    }
}

#[test]
fn a_test_that_blocks_its_own_thread_ends_the_process_after_its_report() {
    for (name, cause, place) in ENDING {
        let line = verdict(name, true);
        assert!(names(&line, cause, place), "{name}: {line}");
    }
}

#[test]
fn healthy_tests_pass_beside_one_that_hangs() {
    let output = run(&[&HEALTHY[..], &["deadlock"]].concat());
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("5 passed; 1 failed"), "{out}");
    assert!(out.contains("eadlock: task"), "{out}");
}

#[test]
fn the_environment_overrides_timeouts() {
    let mut command = Command::new(hangs());
    command
        .args(["--exact", "healthy_for_an_hour_of_a_paused_clock"])
        .env("DELOUSE_TEST_TIMEOUT", "nonsense");
    let output = command.output().expect("it runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && err.contains("DELOUSE_TEST_TIMEOUT=nonsense is ignored"), "{err}");
    let mut command = Command::new(hangs());
    let output = command.args(["--exact", "leaked_sender"]).env("DELOUSE_TEST_TIMEOUT", "200ms").output();
    let out = String::from_utf8(output.expect("it runs").stdout).expect("text");
    assert!(out.contains("did not end within 200ms"), "{out}");
}

/// Runs one test, sends SIGTERM when it has printed `ready`, and returns how it ended and what it printed.
fn terminated(test: &str, ready: &str) -> (ExitStatus, String) {
    let mut command = Command::new(hangs());
    command.args(["--exact", test]).stdout(Stdio::null()).stderr(Stdio::piped());
    // A busy machine takes longer than the time that nextest leaves.
    command.env("DELOUSE_TEST_GRACE", "60s");
    let mut child = command.spawn().expect("it runs");
    let mut err = BufReader::new(child.stderr.take().expect("piped"));
    let mut text = String::new();
    while !text.contains(ready) {
        assert!(err.read_line(&mut text).expect("text") > 0, "{text}");
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill").success());
    err.read_to_string(&mut text).expect("text");
    (child.wait().expect("our child"), text)
}

#[test]
fn sigterm_prints_the_report_and_then_ends_the_process() {
    let (status, text) = terminated("waits_to_be_ended", "it waits");
    assert_eq!(status.signal(), Some(15), "{text}");
    assert!(text.contains("test `hangs::waits_to_be_ended` was ended by SIGTERM after "), "{text}");
    assert!(text.contains("eaked tasks: ") && text.contains("=== delouse: every thread ==="), "{text}");
}

#[test]
fn sigterm_is_left_to_a_test_that_handles_it() {
    let (status, text) = terminated("handles_sigterm", "it handles the signal");
    assert!(status.success() && !text.contains("delouse"), "{status} {text}");
}
