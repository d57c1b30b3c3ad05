//! The server's own threads: what may block is done on one of them, never on the server's.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::sync::oneshot;

use super::error::ApiError;
use crate::snapshot::heap::{Before, Grown};
use crate::snapshot::room;

/// Stacks of async functions that call themselves are deep, and are written out by recursion: about 2 kB for each
/// level in a build without optimisations. Memory that is not used is not taken.
const STACK: usize = 16 << 20;

thread_local! {
    /// On a thread of ours, until its work is done.
    static WORK: RefCell<Option<Work>> = const { RefCell::new(None) };
}

/// What a thread of ours has to clean up when its work is done.
struct Work {
    before: Before,
    grown: Grown,
    left: Vec<Box<dyn Send>>,
}

impl Work {
    fn begin() {
        let before = Before::now();
        WORK.set(Some(Self { before, grown: Grown::default(), left: Vec::new() }));
    }

    fn end() {
        if let Some(Self { grown, left, .. }) = WORK.take() {
            drop(left);
            grown.give_back();
        }
    }
}

/// Our threads that run, and the most that ever ran at a time.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Whether there is room for a thread. What one had that has ended is used again: glibc unmaps neither the addresses that
/// it reserved for the thread's allocations nor, up to 40 MB, stacks.
pub(crate) fn room() -> Result<(), ApiError> {
    if RUNNING.load(Ordering::Relaxed) < MOST.load(Ordering::Relaxed) {
        return Ok(());
    }
    room::thread(STACK as u64).map_err(ApiError::NoRoom)
}

/// A thread that runs.
struct Running;

impl Running {
    fn begin() -> Self {
        MOST.fetch_max(RUNNING.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts a thread. That there is none to be had is an answer: unlike `spawn_blocking`, this does not panic.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
    room()?;
    let running = Running::begin();
    let body = move || {
        let _running = running;
        Work::begin();
        body();
        Work::end();
    };
    let spawned = thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body);
    spawned.map(drop).map_err(|_| ApiError::NoThread)
}

/// What an answer is made of. Dropped on the thread that made it, it is freed when that thread's work is done, and else
/// on a thread of its own: a hundred thousand tasks take some milliseconds, which whoever asked need not wait for.
///
/// Then what the program had grown by since the thread began is given back, as far as it is free: the next image is the
/// smaller for it, and sooner searched.
pub(crate) struct Material<T: Send + 'static>(Option<(Grown, T)>);

impl<T: Send + 'static> Material<T> {
    pub(crate) fn new(what: T) -> Self {
        let grown = WORK.with_borrow_mut(|work| {
            work.as_mut().map(|work| {
                work.grown = work.before.grown();
                work.grown
            })
        });
        Self(Some((grown.unwrap_or_default(), what)))
    }

    /// Itself, until it is dropped.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(_, what)| what)
    }
}

impl<T: Send + 'static> Drop for Material<T> {
    fn drop(&mut self) {
        let Some((grown, what)) = self.0.take() else { return };
        let elsewhere = WORK.with_borrow_mut(|work| match work {
            Some(work) => {
                work.left.push(Box::new(what));
                None
            }
            None => Some(what),
        });
        if let Some(what) = elsewhere {
            // Without a thread it is freed right here.
            let _no_thread = spawn("delouse-free", move || {
                drop(what);
                grown.give_back();
            });
        }
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
    use crate::tasks::Frame;

    #[tokio::test]
    async fn deep_stacks_can_be_written_out() {
        let frame = |children| Frame {
            function: "down".to_owned(),
            file: None,
            line: None,
            children,
            ..Frame::default()
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
