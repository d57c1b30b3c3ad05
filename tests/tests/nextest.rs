//! Tests that hang under `#[delouse::test]`, run by cargo-nextest, which ends those that take too long: they fail by delouse's
//! own timeout, or nextest's SIGTERM has them print their report.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// The tests of `hangs.rs` that hang, and what the first line about each must contain: one of the findings, and the place. On a
/// busy machine, a worker may be seen to be blocked before it is seen what it is part of, and a shutdown may be over when it is
/// examined.
const HANGS: [(&str, &str, &str); 12] = [
    ("deadlock", "eadlock: task", "hangs::cross"),
    ("deadlock_on_one_thread", "eadlock: task", "hangs::cross"),
    ("leaked_sender", "eaked tasks: ", "hangs::leaked_sender"),
    ("blocked_worker", "eadlock: the main future and task|locked worker: task", "hangs::blocked_worker"),
    ("paused_clock", "eaked tasks: ", "hangs::paused_clock"),
    ("local_runtime", "eadlock: the main future", "hangs::local_runtime"),
    ("local_set", "eadlock: the main future", "hangs::local_set"),
    ("std_mutex", "eadlock: the main future blocks its thread", "hangs::std_mutex"),
    ("child_left_over", "hutdown that waits: | has not ended", "hangs::child_left_over"),
    ("prints_for_long", "eaked tasks: ", "hangs::prints_for_long"),
    ("hang_in_drop", "locked worker: the main future", "hangs::HangsInDrop"),
    ("hang_before_the_first_await", "locked worker: the main future", "hangs::hang_before_the_first_await"),
];
/// Those of them that block the thread which would have to fail.
const REACT_TO_NOTHING: [&str; 3] = ["std_mutex", "hang_in_drop", "hang_before_the_first_await"];
const HEALTHY: [&str; 5] = [
    "healthy",
    "healthy_for_an_hour_of_a_paused_clock",
    "leaves_no_task",
    "panics_by_itself",
    "returns_a_result",
];

/// What nextest says of one test.
struct Outcome {
    /// `PASS`, `FAIL`, `TIMEOUT`, `SIGABRT`.
    status: String,
    /// What the test has printed, as nextest shows it.
    output: String,
}

/// The tests of the package `hanging` as nextest runs them, as the workspace builds them, with this configuration and
/// environment. `None` where there is no nextest.
fn run(profile: &str, variables: &[(&str, &str)]) -> Option<BTreeMap<String, Outcome>> {
    let cargo = || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.arg("nextest").stdin(Stdio::null());
        cargo
    };
    if !cargo().arg("--version").output().is_ok_and(|output| output.status.success()) {
        delouse_tests::skipped!("there is no cargo-nextest");
        return None;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("nextest.toml");
    std::fs::write(&config, format!("[profile.default]\n{profile}\n")).expect("a file");
    let names: Vec<&str> = HANGS.iter().map(|(name, ..)| *name).chain(HEALTHY).collect();
    let filter = names.iter().map(|name| format!("test(={name})")).collect::<Vec<_>>().join(" + ");
    let mut nextest = cargo();
    nextest.args(["run", "--workspace", "--test", "hangs", "--no-fail-fast", "--color", "never"]);
    nextest.args(["--status-level", "all", "--final-status-level", "none", "--failure-output", "immediate"]);
    nextest.args(["-E", &filter, "--config-file"]).arg(config);
    for name in ["DELOUSE_TEST_TIMEOUT", "DELOUSE_TEST_GRACE", "NEXTEST_PROFILE"] {
        nextest.env_remove(name);
    }
    // As many set it in CI: the panic's message takes seconds then.
    nextest.env("RUST_BACKTRACE", "1");
    let output = nextest.envs(variables.iter().copied()).output().expect("nextest runs");
    let text = String::from_utf8_lossy(&output.stderr);
    // Some tests have failed, as they should.
    assert_eq!(output.status.code(), Some(100), "{text}");
    Some(outcomes(&text))
}

