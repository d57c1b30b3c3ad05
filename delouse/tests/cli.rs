//! The command `delouse`, as a user runs it: real programs, what is printed, and the exit status.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by them")]

mod attaches;
mod cores;
mod debuginfod;
mod ending;
mod serving;
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Answer, Program, answer_with, delouse, program, until};

const NOTHING: i32 = 0;
const FAILED: i32 = 1;
const FINDINGS: i32 = 2;

/// Runs the command until it exits with this status: the program has just started.
fn until_status(status: i32, arguments: &[&str]) -> Answer {
    until(|| Some(delouse(arguments)).filter(|answer| answer.status == status))
}

#[test]
fn a_deadlock_is_named_in_the_first_line() {
    let deadlock = Program::start("plain_deadlock");
    let answer = until_status(FINDINGS, &["diagnose", &deadlock.pid()]);
    let first = answer.out.lines().next().unwrap();
    assert!(first.to_lowercase().contains("deadlock: task "), "{first}");
    assert!(first.contains("wait for each other"), "{first}");
    for place in ["plain_deadlock::debit_first at", "plain_deadlock::credit_first at"] {
        assert!(first.contains(place), "{first}");
    }
    assert!(answer.out.contains("\n  Suggested fix\n"), "{}", answer.out);
    assert_eq!(answer.err, "");
    let tasks = delouse(&["tasks", &deadlock.pid(), "--match", "credit_first"]);
    assert_eq!(tasks.status, NOTHING);
    assert!(tasks.out.starts_with("1 of "), "{}", tasks.out);
    assert!(tasks.out.contains("→ mutex 0x"), "{}", tasks.out);
    let waits = delouse(&["waits", &deadlock.pid()]);
    assert_eq!(waits.status, FINDINGS);
    assert!(waits.out.contains("<- the circle closes here"), "{}", waits.out);
    let dot = delouse(&["waits", &deadlock.pid(), "--format", "dot"]);
    assert!(dot.out.starts_with("digraph"), "{}", dot.out);
}

/// Optimised code stores no pointer to the main future: its place follows from other instructions of the same function.
#[test]
fn a_main_future_is_part_of_a_deadlock() {
    let deadlock = Program::start("optimised_main_deadlock");
    let answer = until_status(FINDINGS, &["diagnose", &deadlock.pid()]);
    let first = answer.out.lines().next().unwrap();
    assert!(first.starts_with("Deadlock: the main future and task "), "{}", answer.out);
    for holder in ["the main future (`from`, a MutexGuard, in", "(`to`, a MutexGuard, in"] {
        assert!(answer.out.replace("\n      ", " ").contains(holder), "{}", answer.out);
    }
    let tasks = delouse(&["tasks", &deadlock.pid()]);
    assert!(tasks.out.contains("(found on the stack of that thread)"), "{}", tasks.out);
}

#[test]
fn a_leak_is_found_and_a_healthy_program_is_not_accused() {
    let (leak, healthy) = (Program::start("plain_leak"), Program::start("plain_healthy"));
    let answer = until_status(FINDINGS, &["diagnose", &leak.pid()]);
    assert!(answer.out.contains("eaked tasks: "), "{}", answer.out);
    assert!(answer.out.contains("plain_leak::forward"), "{}", answer.out);
    for _ in 0..10 {
        let answer = delouse(&["diagnose", &healthy.pid()]);
        assert_eq!((answer.status, answer.err.as_str()), (NOTHING, ""), "{}", answer.out);
        assert!(answer.out.starts_with("nothing "), "{}", answer.out);
        assert!(answer.out.contains("\nScope: "), "{}", answer.out);
    }
}

