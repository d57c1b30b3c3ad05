//! Prints the async stack of a task that panics.

use std::sync::mpsc;
use std::sync::{Arc, Once};
use std::time::Duration;

use crate::inspector::Inspector;
use crate::log;
use crate::stderr_dump::{self, Content};

/// How long a task that panics waits for the report: the first one reads the debug information.
const PATIENCE: Duration = Duration::from_secs(20);

/// Installs the hook, once. The hook that is installed already runs first; one that the program installs later replaces
/// both, unless it calls them.
pub(crate) fn install(inspector: fn() -> Option<Arc<Inspector>>) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            print(inspector);
        }));
    });
}

/// Prints the task that runs on this thread, if there is one.
fn print(inspector: fn() -> Option<Arc<Inspector>>) {
    let Some(task) = tokio::task::try_id().and_then(|id| id.to_string().parse().ok()) else { return };
    let Some(inspector) = inspector() else { return };
    let (done, is_done) = mpsc::sync_channel(1);
    let done = move |result: Result<(), _>| drop(done.try_send(result));
    let started = stderr_dump::start(inspector, Content::Panic { task }, done);
    // The stack is that of the panic only as long as this thread waits here.
    let result = started.map(|()| is_done.recv_timeout(PATIENCE));
    match result {
        Ok(Ok(Ok(()))) => {}
        Err(error) | Ok(Ok(Err(error))) => {
            log::say_once(&format!("the stack of task {task} is not printed: {error}"))
        }
        Ok(Err(_)) => {
            log::say_once(&format!("the stack of task {task} is not printed: it has taken too long"))
        }
    }
}
