//! Reports on stderr: at SIGQUIT, and when the program calls `delouse::dump()`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use delouse_tests::{PATIENCE, Program, program};

const SIGQUIT: i32 = 3;
const END: &str = "=== delouse: end ===";

/// As from a terminal: what a script runs in the background, this test perhaps, ignores SIGQUIT, and what it starts
/// inherits that.
fn start(command: Command) -> Program {
    // SAFETY: sets no handler.
    unsafe { libc::signal(SIGQUIT, libc::SIG_DFL) };
    Program::start(command)
}

/// Sends SIGQUIT and waits until a thread has it.
fn quit(program: &Program) {
    let pid = program.pid().to_string();
    assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
    let begun = Instant::now();
    loop {
        // Gone is delivered, too.
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return };
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap_or("0");
        if u64::from_str_radix(pending.trim(), 16).unwrap() & (1 << (SIGQUIT - 1)) == 0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "never delivered");
        std::thread::yield_now();
    }
}

fn dumps(program: &Program) -> usize {
    program.stderr().iter().filter(|line| *line == END).count()
}

/// All of stderr, when it holds `count` dumps.
fn dumped(program: &Program, count: usize) -> String {
    let begun = Instant::now();
    while dumps(program) < count {
        assert!(begun.elapsed() < PATIENCE, "{:#?}", program.stderr());
        std::thread::yield_now();
    }
    program.stderr().join("\n")
}

fn heartbeat(environment: &[(&str, &str)]) -> Program {
    let mut command = program!("example-heartbeat");
    command.envs(environment.iter().copied());
    let program = start(command);
    program.address();
    program.printed("heartbeat 1");
    program
}

fn beats(program: &Program) -> usize {
    program.stdout().len()
}

#[test]
fn the_first_prints_and_the_program_goes_on() {
    let mut program = heartbeat(&[]);
    quit(&program);
    let text = dumped(&program, 1);
    let tasks = text.find("every task of process").unwrap();
    let threads = text.find("every thread of process").unwrap();
    assert!(tasks < threads, "{text}");
    // Before the debug information is read, which takes seconds, there is something to read already.
    let reads = text.find("reads the debug information of process").unwrap();
    let names = text.find("meanwhile its threads, by the names of functions").unwrap();
    assert!(reads < names && names < tasks, "{text}");
    assert!(text[names..tasks].contains("heartbeat::main"), "{text}");
    assert!(text[tasks..threads].contains("heartbeat::beat at "), "{text}");
    assert!(text[threads..].contains("tokio worker"), "{text}");
    // More than two seconds later, by its own clock, it is a first one again.
    let before = beats(&program);
    let begun = Instant::now();
    while beats(&program) < before + 4 {
        assert!(program.is_running() && begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    quit(&program);
    let text = dumped(&program, 2);
    assert_eq!(text.matches("reads the debug information").count(), 1, "{text}");
    assert_eq!(text.matches("=== delouse: what is wrong in process ").count(), 2, "{text}");
    assert!(program.is_running());
    assert_eq!(program.get("/").status, 200);
}

#[test]
fn a_second_one_soon_after_ends_it() {
    let mut program = heartbeat(&[]);
    quit(&program);
    quit(&program);
    assert_eq!(program.wait().signal(), Some(SIGQUIT));
}

#[test]
fn switched_off_it_is_as_ever() {
    for environment in [("DELOUSE_SIGQUIT", "off"), ("DELOUSE", "off")] {
        let mut command = program!("example-heartbeat");
        command.env(environment.0, environment.1);
        let mut program = start(command);
        program.printed("heartbeat 1");
        quit(&program);
        assert_eq!(program.wait().signal(), Some(SIGQUIT), "{environment:?}");
        assert_eq!(dumps(&program), 0);
    }
}

#[test]
fn ignored_stays_ignored() {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' QUIT; exec \"$0\"", env!("CARGO_BIN_EXE_example-heartbeat")]);
    let mut program = start(command);
    program.address();
    program.printed("heartbeat 1");
    quit(&program);
    quit(&program);
    // What would have come is there after a request, which takes as long as a dump does.
    assert_eq!(program.get("/stacktrace/tokio").status, 200);
    assert!(program.is_running());
    assert!(!program.stderr().iter().any(|line| line.contains("===")), "{:#?}", program.stderr());
}

#[test]
fn a_program_that_takes_it_is_left_alone() {
    for way in ["handles_it", "handled_it_before"] {
        let mut command = program!("sigquit");
        command.arg(way);
        let mut program = start(command);
        program.address();
        program.printed("ready");
        for number in 1..=3 {
            quit(&program);
            program.printed(&format!("quit {number} is mine"));
        }
        assert_eq!(program.get("/stacktrace/tokio").status, 200);
        assert!(program.is_running());
        assert!(!program.stderr().iter().any(|line| line.contains("===")), "{way}: {:#?}", program.stderr());
    }
}

#[test]
fn wedged_programs_dump_too() {
    for how in ["workers", "current_thread", "local"] {
        let mut command = program!("wedged");
        command.arg(how);
        let mut program = start(command);
        program.address();
        program.printed("wedged");
        quit(&program);
        let text = dumped(&program, 1);
        assert!(text.contains("wedged::block at "), "{how}: {text}");
        assert!(program.is_running());
    }
}

#[test]
fn from_inside() {
    let mut command = program!("sigquit");
    command.arg("dumps");
    let mut program = start(command);
    program.printed("dumped Ok(())");
    assert!(program.wait().success());
    let text = dumped(&program, 1);
    assert!(text.contains("sigquit::waits_for_ever at "), "{text}");
    assert!(text.contains("delouse::dump") && text.contains("sigquit::asks"), "{text}");
}

#[test]
fn from_inside_without_a_server() {
    for (environment, count) in [("on", 1), ("off", 0)] {
        let mut command = program!("sigquit");
        command.arg("dumps_without_server").env("DELOUSE", environment);
        let mut program = start(command);
        program.printed("dumped Ok(())");
        assert!(program.wait().success());
        dumped(&program, count);
        assert_eq!(dumps(&program), count);
    }
}

#[test]
fn a_stderr_that_is_not_read_is_an_error_not_an_end() {
    let mut command = program!("sigquit");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.arg("dumps_without_server").stderr(Stdio::from(writer)).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "dumped Err(Stderr(BrokenPipe))\n");
}

#[test]
fn a_panic_in_a_task_prints_the_task() {
    for (environment, count) in [("on", 1), ("off", 0)] {
        let mut command = program!("sigquit");
        command.arg("panics").env("DELOUSE_PANIC", environment);
        let mut program = start(command);
        program.printed("the program's own hook");
        program.printed("a panic: true");
        assert!(program.wait().success());
        let text = dumped(&program, count);
        assert_eq!(dumps(&program), count, "{text}");
        if count == 1 {
            let report = text.split("=== delouse: task ").nth(1).unwrap_or_else(|| panic!("{text}"));
            assert!(report.lines().next().is_some_and(|line| line.ends_with(" panics ===")), "{text}");
            for part in ["sigquit::fails at ", "sigquit::fails_inside"] {
                assert!(report.contains(part), "{part}: {text}");
            }
            assert_eq!(report.contains("spawned at "), cfg!(tokio_unstable), "{text}");
        }
    }
}