#[test]
fn json_is_that_of_the_server() {
    let healthy = Program::start("plain_healthy");
    let json = |arguments: &[&str]| -> serde_json::Value {
        let answer = delouse(arguments);
        assert_eq!(answer.status, NOTHING, "{}", answer.err);
        serde_json::from_str(&answer.out).expect("one JSON value")
    };
    let tasks = json(&["tasks", &healthy.pid(), "--json"]);
    assert_eq!(tasks["engine"], "memory");
    assert!(tasks["stacktrace"].as_str().unwrap().contains("plain_healthy::beat"), "{tasks}");
    let beat = tasks["tasks"].as_array().unwrap().iter().find(|task| task["id"] != 0).unwrap();
    assert_eq!(beat["waits_on"][0]["kind"], "timer");
    // The clock of the process is known: the timer is of less than 50 ms, or was just due.
    assert!(beat["waits_on"][0]["in_ms"].as_i64().unwrap().abs() < 60_000, "{beat}");
    let _threads: delouse::model::ThreadsAnswer =
        serde_json::from_value(json(&["threads", &healthy.pid(), "--format", "json"])).unwrap();
    let diagnosis: delouse::model::DiagnosisAnswer =
        serde_json::from_value(json(&["diagnose", &healthy.pid(), "--json"])).unwrap();
    assert_eq!(diagnosis.findings, []);
    let _waits: delouse::model::WaitsAnswer =
        serde_json::from_value(json(&["waits", &healthy.pid(), "--json"])).unwrap();
    assert!(json(&["elf", &healthy.pid(), "--json"])["build_id"].is_string());
}

#[test]
fn cores_are_read_by_build_id() {
    if Command::new("gcore").arg("-h").output().is_err() {
        return eprintln!("skipped: there is no gcore");
    }
    let directory = tempfile::tempdir().unwrap();
    let deadlock = Program::start("plain_deadlock");
    let _is_deadlocked = until_status(FINDINGS, &["diagnose", &deadlock.pid()]);
    let prefix = directory.path().join("core");
    let gcore = Command::new("gcore").arg("-o").arg(&prefix).arg(deadlock.pid()).output().unwrap();
    assert!(gcore.status.success(), "{gcore:?}");
    let core = format!("{}.{}", prefix.display(), deadlock.pid());
    let answer = delouse(&["diagnose", &core]);
    assert_eq!(answer.status, FINDINGS, "{}", answer.err);
    assert!(answer.out.contains("eadlock: task "), "{}", answer.out);
    assert!(answer.out.contains("a core file is a single sample"), "{}", answer.out);
    let tasks = delouse(&["tasks", &core]);
    assert!(tasks.out.contains("plain_deadlock::main::{async block}"), "the main future: {}", tasks.out);
    let threads = delouse(&["threads", &core]);
    assert!(threads.out.contains("→ plain_deadlock::main at"), "{}", threads.out);

    // The same build under another name, in both orders.
    let renamed = directory.path().join("renamed");
    fs::copy(program("plain_deadlock"), &renamed).unwrap();
    let renamed = renamed.to_str().unwrap();
    for arguments in [["diagnose", renamed, &core], ["diagnose", &core, renamed]] {
        assert_eq!(delouse(&arguments).status, FINDINGS);
    }
    assert_eq!(delouse(&["diagnose", &core, "--exe", renamed]).status, FINDINGS);
    let other = delouse(&["diagnose", program("plain_leak").to_str().unwrap(), &core]);
    other.fails_with("is not the program of this core file");

    // As systemd-coredump stores it.
    let zstd = Command::new("zstd").args(["-q", "-1", &core]).status();
    if zstd.is_ok_and(|status| status.success()) {
        let packed = format!("{core}.zst");
        assert_eq!(delouse(&["diagnose", &packed]).status, FINDINGS);
        assert_eq!(delouse(&["diagnose", renamed, &packed]).status, FINDINGS);
        let whole = fs::read(&packed).unwrap();
        fs::write(&packed, whole.get(..whole.len() / 2).unwrap()).unwrap();
        delouse(&["diagnose", &packed]).fails_with("cannot open the core file");
    } else {
        eprintln!("skipped: there is no zstd");
    }

    damaged_cores(directory.path(), &fs::read(&core).unwrap());
}

/// A core file that is cut short, and such with flipped bits: an answer or one sentence, never a panic.
fn damaged_cores(directory: &Path, core: &[u8]) {
    let path = directory.join("damaged");
    let name = path.to_str().unwrap();
    for length in [300, core.len() / 1000, core.len() / 40, core.len() / 2, core.len() - 5000] {
        fs::write(&path, core.get(..length).unwrap()).unwrap();
        let answer = delouse(&["diagnose", name]);
        match answer.status {
            FAILED => assert!(
                answer.err.starts_with("delouse: ") && answer.err.lines().count() == 1,
                "{}",
                answer.err
            ),
            _ => assert!(answer.out.contains("the core file is truncated"), "{}", answer.out),
        }
        // What it lacks may be what is wrong.
        assert!(!answer.out.contains("nothing wrong found"), "{}", answer.out);
    }
    let mut damaged = core.to_vec();
    for (at, byte) in damaged.iter_mut().enumerate() {
        // The headers, and then a bit here and there.
        if at > 64 && (at < 8192 && at.is_multiple_of(97) || at.is_multiple_of(100_003)) {
            *byte ^= 1 << (at % 8);
        }
    }
    fs::write(&path, damaged).unwrap();
    let answer = delouse(&["tasks", name]);
    assert!([NOTHING, FAILED].contains(&answer.status), "{answer:?}");
    assert!(!answer.err.contains("panicked"), "{}", answer.err);
}

