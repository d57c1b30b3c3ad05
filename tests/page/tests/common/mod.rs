//! Runs scripts of `browser/`, where the tools for that are.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn page_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../delouse/page")
}

pub(crate) fn chromium() -> String {
    std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned())
}

/// Whether the tools and the npm package are there. Otherwise says so, on stderr, for libtest hides what passing tests print.
pub(crate) fn is_possible(tools: &[&str], package: &str) -> bool {
    // Go has `version` instead of `--version`.
    let runs = |tool: &str| {
        ["--version", "version"].iter().any(|argument| {
            Command::new(tool).arg(argument).output().is_ok_and(|output| output.status.success())
        })
    };
    let missing = match tools.iter().find(|tool| !runs(tool)) {
        Some(tool) => format!("there is no {tool}"),
        None if page_sources().join("node_modules").join(package).exists() => return true,
        None => format!("there is no {package}: run `npm ci` in delouse/page"),
    };
    let thread = std::thread::current();
    let _gone = writeln!(std::io::stderr(), "skipped: {}: {missing}", thread.name().unwrap_or("a test"));
    false
}

/// Returns what it prints.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs a script of `browser/`.
pub(crate) fn run_script(name: &str, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser").join(name);
    run(Command::new("node").arg(script).args(arguments))
}
