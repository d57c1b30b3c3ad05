//! What `#[delouse::main]` takes and what it refuses, in whose words, and where it points.
//!
//! The expectations hold with debug on and off: run with and without `--features debug`. After a change that is
//! meant, write them anew with `TRYBUILD=overwrite` and read the difference.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn passes() {
    trybuild::TestCases::new().pass("tests/ui/pass/*.rs");
}

#[test]
fn fails() {
    let cases = trybuild::TestCases::new();
    if cfg!(not(feature = "debug")) {
        cases.compile_fail("tests/ui/fail/debug_off/*.rs");
    }
    cases.compile_fail("tests/ui/fail/*.rs");
    cases.compile_fail("tests/ui/fail/own/*.rs");
}

/// Each case of `ui/fail` under `#[tokio::main]` gives the same errors at the same places. Where a new tokio
/// says something else, this fails, and the attribute has to follow.
#[test]
fn fails_as_tokio_does() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ui-tokio");
    fs::create_dir_all(&directory).unwrap();
    let cases = trybuild::TestCases::new();
    let mut count = 0;
    for entry in fs::read_dir("tests/ui/fail").unwrap() {
        let source = entry.unwrap().path();
        if source.extension().is_some_and(|extension| extension == "rs") {
            cases.compile_fail(under_tokio(&source, &directory));
            count += 1;
        }
    }
    assert!(count > 10, "only {count} cases");
}

/// Writes the case and its expectation as they would be for tokio.
fn under_tokio(source: &Path, directory: &Path) -> PathBuf {
    let copy = directory.join(source.file_name().unwrap());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let in_workspace = match copy.strip_prefix(workspace) {
        Ok(path) => format!("$WORKSPACE/{}", path.display()),
        Err(_) => copy.display().to_string(),
    };
    // Spaces keep the columns where they are.
    let in_source = |text: &str| text.replace("#[delouse::main", "#[tokio  ::main");
    let in_message = |text: &str| {
        text.replace("delouse::main", "tokio::main")
            .replace("`name`, `bind`, `delouse`.", "`name`.")
            .replace(&format!("$DIR/{}", source.display()), &in_workspace)
            .replace(&source.display().to_string(), &copy.display().to_string())
    };
    let expected: String = fs::read_to_string(source.with_extension("stderr"))
        .unwrap()
        .lines()
        .map(|line| if is_source(line) { in_source(line) } else { in_message(line) } + "\n")
        .collect();
    fs::write(&copy, in_source(&fs::read_to_string(source).unwrap())).unwrap();
    fs::write(copy.with_extension("stderr"), expected).unwrap();
    copy
}

/// Whether rustc quotes a line of the source, as in `12 | async fn main() {`.
fn is_source(line: &str) -> bool {
    line.split_once(" | ").is_some_and(|(number, _)| number.trim().parse::<u32>().is_ok())
}