#[test]
fn what_cannot_be_looked_at_is_one_sentence() {
    let sleep = Program::start_command(Command::new("/bin/sleep").arg("1000"));
    delouse(&["tasks", &sleep.pid()]).fails_with("is not a Rust program");
    delouse(&["diagnose", &sleep.pid()]).fails_with("is not a Rust program");
    // Its threads are there all the same.
    assert_eq!(delouse(&["threads", &sleep.pid()]).status, NOTHING);
    let without = Program::start("plain_without_tokio");
    delouse(&["waits", &without.pid()]).fails_with("without tasks of tokio");
    assert_eq!(delouse(&["threads", &without.pid()]).status, NOTHING);

    let mut gone = Command::new("/bin/true").spawn().unwrap();
    let pid = gone.id().to_string();
    gone.wait().unwrap();
    delouse(&["diagnose", &pid]).fails_with("there is no process");
    delouse(&["diagnose", "99999999999"]).fails_with("too large");
    // A thread of the kernel, where this process can see it.
    if fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        delouse(&["tasks", "2"]).fails_with("a thread of the kernel");
    }
    delouse(&["tasks", "/etc/passwd"]).fails_with("not a 64-bit ELF file");
    delouse(&["tasks", "/no/where"]).fails_with("is no file");
    delouse(&["tasks", "/"]).fails_with("not a regular file");
    delouse(&["tasks", program("plain_leak").to_str().unwrap()])
        .fails_with("is an executable, not a core file");
    delouse(&["tasks", &sleep.pid(), "--format", "dot"]).fails_with("");
    delouse(&["tasks", &sleep.pid(), "--task", "x"]).fails_with("no list of task ids");
    let usage = delouse(&["tasks", "--no-such-option"]);
    assert_eq!(usage.status, FAILED);
    assert!(usage.err.contains("--no-such-option"), "{}", usage.err);
}

#[test]
fn stripped_programs_need_their_debug_file() {
    let directory = tempfile::tempdir().unwrap();
    let (stripped, debug) = (directory.path().join("stripped"), directory.path().join("app.dbg"));
    let full = program("plain_deadlock");
    fs::copy(&full, &debug).unwrap();
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&full).status();
    if !strip.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: there is no strip");
    }
    let running = Program::start_command(&mut Command::new(&stripped));
    delouse(&["diagnose", &running.pid()]).fails_with("--debug-file");
    let other = program("plain_leak");
    delouse(&["diagnose", &running.pid(), "--debug-file", other.to_str().unwrap()])
        .fails_with("does not have the debug information of");
    let _found =
        until_status(FINDINGS, &["diagnose", &running.pid(), "--debug-file", debug.to_str().unwrap()]);

    // Without types, but with symbols.
    let untyped = directory.path().join("untyped");
    let strip = Command::new("strip").arg("-g").arg("-o").arg(&untyped).arg(&full).status();
    assert!(strip.unwrap().success());
    let running = Program::start_command(&mut Command::new(&untyped));
    delouse(&["diagnose", &running.pid()]).fails_with("without type information");
    delouse(&["waits", &running.pid()]).fails_with("--debug-file");
}

#[test]
fn a_program_that_was_replaced_is_still_read() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("service");
    fs::copy(program("plain_deadlock"), &copy).unwrap();
    let running = Program::start_command(&mut Command::new(&copy));
    // As a deploy does: another build by the same name.
    fs::remove_file(&copy).unwrap();
    fs::copy(program("plain_leak"), &copy).unwrap();
    let answer = until_status(FINDINGS, &["diagnose", &running.pid()]);
    assert!(answer.out.contains("plain_deadlock::debit_first"), "{}", answer.out);
    let elf = delouse(&["elf", &running.pid()]);
    assert!(elf.out.contains("replaced or removed since the program started"), "{}", elf.out);
}

