//! Tests in processes of their own: with memory, signals, limits and users that no other test affects.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;
use std::process::Command;

/// Has the name of the test that the process runs alone.
const TEST: &str = "DELOUSE_ISOLATED_TEST";

#[cfg_attr(not(feature = "dump"), allow(unused_macros))]
/// Runs the rest of the test in a process of its own: in the process of all tests, the test ends here.
macro_rules! isolated {
    () => {
        if !crate::isolation::is_isolated(|| ()) {
            return;
        }
    };
}
pub(crate) use isolated;

/// Whether this process runs only the test that contains the closure `inside`. If not, starts a process that does, and
/// fails if the test fails there.
pub(crate) fn is_isolated<T: Fn()>(_inside: T) -> bool {
    let path = std::any::type_name::<T>().trim_end_matches("::{{closure}}");
    let (_, test) = path.split_once("::").unwrap();
    if runs_alone(test) {
        return true;
    }
    let output = command(test).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{test}: {:?}\n{text}", output.status);
    false
}

/// Whether this process runs only `test`.
pub(crate) fn runs_alone(test: &str) -> bool {
    std::env::var_os(TEST).is_some_and(|name| name == test)
}

/// The command that runs only `test`, in a process of its own.
pub(crate) fn command(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(TEST, test);
    command
}

/// Copies the program of the tests. By a process of its own: children that other tests start meanwhile would inherit the open
/// file from this one, and a file that is open for writing cannot be executed.
pub(crate) fn copy_program(to: &Path) {
    let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(to).status().unwrap();
    assert!(copied.success());
}
