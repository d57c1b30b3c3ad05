//! Who knows every animal, and where it ought to be found.

use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::Notify;

/// Collects what every task expects to be seen of itself.
#[derive(Clone, Default)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    book: Mutex<Book>,
    changed: Notify,
    closing: Notify,
}

#[derive(Default)]
struct Book {
    spawned: usize,
    animals: Vec<Value>,
}

impl Keeper {
    /// Announces a task; it is settled when it has said where it waits.
    pub(crate) fn announce(&self) {
        self.book().spawned += 1;
    }

    /// Spawns `animal` on the runtime of the caller.
    pub(crate) fn spawn<F>(&self, animal: impl FnOnce(Keeper) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.announce();
        tokio::spawn(animal(self.clone()));
    }

    /// Says that the current task waits for `resource` at the line after the caller's.
    #[track_caller]
    pub(crate) fn waits(&self, name: &str, resource: &str) {
        self.waits_for(name, json!({ "kind": resource }));
    }

    /// The same where more than the kind is expected: each of these fields of one of its waits.
    #[track_caller]
    pub(crate) fn waits_for(&self, name: &str, resource: Value) {
        let here = Location::caller();
        let animal = json!({
            "name": name,
            "id": tokio::task::try_id().map(|id| id.to_string()),
            "file": here.file(),
            "line": here.line() + 1,
            "resource": resource,
        });
        self.book().animals.push(animal);
        self.shared.changed.notify_one();
    }

    /// Waits until every task has said where it waits.
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
        let book = self.book();
        book.spawned == book.animals.len()
    }

    /// All animals as JSON, on one line.
    pub(crate) fn report(&self) -> Value {
        json!({ "animals": self.book().animals })
    }

    /// Waits until stdin closes.
    pub(crate) async fn closing_time(&self) {
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            shared.closing.notify_one();
        });
        self.shared.closing.notified().await;
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.shared.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
