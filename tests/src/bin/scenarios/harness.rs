//! Shared by the cases: which tasks wait, and which of them a diagnosis must name.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

/// Longer than any test runs.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// One scenario.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The kinds of finding that may be reported; the first one reported must be one of these. Empty if nothing is proven
    /// wrong.
    pub(crate) findings: &'static [&'static str],
    /// The kinds of observation of which one must be reported.
    pub(crate) observations: &'static [&'static str],
    /// What the text of the diagnosis must contain.
    pub(crate) says: &'static [&'static str],
    /// The query of the request for `/diagnosis`.
    pub(crate) query: &'static str,
    pub(crate) run: Start,
}

impl Case {
    /// A healthy case.
    pub(crate) const fn new(name: &'static str, run: Start) -> Self {
        Self { name, findings: &[], observations: &[], says: &[], query: "", run }
    }

    /// The case as one line of JSON.
    pub(crate) fn line(&self) -> Value {
        let Self { name, findings, observations, says, query, run: _ } = self;
        json!({ "name": name, "findings": findings, "observations": observations, "says": says, "query": query })
    }
}

/// How a case is started.
pub(crate) enum Start {
    /// In the main future of a runtime with two workers.
    Shared(fn() -> Run),
    /// It has its own `main` function.
    Own(fn()),
}

pub(crate) type Run = Pin<Box<dyn Future<Output = ()>>>;

/// How a case is started: in the shared runtime, or, after `own`, as a function that starts a runtime of its own with
/// `#[delouse::main]`.
macro_rules! start {
    (own $name:ident) => {
        $crate::harness::Start::Own($name)
    };
    ($name:ident) => {
        $crate::harness::Start::Shared(|| Box::pin($name()))
    };
}

/// A case with one of these findings: `faulty!(name: "deadlock" | "blocked_worker", says "what the text must contain")`.
macro_rules! faulty {
    ($($name:ident)+: $($finding:literal)|+ $(, says $($text:literal),+)? $(, query $query:literal)?) => {
        $crate::harness::Case {
            findings: &[$($finding),+],
            $(says: &[$($text),+],)?
            $(query: $query,)?
            ..$crate::harness::healthy!($($name)+)
        }
    };
}

/// A case without a finding, and with one of these observations.
macro_rules! observed {
    ($($name:ident)+: $($observation:literal)|+ $(, says $($text:literal),+)? $(, query $query:literal)?) => {
        $crate::harness::Case {
            observations: &[$($observation),+],
            $(says: &[$($text),+],)?
            $(query: $query,)?
            ..$crate::harness::healthy!($($name)+)
        }
    };
}

/// A case without a finding.
macro_rules! healthy {
    (own $name:ident) => {
        $crate::harness::Case::new(stringify!($name), $crate::harness::start!(own $name))
    };
    ($name:ident) => {
        $crate::harness::Case::new(stringify!($name), $crate::harness::start!($name))
    };
    ($name:ident, query $query:literal) => {
        $crate::harness::Case { query: $query, ..$crate::harness::healthy!($name) }
    };
}

pub(crate) use {faulty, healthy, observed, start};

/// Statics, so that no task of a case owns any of it.
static PRESENT: Mutex<Vec<Value>> = Mutex::new(Vec::new());
static ARRIVED: Notify = Notify::const_new();
static THREAD: Condvar = Condvar::new();

fn present() -> MutexGuard<'static, Vec<Value>> {
    PRESENT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn arrive(what: Value) {
    present().push(what);
    ARRIVED.notify_one();
    THREAD.notify_all();
}

/// The current task is about to wait, and nothing is wrong with it.
pub(crate) fn waits() {
    arrive(Value::Null);
}

/// The current task is about to wait, in `function` at the line after the caller's, and a diagnosis must name it.
#[track_caller]
pub(crate) fn affected(function: &str) {
    let here = Location::caller();
    let file = here.file().rsplit('/').next().unwrap_or_default();
    arrive(json!({
        "task": tokio::task::try_id().map_or("0".to_owned(), |id| id.to_string()),
        "function": function,
        "place": format!("{file}:{}", here.line() + 1),
    }));
}

/// Waits until that many tasks have reported that they are about to wait, prints the line of JSON, and never returns.
pub(crate) async fn ready(tasks: usize) {
    while present().len() < tasks {
        ARRIVED.notified().await;
    }
    print(&present());
    tokio::time::sleep(DAY).await;
}

/// Does the same as [`ready`] on a thread of its own, for cases whose main future takes part. Returns immediately.
pub(crate) fn ready_on_a_thread(tasks: usize) {
    thread::spawn(move || {
        let present = THREAD.wait_while(present(), |present| present.len() < tasks);
        print(&present.unwrap_or_else(PoisonError::into_inner));
    });
}

fn print(present: &[Value]) {
    let affected: Vec<&Value> = present.iter().filter(|one| !one.is_null()).collect();
    println!("{}", json!({ "ready": true, "affected": affected }));
}
