//! What `#[delouse::main]` takes and what it refuses, in whose words, and where it points.
//!
//! The expectations hold with debug on and off: run with and without `--features debug`. After a change that is
//! meant, write them anew with `TRYBUILD=overwrite` and read the difference.
//!
//! - `ui/pass`: programs that are built and run.
//! - `ui/fail`: refused in our words, which are tokio's. `own` is what tokio has not.
//! - `ui/fail/rustc`: refused, at least in part, in rustc's words. These change from one release to the next, and so
//!   are looked at with one release only.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release that the expectations in `ui/fail/rustc` are of.
const RUSTC: &str = "rustc 1.95.";

#[test]
fn passes() {
    trybuild::TestCases::new().pass("tests/ui/pass/*.rs");
}

#[test]
fn fails() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/fail/*.rs");
    cases.compile_fail("tests/ui/fail/own/*.rs");
    if is_expected_rustc() {
        cases.compile_fail("tests/ui/fail/rustc/*.rs");
        cases.compile_fail("tests/ui/fail/rustc/own/*.rs");
        // Names what the expansion calls.
        if cfg!(not(feature = "debug")) {
            cases.compile_fail("tests/ui/fail/rustc/debug_off/*.rs");
        }
    }
}

/// Each case that is not our own gives the same errors at the same places under `#[tokio::main]`. Where a new tokio
/// says something else, this fails, and the attribute has to follow.
#[test]
fn fails_as_tokio_does() {
    let cases = trybuild::TestCases::new();
    let mut directories = vec!["tests/ui/fail"];
    if is_expected_rustc() {
        directories.push("tests/ui/fail/rustc");
    }
    for directory in directories {
        let sources: Vec<PathBuf> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .collect();
        assert!(sources.len() > 5, "{directory}: only {} cases", sources.len());
        for source in sources {
            cases.compile_fail(under_tokio(&source));
        }
    }
}

fn is_expected_rustc() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = String::from_utf8(Command::new(rustc).arg("--version").output().unwrap().stdout).unwrap();
    let is_expected = version.starts_with(RUSTC);
    if !is_expected {
        eprintln!("ui/fail/rustc is skipped: it has the words of {RUSTC}x, this is {version}");
    }
    is_expected
}

/// Writes the case and its expectation as they would be for tokio.
fn under_tokio(source: &Path) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ui-tokio");
    fs::create_dir_all(&directory).unwrap();
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
