//! Tests that hang under `#[delouse::test]`, run by cargo-nextest, which ends those that take too long: they fail by delouse's
//! own timeout, or nextest's SIGTERM has them print their report.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use delouse_tests::hangs::{ENDING, FAILING, HEALTHY, Hang, names};

/// All tests that hang.
fn hangs() -> impl Iterator<Item = Hang> {
    FAILING.into_iter().chain(ENDING)
}

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
    let names: Vec<&str> = hangs().map(|(name, ..)| name).chain(HEALTHY).collect();
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
    for (name, cause, place) in hangs() {
        let Outcome { status, output } = &outcomes[name];
        let message = if ENDING.contains(&(name, cause, place)) {
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
    for (name, cause, place) in hangs() {
        let Outcome { status, output } = &outcomes[name];
        assert_eq!(status, "TIMEOUT", "{name}: {output}");
        assert!(output.contains(&format!("test `hangs::{name}` was ended by SIGTERM after ")), "{output}");
        let message = output.split("=== delouse: end ===\n").last().unwrap_or_default();
        let first = message.lines().next().unwrap_or_default();
        assert!(names(first, cause, place), "{name}: {first}: {output}");
        check_report(path_of_report(message), cause, place);
    }
}
