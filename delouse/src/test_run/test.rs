//! A test: what its attribute says, how far it is, and how it fails.

use std::io::{self, Write as _};
use std::time::Duration;

use crate::duration;

/// Overrides the timeout of tests that have one.
const VARIABLE: &str = "DELOUSE_TEST_TIMEOUT";

/// The timeout of tests that state none. With delouse's features off, as `#[tokio::test]`; else longer than most tests take,
/// and shorter than the patience of most runners.
const DEFAULT_TIMEOUT: Option<Duration> =
    if cfg!(feature = "dump") { Some(Duration::from_secs(60)) } else { None };

/// How far a test is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its body runs.
    #[default]
    Body,
    /// Its body has ended, and its runtime is being shut down.
    Shutdown,
    /// It has ended.
    Over,
}

/// A test, and what its attribute says.
#[derive(Debug, Clone)]
pub struct Test {
    /// Its path, as libtest shows it.
    pub(super) name: String,
    timeout: Option<Duration>,
    pub(super) leaks: Leaks,
}

/// What happens if tasks are left when a test's body has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaks {
    /// Nothing.
    Off,
    /// They are listed on stderr.
    Warn,
    /// The test fails.
    Fail,
}

impl Test {
    /// The test `name` in the module `module`.
    pub fn new(module: &str, name: &str) -> Self {
        Self { name: format!("{module}::{name}"), timeout: DEFAULT_TIMEOUT, leaks: Leaks::Off }
    }

    /// It may take this long; `None`: as long as it takes.
    pub fn timeout(self, timeout: Option<Duration>) -> Self {
        Self { timeout, ..self }
    }

    /// What happens if tasks are left.
    pub fn leaks(self, leaks: Leaks) -> Self {
        Self { leaks, ..self }
    }

    /// The sentence that it is late.
    pub(super) fn late(&self, phase: Phase, limit: Duration) -> String {
        match phase {
            Phase::Body => format!("test `{}` did not end within {limit:?}", self.name),
            Phase::Shutdown | Phase::Over => {
                format!(
                    "the body of test `{}` has ended, but its runtime did not within {limit:?}",
                    self.name
                )
            }
        }
    }

    /// How long it may take, by the environment or else by its attribute.
    pub(super) fn limit(&self) -> Option<Duration> {
        self.timeout.and_then(|timeout| match std::env::var(VARIABLE) {
            Ok(text) => match parse(&text) {
                Some(limit) => limit,
                None => {
                    print(&format!(
                        "delouse: {VARIABLE}={text} is ignored: it takes a time, such as 30s, 500ms or 2m, or off\n"
                    ));
                    Some(timeout)
                }
            },
            Err(_) => Some(timeout),
        })
    }
}

/// A time, or `off`, which is no limit. `None` for anything else. The attribute takes the same.
fn parse(text: &str) -> Option<Option<Duration>> {
    if text == "off" { Some(None) } else { duration::parse(text).map(Some) }
}

/// Fails the test that runs in this thread.
#[expect(clippy::panic, reason = "how a test fails")]
pub(super) fn fail(verdict: &str) -> ! {
    panic!("{verdict}")
}

/// Prints to stderr itself: libtest would keep what `eprintln` prints in the test's thread.
pub(super) fn print(text: &str) {
    let _closed = io::stderr().lock().write_all(text.as_bytes());
}
