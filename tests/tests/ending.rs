//! Programs that do not end: the second SIGTERM, or a shutdown that takes long, prints what keeps them.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use delouse_tests::{Program, program};

const SIGTERM: i32 = 15;
const END: &str = "=== delouse: end ===";

/// Starts a case of the program `ending`, with a standard input from which nothing comes.
fn start(case: &str, environment: &[(&str, &str)]) -> Program {
    let mut command = program!("ending");
    command.arg(case).envs(environment.iter().copied());
    Program::start_reading(command, Stdio::piped())
}

fn terminate(program: &Program) {
    let pid = program.pid().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
}

/// The report, with its lines joined as they were before they were wrapped.
fn report(program: &Program) -> String {
    program.complained(END);
    let lines = program.stderr();
    let begin = lines.iter().position(|line| line.contains("has not ended ===")).expect("a first line");
    lines[begin..].join("\n").replace("\n    ", " ")
}

#[test]
fn a_second_sigterm_says_what_main_waits_for() {
    for (case, awaited) in
        [("tracker", "TaskTracker::wait waits for task "), ("join_set", "the end of task ")]
    {
        let mut program = start(case, &[]);
        program.address();
        program.printed("ready");
        terminate(&program);
        program.printed("stopping");
        terminate(&program);
        let report = report(&program);
        assert!(report.starts_with("=== delouse: SIGTERM has arrived 2 times, and process "), "{report}");
        let awaits =
            report.split("What the main future waits for\n").nth(1).unwrap_or_else(|| panic!("{report}"));
        let mut lines = awaits.lines();
        let (main, task) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        assert!(main.contains("ending::") && main.contains(awaited), "{report}");
        assert!(task.contains("ending::works at ") && task.contains("notif"), "{report}");
        assert!(report.contains("\nScope: "), "{report}");
        assert!(program.is_running());
    }
}

#[test]
fn a_shutdown_that_takes_long_is_reported_once() {
    let limit = ("DELOUSE_SHUTDOWN_REPORT", "1s");
    let signalled = start("tracker", &[limit]);
    signalled.printed("ready");
    terminate(&signalled);
    let report_of_signalled = report(&signalled);
    let head = "=== delouse: SIGTERM arrived more than 1.0 s ago, and process ";
    assert!(report_of_signalled.starts_with(head), "{report_of_signalled}");
    assert!(report_of_signalled.contains("TaskTracker::wait waits for task "), "{report_of_signalled}");

    let returned = start("blocking", &[limit]);
    returned.printed("main returns");
    let text = report(&returned);
    assert!(
        text.starts_with("=== delouse: the main future returned more than 1.0 s ago, and process "),
        "{text}"
    );
    assert!(text.contains("A runtime is being dropped: "), "{text}");
    let call = text.lines().find(|line| line.contains(", on thread ")).unwrap_or_else(|| panic!("{text}"));
    assert!(call.contains("ending::asks at "), "{text}");
    assert!(text.contains("hutdown that waits: "), "{text}");
    for program in [&signalled, &returned] {
        assert_eq!(program.stderr().iter().filter(|line| *line == END).count(), 1, "{:#?}", program.stderr());
    }
}

/// The lines below `What the main future waits for`.
fn awaited(report: &str) -> &str {
    report.split("What the main future waits for\n").nth(1).unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn a_graceful_shutdown_says_which_connection_it_waits_for() {
    let program = start("graceful", &[]);
    program.address();
    program.printed("ready");
    terminate(&program);
    program.printed("stopping");
    terminate(&program);
    let report = report(&program);
    let mut lines = awaited(&report).lines();
    let (main, connection) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    assert!(
        main.contains("ending::graceful::") && main.contains("the graceful shutdown of axum"),
        "{report}"
    );
    assert!(connection.contains("a message of broadcast"), "{report}");
    assert!(report.contains(" waits in ending::events::{closure}"), "{report}");
    assert!(report.contains("\nScope: "), "{report}");
}

#[test]
fn a_read_of_standard_input_is_named() {
    // The main future has returned, and the runtime waits for the thread that reads.
    let returned = start("stdin", &[("DELOUSE_SHUTDOWN_REPORT", "1s")]);
    returned.printed("main returns");
    let text = report(&returned);
    assert!(text.contains("A runtime is being dropped: "), "{text}");
    let call = text.lines().find(|line| line.contains(", on thread ")).unwrap_or_else(|| panic!("{text}"));
    assert!(call.contains("std::io::stdio::Stdin") && call.contains("::read"), "{text}");
    let finding = text.lines().find(|line| line.contains("hutdown that waits: "));
    assert!(finding.is_some_and(|line| line.contains("stdin")), "{text}");

    // It is what the main future waits for.
    let waits = start("stdin_is_awaited", &[]);
    waits.address();
    waits.printed("ready");
    terminate(&waits);
    waits.printed("stopping");
    terminate(&waits);
    let text = report(&waits);
    let main = awaited(&text).lines().next().unwrap_or_default();
    assert!(
        main.contains("ending::reads_a_line at ") && main.contains("which reads stdin on the blocking pool"),
        "{text}"
    );
    let call = text.lines().find(|line| line.contains(", on thread ")).unwrap_or_else(|| panic!("{text}"));
    assert!(call.contains("::read"), "{text}");
}

#[test]
fn without_a_handler_of_the_program_sigterm_ends_it_at_once() {
    for environment in [("DELOUSE_SIGTERM", "on"), ("DELOUSE_SIGTERM", "off")] {
        let mut program = start("no_handler", &[environment]);
        program.printed("ready");
        terminate(&program);
        assert_eq!(program.wait().signal(), Some(SIGTERM));
        assert!(!program.stderr().iter().any(|line| line.contains("===")), "{:#?}", program.stderr());
    }
}

#[test]
fn a_handler_that_was_there_before_gets_all_signals() {
    let mut program = start("handled_it_before", &[("DELOUSE_SHUTDOWN_REPORT", "1s")]);
    program.printed("served true");
    for number in 1..=3 {
        terminate(&program);
        program.printed(&format!("signal {number} is mine"));
    }
    assert_eq!(program.get("/diagnosis").status, 200);
    assert!(program.is_running());
    assert!(!program.stderr().iter().any(|line| line.contains("===")), "{:#?}", program.stderr());
}
