//! The server's own threads: what may block is done on one of them, never on the server's.

use std::thread;

use tokio::sync::oneshot;

use super::error::ApiError;
use crate::snapshot::heap::{Before, Grown};

/// Stacks of async functions that call themselves are deep, and are written out by recursion: about 2 kB for each
/// level in a build without optimisations. Memory that is not used is not taken.
const STACK: usize = 16 << 20;

/// Starts a thread. That there is none to be had is an answer: unlike `spawn_blocking`, this does not panic.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
    let spawned = thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body);
    spawned.map(drop).map_err(|_| ApiError::NoThread)
}

/// What an answer is made of. Dropped, it is freed on a thread of its own: a hundred thousand tasks take some
/// milliseconds, which whoever asked need not wait for.
///
/// Then what the program had grown by since `before` is given back, as far as it is free: the next image is the smaller
/// for it, and sooner searched.
pub(crate) struct Material<T: Send + 'static>(Option<(Grown, T)>);

impl<T: Send + 'static> Material<T> {
    pub(crate) fn new(before: Before, what: T) -> Self {
        Self(Some((before.grown(), what)))
    }

    /// Itself, until it is dropped.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(_, what)| what)
    }
}

impl<T: Send + 'static> Drop for Material<T> {
    fn drop(&mut self) {
        let material = self.0.take();
        // Without a thread it is freed right here.
        let _no_thread = spawn("delouse-free", move || {
            if let Some((grown, what)) = material {
                drop(what);
                grown.give_back();
            }
        });
    }
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
