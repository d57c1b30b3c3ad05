//! The server's own threads: what may block is done on one of them, never on the server's.

use std::thread;

use tokio::sync::oneshot;

use super::error::ApiError;

/// Stacks of async functions that call themselves are deep, and are written out by recursion: about 2 kB for each
/// level in a build without optimisations. Memory that is not used is not taken.
const STACK: usize = 16 << 20;

/// Starts a thread. That there is none to be had is an answer: unlike `spawn_blocking`, this does not panic.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
    let spawned = thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body);
    spawned.map(drop).map_err(|_| ApiError::NoThread)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::answer::{Format, Rendered};
    use crate::tasks::{Frame, Origin};

    #[tokio::test]
    async fn deep_stacks_can_be_written_out() {
        let frame = |children| Frame {
            function: "down".to_owned(),
            file: None,
            line: None,
            origin: Origin::User,
            children,
        };
        // More than any engine tells.
        let written = run("delouse-test", move || {
            let deep = (0..2000).fold(Vec::new(), |children, _| vec![frame(children)]);
            Rendered::new(Format::Json, &deep, String::new).map(drop)
        });
        assert_eq!(written.await, Ok(Ok(())));
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let answer = run("delouse-test", || panic!("on purpose")).await;
        assert_eq!(answer, Err::<(), _>(ApiError::Failed("the thread delouse-test panicked".to_owned())));
    }
}
