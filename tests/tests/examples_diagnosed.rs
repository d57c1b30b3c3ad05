//! The faulty examples: the first line of `/diagnosis` names the cause.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::process::Command;
use std::time::Instant;

use delouse_tests::{PATIENCE, Program};

/// An example's program, its source, and the line of `needle` in `function`.
macro_rules! example {
    ($name:literal) => {
        (
            Program::start(Command::new(env!(concat!("CARGO_BIN_EXE_example-", $name)))),
            include_str!(concat!("../../examples/src/bin/", $name, ".rs")),
        )
    };
}

/// `function`'s line of the last `needle` before the next function, as `file.rs:line`.
fn place(file: &str, source: &str, function: &str, needle: &str) -> String {
    let body = source.find(&format!("fn {function}(")).expect("the function");
    let end = source[body..].find("\n}\n").expect("its end") + body;
    let at = source[body..end].rfind(needle).expect("the line") + body;
    format!("{file}.rs:{}", source[..at].matches('\n').count() + 1)
}

/// The text of a diagnosis whose first line has `wanted`, once the example is in that state.
fn diagnosis(program: &Program, query: &str, wanted: &[&str]) -> String {
    let begun = Instant::now();
    loop {
        let response = program.get(&format!("/diagnosis?format=text{query}"));
        assert_eq!(response.status, 200, "{}", response.body);
        let first = response.body.lines().next().unwrap_or_default();
        if wanted.iter().all(|part| first.contains(part)) {
            let json = program.get("/diagnosis").body;
            assert!(json.starts_with("{\"summary\":\""), "{json}");
            return response.body;
        }
        assert!(begun.elapsed() < PATIENCE, "not {wanted:?}: {}", response.body);
    }
}

#[test]
fn deadlock() {
    let (program, source) = example!("deadlock");
    program.printed("two transfers on their way");
    let debit = place("deadlock", source, "debit_first", ".lock().await");
    let credit = place("deadlock", source, "credit_first", ".lock().await");
    let text = diagnosis(&program, "", &["Deadlock: task ", "debit_first", "credit_first"]);
    println!("{text}");
    // What earlier answers have left in memory does not look like handles of the program.
    for _ in 0..6 {
        let next = program.get("/diagnosis?format=text").body;
        assert!(next.starts_with("Deadlock: task "), "{next}");
    }
    for part in [debit.as_str(), &credit, "MutexGuard", "Suggested fix"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let tree = program.get("/waits?format=text").body;
    println!("{tree}");
    assert!(tree.contains("the circle closes here"), "{tree}");
    let dot = program.get_with("/waits", &[("accept", "text/vnd.graphviz")]);
    assert_eq!(dot.header("content-type"), Some("text/vnd.graphviz; charset=utf-8"));
    assert!(
        dot.body.starts_with("digraph waits {") && dot.body.contains("\"mutex-1\" -> \"task "),
        "{}",
        dot.body
    );
}

#[test]
fn leak() {
    let (program, source) = example!("leak");
    program.printed("connection 3");
    let text = diagnosis(&program, "", &["keep one another alive", "read_half", "write_half"]);
    println!("{text}");
    for half in ["read_half", "write_half"] {
        let place = place("leak", source, half, ".recv().await");
        assert!(text.contains(&place), "{place}: {text}");
    }
}

#[test]
fn blocked_worker() {
    let (program, source) = example!("blocked-worker");
    program.printed("still serving");
    let line = place("blocked-worker", source, "book", "ledger.lock()");
    let text = diagnosis(&program, "", &["Blocked worker: task ", "book", &line, "lock"]);
    println!("{text}");
}
