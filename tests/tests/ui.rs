//! What `#[delouse::main]` takes and what it refuses, in whose words, and where it points.
//!
//! The expectations hold with debug on and off: run with and without `--features debug`. After a change that is
//! meant, write them anew with `TRYBUILD=overwrite` and read the difference.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn passes() {
    trybuild::TestCases::new().pass("tests/ui/pass/*.rs");
}

#[test]
fn fails() {
    let cases = trybuild::TestCases::new();
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
    // Spaces keep the columns where they are.
    let in_source = |text: &str| text.replace("#[delouse::main", "#[tokio  ::main");
    let expected = fs::read_to_string(source.with_extension("stderr")).unwrap();
    let expected: String = expected
        .lines()
        .map(|line| {
            let is_source =
                line.split_once(" | ").is_some_and(|(number, _)| number.trim().parse::<u32>().is_ok());
            let line = match is_source {
                true => in_source(line),
                false => line
                    .replace("delouse::main", "tokio::main")
                    .replace("`name`, `bind`, `delouse`.", "`name`."),
            };
            line + "\n"
        })
        .collect();
    let copy = directory.join(source.file_name().unwrap());
    fs::write(&copy, in_source(&fs::read_to_string(source).unwrap())).unwrap();
    fs::write(copy.with_extension("stderr"), expected).unwrap();
    copy
}
