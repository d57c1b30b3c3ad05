//! delouse's own threads, on which everything runs that may block or take long.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::host::descriptor_reserve::{self, DescriptorPermit};
use crate::host::heap::{Baseline, Growth};
use crate::host::limits;
use crate::host::memory_budget::{self, Shortage};
use crate::snapshot::OwnThread;

/// Stack size in bytes. Async stacks with recursion are deep, and are rendered recursively: about 2 kB for each level in a
/// build without optimisations. Only pages that are used take memory.
const STACK: usize = 16 << 20;

thread_local! {
    /// On a thread of delouse, until its work is done.
    static WORK: RefCell<Option<Work>> = const { RefCell::new(None) };
}

/// What the thread has to clean up when its work is done.
struct Work {
    before: Baseline,
    grown: Growth,
    left: Vec<Box<dyn Send>>,
}

impl Work {
    fn begin() {
        let before = Baseline::now();
        WORK.set(Some(Self { before, grown: Growth::default(), left: Vec::new() }));
    }

    fn end() {
        if let Some(Self { grown, left, .. }) = WORK.take() {
            drop(left);
            grown.release_freed();
        }
    }
}

/// Why a thread cannot be started, or may not begin a capture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ThreadError {
    /// It would exceed the memory budget.
    #[error("nothing was captured: {0}")]
    Memory(#[from] Shortage),
    /// Too few descriptors are free; `left` is their number.
    #[error(
        "the program may open only {left} more files (RLIMIT_NOFILE), which delouse leaves to it: raise the limit while it \
         runs, with {}; nothing was captured",
        limits::more_files()
    )]
    Files { left: usize },
    /// A limit on threads is reached.
    #[error(
        "no thread for the capture: raise the limit (pids.max of the cgroup, or RLIMIT_NPROC). /stacktrace/rust needs none"
    )]
    Threads,
}

/// The number of running threads, and its maximum so far.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Checks that the memory budget allows another thread. A thread that has ended leaves address space that the next one
/// reuses: glibc unmaps neither the arena of a thread nor, up to 40 MB, stacks.
fn check_memory() -> Result<(), ThreadError> {
    if RUNNING.load(Ordering::Relaxed) < MOST.load(Ordering::Relaxed) {
        return Ok(());
    }
    Ok(memory_budget::check_thread(STACK as u64)?)
}

/// Checks that the memory budget allows a thread for a capture, and returns the permission to open files.
pub(crate) fn capture_permit() -> Result<DescriptorPermit, ThreadError> {
    check_memory()?;
    files()
}

/// The permission to open the files of a capture.
pub(crate) fn files() -> Result<DescriptorPermit, ThreadError> {
    descriptor_reserve::acquire().map_err(|left| ThreadError::Files { left })
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

/// Starts a thread. Unlike `spawn_blocking`, does not panic if that fails.
pub(crate) fn spawn(thread: OwnThread, body: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    check_memory()?;
    let running = Running::begin();
    start(thread, move || {
        let _running = running;
        Work::begin();
        body();
        Work::end();
    })
}

/// Starts a thread that waits, and that seldom has anything to capture: for that it calls [`work`]. Unlike [`spawn`], this
/// does not measure memory, which reads a dozen files.
pub(crate) fn spawn_waiting(
    thread: OwnThread,
    body: impl FnOnce() + Send + 'static,
) -> Result<(), ThreadError> {
    start(thread, body)
}

/// Runs `body` as a thread of [`spawn`] runs it, if the memory budget allows that.
pub(crate) fn work<T>(body: impl FnOnce() -> T) -> Result<T, ThreadError> {
    check_memory()?;
    let _running = Running::begin();
    Work::begin();
    let result = body();
    Work::end();
    Ok(result)
}

fn start(thread: OwnThread, body: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    let spawned = thread.builder().stack_size(STACK).spawn(body);
    spawned.map(drop).map_err(|_| ThreadError::Threads)
}

/// The data of an answer. If it is dropped on the thread that created it, it is freed when that thread's work is done, and
/// otherwise on a separate thread: freeing a hundred thousand tasks takes some milliseconds, for which the client should not
/// wait.
///
/// Afterwards freed memory is returned to the system, so that the next image is smaller and searched faster.
pub(crate) struct Material<T: Send + 'static>(Option<(Growth, T)>);

impl<T: Send + 'static> Material<T> {
    pub(crate) fn new(data: T) -> Self {
        let grown = WORK.with_borrow_mut(|work| {
            work.as_mut().map(|work| {
                work.grown = work.before.growth();
                work.grown
            })
        });
        Self(Some((grown.unwrap_or_default(), data)))
    }

    /// The data; `None` only during the drop.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(_, data)| data)
    }
}

impl<T: Send + 'static> Drop for Material<T> {
    fn drop(&mut self) {
        let Some((grown, data)) = self.0.take() else { return };
        let elsewhere = WORK.with_borrow_mut(|work| match work {
            Some(work) => {
                work.left.push(Box::new(data));
                None
            }
            None => Some(data),
        });
        if let Some(data) = elsewhere {
            // If no thread can be started, it is freed on this thread.
            let _no_thread = spawn(OwnThread::Free, move || {
                drop(data);
                grown.release_freed();
            });
        }
    }
}
