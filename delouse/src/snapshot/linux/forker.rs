//! The thread that forks images, and whose open files they have.
//!
//! A forked child has either copies of its parent's open files, and keeps a port bound and a peer waiting after the
//! program has closed a socket; or the same table of open files, and keeps all of them open when the program has ended,
//! until the child has ended, too. Neither may be. So images are forked by a thread with a table of its own, in which
//! there is nothing.
//!
//! The thread starts with the first image and stays until the process ends or executes another program. That is when
//! the kernel kills its children (PR_SET_PDEATHSIG). And its table is made once: while it is made, it has copies of some
//! of the program's files, and to close these may take as long as a network file system pleases.
//!
//! Rules of [`serve`] and [`Forker::fork`]: those of the window (`engine.rs`). The thread is captured like others, but
//! goes on at once: see [`is_forker`].

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::child::{self, hold_still};
use super::control::Control;
use super::signal;
use super::sys::{self, ChildFiles};
use crate::snapshot::SnapshotError;

/// What the thread needs: the frames of [`hold_still`], in a build without optimisations, some 10 kB.
const STACK: usize = 128 << 10;
/// How long to wait, in nanoseconds, until the thread has come up: on a busy machine, while the program maps memory.
const START_PATIENCE: u64 = 5_000_000_000;
/// How long until it has seen an order, while all other threads may stand still.
const PATIENCE: u64 = 1_000_000_000;
/// Later than any machine runs, by its clock.
const FOR_EVER: u64 = 1 << 62;
/// Of those who wait for a futex.
const EVERYBODY: u32 = u32::MAX;

/// The thread, and whoever uses it.
static FORKER: Mutex<Option<Running>> = Mutex::new(None);
/// Process id (upper half) and thread id; 0: there is none.
static ID: AtomicU64 = AtomicU64::new(0);
/// The kernel does not let this process open the files of a child that has a table of its own.
static MUST_SHARE: AtomicBool = AtomicBool::new(false);

/// What the order says.
mod order {
    /// The thread is not there yet.
    pub(super) const NONE: u32 = 0;
    /// Nothing is to be done.
    pub(super) const WAIT: u32 = 1;
    /// An image is to be forked.
    pub(super) const FORK: u32 = 2;
    /// The thread forks.
    pub(super) const TAKEN: u32 = 3;
    /// The outcome is there.
    pub(super) const DONE: u32 = 4;
}

/// Where the thread gets its orders.
#[derive(Default)]
struct Desk {
    /// Futex.
    order: AtomicU32,
    control: AtomicPtr<Control>,
    /// The child's process id, or the error number, negated.
    outcome: AtomicI32,
    tid: AtomicI32,
    /// Whether the thread has a table of open files of its own.
    is_apart: AtomicBool,
}

struct Running {
    desk: Arc<Desk>,
    /// The process that has the thread: one that this forks itself has not.
    pid: i32,
    must_share: bool,
}