/// The lines `STATUS [time] package::binary test`, each with the lines that follow.
fn outcomes(text: &str) -> BTreeMap<String, Outcome> {
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    let mut last = None;
    for line in text.lines() {
        let begins = line.split_once(" hanging::hangs ").filter(|(head, _)| head.contains(" ["));
        if let Some((head, name)) = begins {
            let status = head.split_whitespace().next().unwrap_or_default().to_owned();
            last = Some(name.to_owned());
            outcomes.insert(name.to_owned(), Outcome { status, output: String::new() });
        } else if let Some(outcome) = last.as_ref().and_then(|name| outcomes.get_mut(name)) {
            outcome.output.push_str(line.strip_prefix("    ").unwrap_or(line));
            outcome.output.push('\n');
        }
    }
    outcomes
}

fn healthy_pass(outcomes: &BTreeMap<String, Outcome>) {
    for name in HEALTHY {
        assert_eq!(outcomes[name].status, "PASS", "{name}: {}", outcomes[name].output);
    }
}

/// Whether a line names one of these causes, and the place.
fn names(line: &str, causes: &str, place: &str) -> bool {
    causes.split('|').any(|cause| line.contains(cause)) && line.contains(place)
}

/// The report of a test is in a file, and its first line is the cause.
fn check_report(path: &str, cause: &str, place: &str) {
    let report = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let first = report.lines().next().unwrap_or_default();
    assert!(names(first, cause, place), "{path}: {first}");
    assert!(report.contains("=== delouse: every thread ==="), "{report}");
    assert!(Path::new(path).parent().is_some_and(|folder| folder.ends_with("target/delouse")), "{path}");
    let json = std::fs::read(Path::new(path).with_extension("json")).expect("it is beside the text");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert!(json["threads"].is_object(), "{json}");
}

/// The path in `…; the report is in PATH`, in the line after the cause.
fn path_of_report(lines: &str) -> &str {
    let second = lines.lines().nth(1).unwrap_or_default();
    second.split_once("; the report is in ").unwrap_or_else(|| panic!("no report: {lines}")).1
}

#[test]
fn tests_that_hang_fail_by_themselves_before_nextest_ends_them() {
    let profile = "slow-timeout = { period = \"120s\", terminate-after = 2 }";
    let Some(outcomes) = run(profile, &[]) else { return };
    healthy_pass(&outcomes);
    for (name, cause, place) in HANGS {
        let Outcome { status, output } = &outcomes[name];
        let message = if REACT_TO_NOTHING.contains(&name) {
            assert_eq!(status, "SIGABRT", "{name}: {output}");
            output.split("=== delouse: end ===\n").last()
        } else {
            assert_eq!(status, "FAIL", "{name}: {output}");
            output
                .split(" panicked at ")
                .nth(1)
                .and_then(|rest| rest.split_once('\n'))
                .map(|(_, lines)| lines)
        };
        let message = message.unwrap_or_else(|| panic!("{name}: {output}"));
        let first = message.lines().next().unwrap_or_default();
        assert!(names(first, cause, place), "{name}: {first}");
        check_report(path_of_report(message), cause, place);
    }
}

#[test]
fn tests_that_nextest_ends_print_their_report_first() {
    // Longer than by default, and long for the healthy ones, for a busy machine. The tests' own limit is longer than that.
    let profile = "slow-timeout = { period = \"10s\", terminate-after = 1, grace-period = \"100s\" }";
    let variables = [("DELOUSE_TEST_TIMEOUT", "600s"), ("DELOUSE_TEST_GRACE", "90s")];
    let Some(outcomes) = run(profile, &variables) else { return };
    healthy_pass(&outcomes);
    for (name, cause, place) in HANGS {
        let Outcome { status, output } = &outcomes[name];
        assert_eq!(status, "TIMEOUT", "{name}: {output}");
        assert!(output.contains(&format!("test `hangs::{name}` was ended by SIGTERM after ")), "{output}");
        let message = output.split("=== delouse: end ===\n").last().unwrap_or_default();
        let first = message.lines().next().unwrap_or_default();
        assert!(names(first, cause, place), "{name}: {first}: {output}");
        check_report(path_of_report(message), cause, place);
    }
}
