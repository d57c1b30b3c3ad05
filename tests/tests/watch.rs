//! `DELOUSE_WATCH`: a fault that begins without any request is reported once, and its report is on disk before.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use delouse_tests::controlled::Controlled;
use delouse_tests::{PATIENCE, Program, program};
use serde_json::Value;

/// The program with a look per second.
fn watched(directory: &Path) -> Controlled {
    let mut command = program!("watched");
    command.env("DELOUSE_WATCH", "1s").env("DELOUSE_WATCH_DIR", directory);
    // On a busy machine, a look that may not stop the program only suspects what the next one proves.
    command.env("DELOUSE_PAUSE_BUDGET_MS", "10000");
    Controlled::of(Program::start(command))
}

fn history(program: &Program) -> Value {
    let answer = program.get("/history");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn looks(program: &Program) -> u64 {
    history(program)["watch"]["looks"].as_u64().expect("it is watched")
}

/// Waits until `count` looks have ended.
fn wait_for_looks(program: &Program, count: u64) {
    let begun = Instant::now();
    while looks(program) < count {
        assert!(begun.elapsed() < PATIENCE, "{:#?}", program.stderr());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// The first lines of the blocks on stderr so far.
fn blocks(program: &Program, change: &str) -> usize {
    let start = format!("=== delouse: {change} ");
    program.stderr().iter().filter(|line| line.starts_with(&start)).count()
}

/// The reports in a directory: the texts.
fn reports(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    assert!(!paths.iter().any(|path| path.extension().is_some_and(|end| end == "partial")), "{paths:?}");
    paths.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    paths.sort();
    paths
}

/// Asserts that a report is whole: its text, and its JSON beside it.
fn assert_whole(path: &Path, cause: &str) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert!(text.lines().next().is_some_and(|line| line.contains(cause)), "{text}");
    assert!(text.contains("\nThe whole diagnosis\n") && text.contains("\nScope: "), "{text}");
    let json = fs::read(path.with_extension("json")).expect("it is beside the text");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert!(json["finding"]["summary"].is_string() && json["diagnosis"]["scope"].is_object(), "{json}");
}

#[test]
fn each_fault_is_printed_once_within_two_looks() {
    let directory = tempfile::tempdir().unwrap();
    let mut controlled = watched(directory.path());
    wait_for_looks(&controlled.program, 2);
    assert_eq!(history(&controlled.program)["events"].as_array().map(Vec::len), Some(0));
    let faults = [
        ("deadlock", "eadlock: task", "watched::transfer", "deadlock"),
        ("leak", "eaked tasks: ", "watched::half", "leaked_tasks"),
        ("block", "locked worker: task", "watched::blocks", "blocked_worker"),
    ];
    for (command, cause, place, kind) in faults {
        // One may be under way, and another may begin before the tasks have run.
        let before = looks(&controlled.program) + 2;
        controlled.tell(command);
        let line = controlled.program.complained(cause);
        assert!(line.contains(place), "{line}");
        controlled.program.printed(&format!("event New {kind} report=true"));
        let newest = history(&controlled.program)["events"][0].clone();
        assert_eq!(
            (newest["change"].as_str(), newest["finding"]["kind"].as_str()),
            (Some("new"), Some(kind))
        );
        let look = newest["look"].as_u64().expect("a number");
        assert!(look <= before + 2, "{command} at {before}, reported by look {look}");
    }
    let now = looks(&controlled.program);
    wait_for_looks(&controlled.program, now + 2);
    assert_eq!(blocks(&controlled.program, "new"), 3, "{:#?}", controlled.program.stderr());
    assert_eq!(blocks(&controlled.program, "changed"), 0, "{:#?}", controlled.program.stderr());
    let figure = |name: &str| {
        let metrics = controlled.program.get("/metrics").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        line.and_then(|value| value.trim().parse::<f64>().ok())
    };
    assert!(figure("delouse_watch_looks_total ") >= Some(6.0));
    assert!(figure("delouse_watch_look_seconds_total ") > Some(0.0));
    assert_eq!(figure("delouse_watch_failed_looks_total "), Some(0.0));
    assert_eq!(figure("delouse_watch_findings{kind=\"blocked_worker\"} "), Some(1.0));
    assert_eq!(blocks(&controlled.program, "gone"), 0);
    controlled.tell("unblock");
    let gone = controlled.program.complained("=== delouse: gone from ");
    assert!(gone.contains("locked worker: task") && gone.contains("watched::blocks"), "{gone}");
    controlled.program.printed("event Gone blocked_worker report=false");
    let paths = reports(directory.path());
    assert_eq!(paths.len(), 3, "{paths:?}");
    for (path, (_, cause, _, kind)) in paths.iter().zip(faults) {
        assert!(path.to_string_lossy().ends_with(&format!("-{kind}.txt")), "{path:?}");
        assert_whole(path, cause);
    }
    let text = controlled.program.get("/history?format=text").body;
    assert!(text.starts_with("Watched every 1.0 s"), "{text}");
    for part in ["\nGone, ", "\nNew, ", "eaked tasks: ", "  Report: "] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_report_is_whole_when_the_program_is_killed_after_the_print() {
    for (command, cause) in
        [("deadlock", "eadlock: task"), ("leak", "eaked tasks: "), ("block", "locked worker: task")]
    {
        let directory = tempfile::tempdir().unwrap();
        let mut controlled = watched(directory.path());
        controlled.tell(command);
        let line = controlled.program.complained("  The report is in ");
        // SIGKILL.
        drop(controlled);
        let path = line.trim_start_matches("  The report is in ");
        assert_eq!(reports(directory.path()), [Path::new(path)]);
        assert_whole(Path::new(path), cause);
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_said_and_the_finding_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    let mut controlled = watched(&file);
    controlled.tell("deadlock");
    controlled.program.complained("  The report could not be written: ");
    assert!(controlled.program.stderr().iter().any(|line| line.contains("eadlock: task")));
    controlled.program.printed("event New deadlock report=false");
}

#[test]
fn without_the_setting_there_are_no_looks() {
    let program = Program::start(program!("watched"));
    program.printed("control ");
    let answer = history(&program);
    assert_eq!((&answer["watch"], answer["events"].as_array().map(Vec::len)), (&Value::Null, Some(0)));
    let text = program.get("/history?format=text").body;
    assert!(text.contains("DELOUSE_WATCH=30s"), "{text}");
    assert!(!program.get("/metrics").body.contains("delouse_watch"));
    let threads = delouse_tests::process::threads(program.pid());
    assert!(!threads.iter().any(|thread| thread.name == "delouse-watch"), "{threads:?}");
}