#[test]
fn servers_that_answer_something_else_are_recognised() {
    let web = answer_with("text/html", "<html>hello</html>", "200 OK");
    delouse(&["tasks", &web]).fails_with("is no server of delouse");
    let missing = answer_with("text/plain", "nothing here", "404 Not Found");
    delouse(&["diagnose", &missing]).fails_with("it answers 404 Not Found to /diagnosis");
    let busy = answer_with(
        "application/json",
        r#"{"message": "another capture is in progress"}"#,
        "429 Too Many Requests",
    );
    delouse(&["waits", &busy]).fails_with("another capture is in progress");
    let redirects = answer_with("text/plain", "", "302 Found\r\nLocation: http://127.0.0.1:1/");
    delouse(&["tasks", &redirects]).fails_with("it answers 302 Found");
    let endless = support::serve(|mut stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9000000000\r\n\r\n{";
        let _closed = stream.write_all(head.as_bytes());
    });
    delouse(&["tasks", &endless]).fails_with("is longer than 1024 MB");
    delouse(&["tasks", "http://127.0.0.1:1"]).fails_with("no server answers there");
    delouse(&["tasks", "https://127.0.0.1:1"]).fails_with("plain HTTP");
    delouse(&["core", &web]).fails_with("is no core file");
}

#[test]
fn answers_of_a_server_are_printed_like_those_of_a_process() {
    let healthy = Program::start("plain_healthy");
    let tasks = delouse(&["tasks", &healthy.pid(), "--json"]).out;
    let served = answer_with("application/json", &tasks, "200 OK");
    let text = delouse(&["tasks", &served]);
    assert_eq!(text.status, NOTHING, "{}", text.err);
    let expected: serde_json::Value = serde_json::from_str(&tasks).unwrap();
    assert_eq!(text.out, expected["stacktrace"].as_str().unwrap());
    let deadlock = Program::start("plain_deadlock");
    let json = until_status(FINDINGS, &["diagnose", &deadlock.pid(), "--json"]).out;
    let served = answer_with("application/json", &json, "200 OK");
    assert_eq!(delouse(&["diagnose", &served]).status, FINDINGS);
}

#[test]
fn saved_answers_are_compared() {
    let directory = tempfile::tempdir().unwrap();
    let leak = Program::start("plain_leak");
    let save = |command: &str, name: &str| {
        let path = directory.path().join(name);
        fs::write(&path, delouse(&[command, &leak.pid(), "--json"]).out).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let count = |tasks: &str| {
        let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(tasks).unwrap()).unwrap();
        json["total"].as_u64().unwrap()
    };
    let before = save("tasks", "before");
    let after = until(|| {
        let after = save("tasks", "after");
        (count(&after) >= count(&before) + 8).then_some(after)
    });
    let answer = delouse(&["diff", &before, &after]);
    assert_eq!(answer.status, NOTHING, "{}", answer.err);
    let shown = format!("  {} -> ", before_in_group(&before));
    assert!(answer.out.contains("\nGrew\n") && answer.out.contains(&shown), "{}", answer.out);
    assert!(answer.out.contains("0 went"), "{}", answer.out);
    assert!(answer.out.contains("\nIn the same wait in both\n"), "{}", answer.out);
    let json: serde_json::Value =
        serde_json::from_str(&delouse(&["diff", &before, &after, "--json"]).out).unwrap();
    assert!(json["came"][0]["count"].as_u64().unwrap() >= 8, "{json}");
    let waits = save("waits", "waits");
    delouse(&["diff", &before, &waits]).fails_with("compare two answers of the same command");
    delouse(&["diff", &before, "/etc/passwd"]).fails_with("no JSON answer");
    delouse(&["diff", &before, "/no/where"]).fails_with("/no/where");
}

/// How many tasks of an answer are in `forward`.
fn before_in_group(tasks: &str) -> usize {
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(tasks).unwrap()).unwrap();
    let forward = |task: &&serde_json::Value| task["stack"][0]["function"] == "plain_leak::forward";
    json["tasks"].as_array().unwrap().iter().filter(forward).count()
}

