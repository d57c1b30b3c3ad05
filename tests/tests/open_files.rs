//! A program that has as many files open as it may: answers are whole, or say what is missing and what to do. Nothing
//! that is there is left out without a word, and what the program may open yet is left to it.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use delouse_tests::{PATIENCE, Program, Response, program};

const TASKS: usize = 50;
/// A thread of the program waits in `accept`, which has its descriptor's number reserved while it waits (Linux): the
/// lowest that was free when it began to wait.
const RESERVED: usize = 1;
const ADVICE: &str = "prlimit --pid ";

/// A program, and how many files it has open while no request runs.
fn start() -> (Program, usize) {
    start_by(program!("many_tasks"))
}

/// The same of a program that may open so few from the start that none are set aside for captures.
fn start_small() -> (Program, usize) {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=100:4096", "--"]).arg(program!("many_tasks").get_program());
    start_by(command)
}

fn start_by(mut command: Command) -> (Program, usize) {
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

/// Lets the program open `files` more than it has while no request runs, and no other. What the answer before needed is
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
    // The reserved number may be any of the free ones: below the first of them, nothing is free or reserved.
    let free_or_reserved = if files == 0 { 0 } else { files + RESERVED };
    let last = (0..).filter(|number| !open.contains(number)).nth(free_or_reserved).unwrap();
    limit(program, last);
}

fn limit(program: &Program, files: usize) {
    let (pid, limit) = (program.pid().to_string(), format!("--nofile={files}:"));
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

/// Whether the answer reports that files are missing, and what to do.
fn says_why(program: &Program, response: &Response) -> bool {
    let why = ["as many files open as it may", "more files (RLIMIT_NOFILE), which delouse leaves to it"];
    why.iter().any(|why| response.body.contains(why))
        && response.body.contains(&format!("{ADVICE}{}", program.pid()))
}

/// Whether the capture succeeded. If not, the answer gives the reason.
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
    let (program, at_rest) = start_small();
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
fn a_capture_needs_no_file_that_is_free_but_its_connection() {
    let (program, at_rest) = start();
    for files in [1, 2, 5] {
        leave(&program, at_rest, files);
        assert!(threads(&program) && tasks(&program), "{files} files");
        let diagnosis = program.get("/diagnosis?format=text");
        assert_eq!(diagnosis.status, 200, "{}", diagnosis.body);
        assert!(diagnosis.body.contains(" files are open, of "), "{}", diagnosis.body);
        assert!(!says_why(&program, &diagnosis), "{}", diagnosis.body);
        assert!(captured(&program, &program.get("/core?estimate=true")));
    }
}

/// A program that opens eight files at once, and may open hardly any more.
#[test]
fn a_question_takes_no_file_that_the_program_opens() {
    const OPENS: usize = 8;
    let mut command = program!("lifecycle");
    command.arg("opens_files");
    let program = Program::start(command);
    program.printed("ready");
    let paths = ["/stacktrace/rust", "/stacktrace/tokio", "/diagnosis", "/core?estimate=true", "/elf/info"];
    // What is opened once is opened before.
    for path in paths {
        assert_eq!(program.get(path).status, 200);
    }
    // Between two times that it opens files, and when the connections are closed.
    let begun = Instant::now();
    let mut open = open_files(&program);
    while begun.elapsed() < Duration::from_millis(500) {
        let now = open_files(&program);
        open = if now.len() < open.len() { now } else { open };
    }
    // The connection takes one, as any other would; the one before is closed a moment later; and the kernel sets aside a
    // number while a connection is awaited.
    let last = (0..).filter(|number| !open.contains(number)).nth(OPENS + 2).unwrap();
    limit(&program, last + 1);
    for path in paths.iter().cycle().take(50) {
        assert!(captured(&program, &program.get(path)), "{path}");
    }
    limit(&program, 4096);
    let failed: Vec<String> =
        program.stdout().into_iter().filter(|line| line.contains("cannot open")).collect();
    assert_eq!(failed, Vec::<String>::new());
}

#[test]
fn a_diagnosis_says_that_files_run_out_where_none_are_left_for_a_capture() {
    let (program, at_rest) = start_small();
    assert!(tasks(&program));
    leave(&program, at_rest, 4);
    let answer = program.get("/diagnosis?format=text");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let first = answer.body.lines().next().unwrap_or_default();
    assert!(first.contains(" files are open, of ") && says_why(&program, &answer), "{}", answer.body);
}

#[test]
fn a_waiting_client_gets_its_connection_when_the_limit_is_raised() {
    let (program, at_rest) = start();
    assert!(tasks(&program));
    leave(&program, at_rest, 0);
    thread::scope(|scope| {
        let asked = scope.spawn(|| tasks(&program));
        // From outside, a waiting client shows only in that it does not return.
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
