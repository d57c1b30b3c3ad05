//! The server's own threads: what may block is done on one of them, never on the server's.

use std::thread;

use tokio::sync::oneshot;

use super::error::ApiError;

/// Starts a thread. That there is none to be had is an answer: unlike `spawn_blocking`, this does not panic.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| ApiError::Failed(format!("no thread to be had: {error}")))
}

/// Runs `work` on a thread of that name and waits for its result.
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let (done, result) = oneshot::channel();
    spawn(name, move || drop(done.send(work())))?;
    result.await.map_err(|_| ApiError::Failed(format!("the thread {name} panicked")))
}