#[test]
fn a_child_is_diagnosed_when_it_hangs_and_when_it_is_asked() {
    let mut run = support::command();
    run.args(["run", "--hang-after", "500ms", "--"]).arg(program("plain_deadlock"));
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = support::Lines::of(run.stderr.take().unwrap());
    assert!(err.until("=== delouse: process").contains("no processor time for 0.5 s"));
    assert!(err.until("eadlock: ").contains("wait for each other"));
    err.until("=== delouse: end ===");
    let pid = run.id().to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-QUIT");
    assert!(err.until("=== delouse: process").contains("as requested by SIGQUIT"));
    err.until("=== delouse: end ===");
    signal("-TERM");
    // The child's own end, as a shell reports it.
    assert_eq!(run.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn a_program_is_watched_from_outside_until_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let deadlock = Program::start("plain_deadlock");
    let mut watch = support::command();
    watch.args(["watch", &deadlock.pid(), "--every", "1s", "--dir"]).arg(directory.path());
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = support::Lines::of(watch.stdout.take().unwrap());
    assert!(out.until("=== delouse: new in process ").contains(&deadlock.pid()));
    assert!(out.until("eadlock: ").contains("wait for each other"));
    let line = out.until("  The report is in ");
    let report = fs::read_to_string(line.trim().trim_start_matches("The report is in ")).unwrap();
    assert!(report.contains("plain_deadlock::debit_first at"), "{report}");
    out.until("=== delouse: end ===");
    drop(deadlock);
    assert_eq!(watch.wait().unwrap().code(), Some(FINDINGS));
    let mut rest = String::new();
    watch.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(rest.lines().last().is_some_and(|line| line.contains(" has ended since ")), "{rest}");
}

#[test]
fn watching_a_healthy_program_prints_nothing_until_it_is_interrupted() {
    let healthy = Program::start("plain_healthy");
    let mut watch = support::command();
    watch.args(["watch", &healthy.pid(), "--every", "1s"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    support::Lines::of(watch.stderr.take().unwrap()).until("delouse: watches process ");
    assert!(Command::new("kill").args(["-INT", &watch.id().to_string()]).status().unwrap().success());
    let mut out = String::new();
    watch.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!((watch.wait().unwrap().code(), out.as_str()), (Some(NOTHING), ""));
    delouse(&["watch", program("plain_healthy").to_str().unwrap()])
        .fails_with("is an executable, not a core file");
}

#[test]
fn the_exit_status_is_that_of_the_child() {
    let status = |script: &str| delouse(&["run", "--", "/bin/sh", "-c", script]).status;
    assert_eq!(status("exit 7"), 7);
    assert_eq!(status("true"), 0);
    assert_eq!(status("kill -KILL $$"), 128 + 9);
    delouse(&["run", "--", "/no/such/program"]).fails_with("/no/such/program");
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let leak = Program::start("plain_leak");
    let mut command = support::command();
    let mut child = command
        .args(["elf", &leak.pid(), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(NOTHING), ""));
}

#[test]
fn help_begins_with_examples() {
    let help = delouse(&["--help"]);
    assert_eq!(help.status, NOTHING);
    let (examples, usage) = (help.out.find("Examples:").unwrap(), help.out.find("Usage:").unwrap());
    assert!(examples < usage, "{}", help.out);
    assert!(delouse(&["man"]).out.contains(".TH delouse"));
    assert!(delouse(&["completions", "bash"]).out.contains("_delouse"));
    assert!(delouse(&["--version"]).out.starts_with("delouse "));
}

#[test]
fn a_core_is_downloaded_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let whole = answer_with(
        "application/x-core",
        "the core",
        "200 OK\r\nContent-Disposition: attachment; filename=\"../core.7\"",
    );
    let run = |url: &str| {
        let output = support::command().args(["core", url]).current_dir(directory.path()).output();
        Answer::of(output.unwrap())
    };
    assert_eq!(run(&whole).status, NOTHING);
    assert_eq!(fs::read_to_string(directory.path().join("core.7")).unwrap(), "the core");
    // A file that exists is not overwritten.
    run(&whole).fails_with("core.7");
    let broken = support::serve(|mut stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-core\r\nContent-Length: 100\r\n\r\nhalf";
        let _closed = stream.write_all(head.as_bytes());
    });
    run(&broken).fails_with("broke off");
    assert!(!directory.path().join("core").exists());
}
