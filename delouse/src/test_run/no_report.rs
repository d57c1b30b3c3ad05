//! In place of `report`, with the features `dump` and `debug` off: a test that is late fails without a reason.

use std::future::Future;

use tokio::runtime::Handle;

use super::test::Test;

/// Starts the watchdog's thread.
pub(super) fn spawn_waiting(body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("delouse-test".to_owned()).spawn(body).map(drop)
}

pub(super) struct Registered;

impl Registered {
    pub(super) fn new<F: Future>(_: &Handle, _: &F) -> Self {
        Self
    }
}

/// The verdict about a test that is late.
pub(super) fn make_late(_: &Test, late: &str, _: &Handle) -> String {
    format!("{late}\nWith delouse's feature `dump` or `debug`, this message says why.")
}

/// A sentence about the tasks that are left.
pub(super) fn left_over(_: &Test, _: &Handle, count: usize) -> String {
    let (tasks, are) = if count == 1 { ("task", "is") } else { ("tasks", "are") };
    format!(
        "{count} {tasks} {are} left after the test's body\nWith delouse's feature `dump` or `debug`, this message says which."
    )
}
