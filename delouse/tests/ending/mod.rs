//! Programs that do not end, read from outside: the diagnosis says what is waited for.

use crate::support::{Program, delouse, until};

/// The report of `delouse diagnose` on a case of `plain_ending`, as soon as it contains `part`.
fn report_of(case: &str, part: &str) -> String {
    let program = Program::start_with("plain_ending", &[case]);
    let report = until(|| {
        let answer = delouse(&["diagnose", &program.pid()]);
        Some(answer.out).filter(|out| out.replace("\n    ", " ").contains(part))
    });
    report.replace("\n      ", " ").replace("\n    ", " ")
}

#[test]
fn what_a_program_that_does_not_end_waits_for_is_named() {
    for (case, part, others) in [
        ("tracker", "plain_ending::works at ", ["plain_ending::tracker at ", "a notification"]),
        ("join_set", "plain_ending::works at ", ["plain_ending::join_set at ", "`never`, a Notify"]),
        (
            "graceful",
            "the graceful shutdown of axum",
            ["plain_ending::graceful at ", "a message of broadcast"],
        ),
        (
            "stdin",
            "hutdown that waits: ",
            ["plain_ending::main at ", "<std::io::stdio::Stdin as std::io::Read>::read"],
        ),
    ] {
        let report = report_of(case, part);
        for other in others {
            assert!(report.contains(other), "{case}: {other} is missing: {report}");
        }
    }
}
