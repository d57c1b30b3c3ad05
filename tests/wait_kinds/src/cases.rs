//! The list of all cases, and the line and resource that each expects to be listed with.

use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::Notify;

/// Collects what each task expects to be reported about itself.
#[derive(Clone, Default)]
pub(crate) struct Cases {
    shared: Arc<Shared>,
    /// Tasks are spawned on the `LocalSet` of the caller.
    is_local: bool,
}

#[derive(Default)]
struct Shared {
    record: Mutex<Record>,
    changed: Notify,
    closing: Notify,
}

#[derive(Default)]
struct Record {
    spawned: usize,
    cases: Vec<Value>,
}

impl Cases {
    pub(crate) fn on_a_local_set() -> Self {
        Self { is_local: true, ..Self::default() }
    }

    /// Announces a task, which must call `waits` or `waits_for` later.
    pub(crate) fn announce(&self) {
        self.record().spawned += 1;
    }

    /// Spawns `case` on the runtime of the caller, or on its `LocalSet`.
    pub(crate) fn spawn<F>(&self, case: impl FnOnce(Cases) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.announce();
        let case = case(self.clone());
        if self.is_local {
            tokio::task::spawn_local(case);
        } else {
            tokio::spawn(case);
        }
    }

    /// States that the current task waits for `resource` at the line after the caller's.
    #[track_caller]
    pub(crate) fn waits(&self, name: &str, resource: &str) {
        self.waits_for(name, json!({ "kind": resource }));
    }

    /// The same where more than the kind is expected: each of these fields of one of its waits.
    #[track_caller]
    pub(crate) fn waits_for(&self, name: &str, resource: Value) {
        let here = Location::caller();
        let case = json!({
            "name": name,
            "id": tokio::task::try_id().map(|id| id.to_string()),
            "file": here.file(),
            "line": here.line() + 1,
            "resource": resource,
        });
        self.record().cases.push(case);
        self.shared.changed.notify_one();
    }

    /// Waits until every announced task has stated its wait.
    pub(crate) async fn settled(&self) {
        loop {
            let changed = self.shared.changed.notified();
            if self.all_present() {
                return;
            }
            changed.await;
        }
    }

    fn all_present(&self) -> bool {
        let record = self.record();
        record.spawned == record.cases.len()
    }

    /// All cases as JSON, on one line.
    pub(crate) fn report(&self) -> Value {
        json!({ "cases": self.record().cases })
    }

    /// Waits until stdin closes.
    pub(crate) async fn stdin_closed(&self) {
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            shared.closing.notify_one();
        });
        self.shared.closing.notified().await;
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.shared.record.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
