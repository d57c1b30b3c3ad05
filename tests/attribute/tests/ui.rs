//! What `#[delouse::main]` and `#[delouse::test]` accept and refuse, with which messages, at which places.
//!
//! The expectations hold with debug on and off: run with and without `--features debug`. After an intended change, rewrite
//! them with `TRYBUILD=overwrite` and read the difference.
//!
//! - `ui/pass`: programs that are built and run.
//! - `ui/fail`: refused with our messages, which equal tokio's. `own` has the arguments that tokio does not have.
//! - `ui/fail/rustc`: refused, at least in part, by rustc. Its messages change from one release to the next, so they are
//!   compared with one release only.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release of the expectations in `ui/fail/rustc`.
const RUSTC: &str = "rustc 1.95.";

#[test]
fn passes() {
    trybuild::TestCases::new().pass("tests/ui/pass/*.rs");
}

#[test]
fn fails() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/fail/*.rs");
    cases.compile_fail("tests/ui/fail/test/*.rs");
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

/// Each case, except those in `own`, gives the same errors at the same places under `#[tokio::main]` or `#[tokio::test]`. If the messages of a new
/// tokio differ, this test fails, and the attribute must be adapted.
#[test]
fn fails_as_tokio_does() {
    let cases = trybuild::TestCases::new();
    let mut directories = vec![("tests/ui/fail", 6), ("tests/ui/fail/test", 3)];
    if is_expected_rustc() {
        directories.push(("tests/ui/fail/rustc", 6));
    }
    for (directory, least) in directories {
        let sources: Vec<PathBuf> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .collect();
        assert!(sources.len() >= least, "{directory}: only {} cases", sources.len());
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
        // `eprintln!` would not do: libtest hides what passing tests print.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: ui/fail/rustc: it has the messages of {RUSTC}x, this is {version}"
        );
    }
    is_expected
}

/// Writes the case and its expectation for tokio.
fn under_tokio(source: &Path) -> PathBuf {
    let parent = source.parent().and_then(Path::file_name).unwrap();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ui-tokio").join(parent);
    fs::create_dir_all(&directory).unwrap();
    let copy = directory.join(source.file_name().unwrap());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let in_workspace = match copy.strip_prefix(workspace) {
        Ok(path) => format!("$WORKSPACE/{}", path.display()),
        Err(_) => copy.display().to_string(),
    };
    // Spaces keep the columns where they are.
    let in_source = |text: &str| text.replace("#[delouse::", "#[tokio  ::");
    let in_message = |text: &str| {
        text.replace("delouse::main", "tokio::main")
            .replace("delouse::test", "tokio::test")
            .replace("`name`, `bind`, `delouse`.", "`name`.")
            .replace("`name`, `timeout`, `leaks`, `delouse`.", "`name`.")
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
