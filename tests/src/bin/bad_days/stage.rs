//! What the cases share: who is there, and who is to be named.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

/// Nobody waits for that to pass.
pub(crate) const AGES: Duration = Duration::from_secs(86_400);

/// One day.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The kinds of finding that may be told of it, of which the first one told must be one; none on a good day.
    pub(crate) findings: &'static [&'static str],
    /// How `/diagnosis` is to be asked.
    pub(crate) query: &'static str,
    pub(crate) run: fn() -> Run,
}

pub(crate) type Run = Pin<Box<dyn Future<Output = ()>>>;

impl Case {
    /// The case as one line of JSON.
    pub(crate) fn line(&self) -> Value {
        json!({ "name": self.name, "findings": self.findings, "query": self.query })
    }
}

/// A day with one of these findings.
macro_rules! bad {
    ($name:ident: $($finding:literal)|+) => {
        $crate::stage::bad!($name: $($finding)|+, "")
    };
    ($name:ident: $($finding:literal)|+, $query:literal) => {
        $crate::stage::Case {
            name: stringify!($name),
            findings: &[$($finding),+],
            query: $query,
            run: || Box::pin($name()),
        }
    };
}

/// A day on which nothing is wrong.
macro_rules! good {
    ($name:ident) => {
        $crate::stage::good!($name, "")
    };
    ($name:ident, $query:literal) => {
        $crate::stage::Case {
            name: stringify!($name),
            findings: &[],
            query: $query,
            run: || Box::pin($name()),
        }
    };
}

pub(crate) use {bad, good};

/// In statics, so that no task of a case owns any of it.
static PRESENT: Mutex<Vec<Value>> = Mutex::new(Vec::new());
static ARRIVED: Notify = Notify::const_new();

fn present() -> MutexGuard<'static, Vec<Value>> {
    PRESENT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn arrive(what: Value) {
    present().push(what);
    ARRIVED.notify_one();
}

/// The current task is about to wait, and nothing is wrong with it.
pub(crate) fn waits() {
    arrive(Value::Null);
}

/// The current task is about to wait, in `function` at the line after the caller's, and must be named for it.
#[track_caller]
pub(crate) fn guilty(function: &str) {
    let here = Location::caller();
    let file = here.file().rsplit('/').next().unwrap_or_default();
    arrive(json!({
        "task": tokio::task::try_id().map_or("0".to_owned(), |id| id.to_string()),
        "function": function,
        "place": format!("{file}:{}", here.line() + 1),
    }));
}

/// Waits until that many tasks have said that they wait, and says so.
pub(crate) async fn stands(tasks: usize) {
    while present().len() < tasks {
        ARRIVED.notified().await;
    }
    let guilty: Vec<Value> = present().iter().filter(|one| !one.is_null()).cloned().collect();
    println!("{}", json!({ "stands": true, "guilty": guilty }));
    tokio::time::sleep(AGES).await;
}
