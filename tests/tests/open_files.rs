//! A program that has as many files open as it may: answers are whole, or say what is missing and what to do. Nothing
//! that is there is left out without a word, and what the program may open yet is left to it.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use delouse_tests::{PATIENCE, Program, Response, program};

const TASKS: usize = 50;
/// A thread of the program waits in `accept`, which has its descriptor's number reserved while it waits (Linux).
const RESERVED: usize = 1;
const ADVICE: &str = "prlimit --pid ";

/// A program, and how many files it has open while nobody asks.
fn start() -> (Program, usize) {
    let mut command = program!("crowd");
    command.args([&TASKS.to_string(), "3"]);
    let program = Program::start(command);
    program.printed("control ");
    let open = open_files(&program).len();
    (program, open)
}

fn open_files(program: &Program) -> Vec<usize> {
    let entries = fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Lets the program open `files` more than it has when nobody asks, and no other. What the answer before needed is
/// closed a moment after it.
fn leave(program: &Program, at_rest: usize, files: usize) {
    let begun = Instant::now();
    let open = loop {
        let open = open_files(program);
        if open.len() <= at_rest {
            break open;
        }
        assert!(begun.elapsed() < PATIENCE, "{} files are open, and {at_rest} were", open.len());
        thread::yield_now();
    };
    let last = (0..).filter(|number| !open.contains(number)).nth(files + RESERVED).unwrap();
    limit(program, last);
}

fn limit(program: &Program, files: usize) {
    let (pid, limit) = (program.pid().to_string(), format!("--nofile={files}:"));
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

/// Whether the answer says that files are missing, and what to do.
fn says_why(program: &Program, response: &Response) -> bool {
    let why = ["as many files open as it may", "more files (RLIMIT_NOFILE), which delouse leaves to it"];
    why.iter().any(|why| response.body.contains(why))
        && response.body.contains(&format!("{ADVICE}{}", program.pid()))
}

/// Whether what was asked for was captured. If not, the answer says why.
fn captured(program: &Program, response: &Response) -> bool {
    let refused = response.status == 503 && says_why(program, response);
    assert!(response.status == 200 || refused, "{} {}", response.status, response.body);
    !refused
}

/// Whether all threads were shown, each with a stack.
fn threads(program: &Program) -> bool {
    let response = program.get("/stacktrace/rust");
    if !captured(program, &response) {
        return false;
    }
    let json = response.json();
    let shown = json["threads"].as_array().unwrap();
    let there = fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap().count();
    let all = shown.len() >= there && shown.iter().all(|thread| thread["frames"][0].is_object());
    assert!(all || says_why(program, &response), "{}", response.body);
    all
}

/// Whether all tasks were shown.
fn tasks(program: &Program) -> bool {
    let response = program.get("/stacktrace/tokio");
    if !captured(program, &response) {
        return false;
    }
    let json = response.json();
    // The ticking task and the main future are two more.
    assert_eq!(json["tasks"].as_array().unwrap().len(), TASKS + 2, "{}", response.body);
    assert!(json["capture"]["consistent"] == true || says_why(program, &response), "{}", response.body);
    true
}

#[test]
fn what_is_left_out_is_said() {
    let (program, at_rest) = start();
    // What is read once is read before: the executable's debug information.
    assert!(threads(&program) && tasks(&program));
    let mut seen = Vec::new();
    for files in 1..20 {
        leave(&program, at_rest, files);
        seen.push((files, threads(&program), tasks(&program)));
    }
    println!("files left, threads, tasks: {seen:?}");
    assert_eq!(seen.first(), Some(&(1, false, false)), "the limit is real");
    assert!(matches!(seen.last(), Some((_, true, true))), "{seen:?}");
}

#[test]
fn a_diagnosis_says_that_files_run_out_where_none_are_left_for_a_capture() {
    let (program, at_rest) = start();
    assert!(tasks(&program));
    leave(&program, at_rest, 4);
    let answer = program.get("/diagnosis?format=text");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let first = answer.body.lines().next().unwrap_or_default();
    assert!(first.contains(" files are open, of ") && says_why(&program, &answer), "{}", answer.body);
}

#[test]
fn who_waits_for_a_connection_gets_it_when_the_limit_is_raised() {
    let (program, at_rest) = start();
    assert!(tasks(&program));
    leave(&program, at_rest, 0);
    thread::scope(|scope| {
        let asked = scope.spawn(|| tasks(&program));
        // Nobody can see from outside that the client waits, but that it does not stop waiting.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            assert!(!asked.is_finished(), "answered without a connection");
            thread::yield_now();
        }
        limit(&program, 4096);
        assert!(asked.join().unwrap());
        assert!(begun.elapsed() < PATIENCE);
    });
}