/// The thread, for one who forks.
pub(super) struct Forker(MutexGuard<'static, Option<Running>>);

/// Whether `tid` is the thread that forks: it must not stand still, as the capture waits for it. Async-signal-safe.
pub(super) fn is_forker(tid: i32) -> bool {
    let id = ID.load(Ordering::Relaxed);
    id as u32 == tid as u32 && (id >> 32) as u32 == sys::getpid() as u32
}

/// From now on, children open for the parent what it reads.
pub(super) fn share_files() {
    MUST_SHARE.store(true, Ordering::Relaxed);
}

/// Waits for the thread, and starts it where there is none.
pub(super) fn ready() -> Result<Forker, SnapshotError> {
    let mut forker = FORKER.lock().unwrap_or_else(PoisonError::into_inner);
    let (pid, must_share) = (sys::getpid(), MUST_SHARE.load(Ordering::Relaxed));
    // One that is not used any more stays: images that it has forked may be read yet.
    forker.take_if(|running| running.pid != pid || running.must_share != must_share);
    let running = match &mut *forker {
        Some(running) => running,
        none => none.insert(start(pid, must_share)?),
    };
    // It closes files, once, which may be those of a network file system.
    let deadline = sys::now().saturating_add(START_PATIENCE);
    while running.desk.order.load(Ordering::Acquire) == order::NONE {
        if sys::now() >= deadline {
            return Err(SnapshotError::Fork(libc::ETIMEDOUT));
        }
        sys::futex_wait_among(&running.desk.order, order::NONE, deadline, EVERYBODY);
    }
    let tid = running.desk.tid.load(Ordering::Relaxed);
    ID.store(u64::from(pid as u32) << 32 | u64::from(tid as u32), Ordering::Relaxed);
    Ok(Forker(forker))
}

fn start(pid: i32, must_share: bool) -> Result<Running, SnapshotError> {
    super::child_handle::reap_left_behind();
    let desk = Arc::new(Desk::default());
    let theirs = Arc::clone(&desk);
    let thread = std::thread::Builder::new().name("delouse-fork".to_owned()).stack_size(STACK);
    let started = signal::shielded(|| thread.spawn(move || serve(&theirs, must_share)));
    started.map_err(|error| SnapshotError::Fork(error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
    Ok(Running { desk, pid, must_share })
}

impl Forker {
    /// Whether children have no open files but what they open themselves.
    pub(super) fn is_apart(&self) -> bool {
        self.desk().is_some_and(|desk| desk.is_apart.load(Ordering::Relaxed))
    }

    fn desk(&self) -> Option<&Desk> {
        self.0.as_ref().map(|running| &*running.desk)
    }

    /// Has the thread fork: the child's process id.
    pub(super) fn fork(&self, control: &Control) -> Result<i32, sys::Errno> {
        let Some(desk) = self.desk() else { return Err(libc::EAGAIN) };
        control.parent.store(sys::getpid(), Ordering::Relaxed);
        control.forker.store(desk.tid.load(Ordering::Relaxed), Ordering::Relaxed);
        control.shares_files.store(u32::from(!desk.is_apart.load(Ordering::Relaxed)), Ordering::Relaxed);
        desk.control.store(std::ptr::from_ref(control).cast_mut(), Ordering::Relaxed);
        desk.order.store(order::FORK, Ordering::Release);
        sys::futex_wake_among(&desk.order, u32::MAX >> 1, EVERYBODY);
        let deadline = sys::now().saturating_add(PATIENCE);
        loop {
            let seen = desk.order.load(Ordering::Acquire);
            if seen == order::DONE {
                desk.order.store(order::WAIT, Ordering::Relaxed);
                let outcome = desk.outcome.load(Ordering::Relaxed);
                return if outcome < 0 { Err(outcome.wrapping_neg()) } else { Ok(outcome) };
            }
            if seen == order::FORK && sys::now() >= deadline && swap(desk, order::FORK, order::WAIT) {
                return Err(libc::ETIMEDOUT);
            }
            sys::futex_wait_among(&desk.order, seen, deadline, EVERYBODY);
        }
    }
}

fn swap(desk: &Desk, from: u32, to: u32) -> bool {
    desk.order.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// The thread's body.
fn serve(desk: &Desk, must_share: bool) -> ! {
    // SAFETY: this thread opens no file and uses none; what it forks uses what it opens itself.
    let is_apart = !must_share && unsafe { sys::unshare_files(0..=u32::MAX) }.is_ok();
    desk.is_apart.store(is_apart, Ordering::Relaxed);
    desk.tid.store(sys::gettid(), Ordering::Relaxed);
    desk.order.store(order::WAIT, Ordering::Release);
    sys::futex_wake_among(&desk.order, u32::MAX >> 1, EVERYBODY);
    loop {
        match desk.order.load(Ordering::Acquire) {
            order::FORK if swap(desk, order::FORK, order::TAKEN) => {
                // SAFETY: whoever asked waits for the outcome, and has the memory until then.
                let control = unsafe { &*desk.control.load(Ordering::Relaxed) };
                let files = if is_apart { ChildFiles::Copied } else { ChildFiles::Shared };
                desk.outcome.store(fork(control, files), Ordering::Relaxed);
                desk.order.store(order::DONE, Ordering::Release);
                sys::futex_wake_among(&desk.order, u32::MAX >> 1, EVERYBODY);
            }
            other => sys::futex_wait_among(&desk.order, other, FOR_EVER, EVERYBODY),
        }
    }
}

/// Forks: the child's process id, or the error number, negated.
fn fork(control: &Control, files: ChildFiles) -> i32 {
    let before = sys::now();
    control.deadline.store(before.wrapping_add(child::LIFETIME), Ordering::Relaxed);
    // The child must not run the program's handlers: it blocks every signal from its first moment on.
    let blocked = sys::set_blocked_signals(u64::MAX);
    // SAFETY: the child goes into `hold_still` at once, which obeys the contract.
    let forked = unsafe { sys::fork(files, &control.pidfd) };
    if forked == Ok(0) {
        hold_still(control);
    }
    sys::set_blocked_signals(blocked);
    control.fork_nanos.store(sys::now().wrapping_sub(before), Ordering::Relaxed);
    forked.unwrap_or_else(sys::Errno::wrapping_neg)
}
