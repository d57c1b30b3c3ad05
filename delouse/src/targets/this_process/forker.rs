//! The thread that forks images.
//!
//! A forked child must not keep the program's files open. If it had copies of the parent's descriptors, a socket that the
//! program closes would stay connected or bound until the child exits. If it shared the table of open files, all files
//! would stay open after the program has ended, until the child exits. Images are therefore forked by a thread that has its
//! own, empty table of open files.
//!
//! The thread is started with the first image and never exits, for two reasons. The kernel kills the children when the
//! thread that forked them exits (PR_SET_PDEATHSIG). And the empty table is expensive to create: the kernel first copies
//! some of the program's descriptors, and closing a copy may block on a network file system.
//!
//! [`serve`] and [`Forker::fork`] obey the rules of the window (`capture_session.rs`). The thread is captured like others,
//! but is not held: see [`is_forker`].

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::blocked_signals::with_signals_blocked;
use super::child::{self, run_child};
use super::control::Control;
use super::sys::{self, ChildFiles};
use crate::host::lock::lock;
use crate::host::memory_budget;
use crate::snapshot::OwnThread;
use crate::targets::SnapshotError;

/// Stack size in bytes. The frames of [`run_child`] take about 10 kB in a build without optimisations.
const STACK: usize = 128 << 10;
/// How long to wait for the thread to start, in nanoseconds. It may be slow on a busy machine, or while the program maps
/// memory.
const START_PATIENCE: u64 = 5_000_000_000;
/// How long to wait until the thread accepts a request, in nanoseconds. All other threads may be stopped meanwhile.
const PATIENCE: u64 = 1_000_000_000;
/// A deadline that is never reached.
const NEVER: u64 = 1 << 62;
/// All waiters of a futex.
const ALL_WAITERS: u32 = u32::MAX;

/// The thread. The lock is held while it is used.
static FORKER: Mutex<Option<Running>> = Mutex::new(None);
/// Process id (upper half) and thread id of the thread; 0 before it is started.
static ID: AtomicU64 = AtomicU64::new(0);
/// Whether the kernel refuses to let this process open the `/proc` files of its children, so that they must share its table
/// of open files.
static MUST_SHARE: AtomicBool = AtomicBool::new(false);

/// Values of [`Mailbox::state`].
mod state {
    /// The thread has not started yet.
    pub(super) const NOT_STARTED: u32 = 0;
    /// The thread waits for a request.
    pub(super) const IDLE: u32 = 1;
    /// A fork is requested.
    pub(super) const REQUESTED: u32 = 2;
    /// The thread is forking.
    pub(super) const FORKING: u32 = 3;
    /// The result is available.
    pub(super) const DONE: u32 = 4;
}

/// A request to the thread, and its result.
#[derive(Default)]
struct Mailbox {
    /// Futex. One of [`state`].
    state: AtomicU32,
    control: AtomicPtr<Control>,
    /// The child's process id, or a negated error number.
    outcome: AtomicI32,
    tid: AtomicI32,
    /// Whether the thread has its own table of open files.
    has_own_files: AtomicBool,
}

struct Running {
    mailbox: Arc<Mailbox>,
    /// The process that has the thread. A child that the program forks inherits this value, but not the thread.
    pid: i32,
    must_share: bool,
}

/// Exclusive use of the thread.
pub(super) struct Forker(MutexGuard<'static, Option<Running>>);

/// Whether `tid` is the thread that forks. Captures must not hold it, because they wait for it. Async-signal-safe.
pub(super) fn is_forker(tid: i32) -> bool {
    let id = ID.load(Ordering::Relaxed);
    id as u32 == tid as u32 && (id >> 32) as u32 == sys::getpid() as u32
}

/// From now on, children share the table of open files and open the files that the parent reads.
pub(super) fn share_files() {
    MUST_SHARE.store(true, Ordering::Relaxed);
}

/// Returns the thread. Starts it if necessary, and waits until it is ready.
pub(super) fn ready() -> Result<Forker, SnapshotError> {
    let mut forker = lock(&FORKER);
    let (pid, must_share) = (sys::getpid(), MUST_SHARE.load(Ordering::Relaxed));
    // A thread that is replaced keeps running, because images that it has forked may still be in use.
    forker.take_if(|running| running.pid != pid || running.must_share != must_share);
    let running = match &mut *forker {
        Some(running) => running,
        none => none.insert(start(pid, must_share)?),
    };
    // The new thread may block while it closes copies of descriptors.
    let deadline = sys::now().saturating_add(START_PATIENCE);
    while running.mailbox.state.load(Ordering::Acquire) == state::NOT_STARTED {
        if sys::now() >= deadline {
            return Err(SnapshotError::Fork(libc::ETIMEDOUT));
        }
        sys::futex_wait_among(&running.mailbox.state, state::NOT_STARTED, deadline, ALL_WAITERS);
    }
    let tid = running.mailbox.tid.load(Ordering::Relaxed);
    ID.store(u64::from(pid as u32) << 32 | u64::from(tid as u32), Ordering::Relaxed);
    Ok(Forker(forker))
}

fn start(pid: i32, must_share: bool) -> Result<Running, SnapshotError> {
    super::child_handle::reap_left_behind();
    memory_budget::check_thread(STACK as u64)?;
    let mailbox = Arc::new(Mailbox::default());
    let shared = Arc::clone(&mailbox);
    let thread = OwnThread::Fork.builder().stack_size(STACK);
    let started = with_signals_blocked(|| thread.spawn(move || serve(&shared, must_share)));
    started.map_err(|error| SnapshotError::Fork(error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
    Ok(Running { mailbox, pid, must_share })
}

impl Forker {
    /// Whether children have their own, empty table of open files.
    pub(super) fn has_own_files(&self) -> bool {
        self.mailbox().is_some_and(|mailbox| mailbox.has_own_files.load(Ordering::Relaxed))
    }

    fn mailbox(&self) -> Option<&Mailbox> {
        self.0.as_ref().map(|running| &*running.mailbox)
    }

    /// Has the thread fork. Returns the child's process id.
    pub(super) fn fork(&self, control: &Control) -> Result<i32, sys::Errno> {
        let Some(mailbox) = self.mailbox() else { return Err(libc::EAGAIN) };
        control.parent.store(sys::getpid(), Ordering::Relaxed);
        control.forker.store(mailbox.tid.load(Ordering::Relaxed), Ordering::Relaxed);
        control
            .shares_files
            .store(u32::from(!mailbox.has_own_files.load(Ordering::Relaxed)), Ordering::Relaxed);
        mailbox.control.store(std::ptr::from_ref(control).cast_mut(), Ordering::Relaxed);
        mailbox.state.store(state::REQUESTED, Ordering::Release);
        sys::futex_wake_among(&mailbox.state, u32::MAX >> 1, ALL_WAITERS);
        let deadline = sys::now().saturating_add(PATIENCE);
        loop {
            let seen = mailbox.state.load(Ordering::Acquire);
            if seen == state::DONE {
                mailbox.state.store(state::IDLE, Ordering::Relaxed);
                let outcome = mailbox.outcome.load(Ordering::Relaxed);
                return if outcome < 0 { Err(outcome.wrapping_neg()) } else { Ok(outcome) };
            }
            if seen == state::REQUESTED
                && sys::now() >= deadline
                && swap(mailbox, state::REQUESTED, state::IDLE)
            {
                return Err(libc::ETIMEDOUT);
            }
            sys::futex_wait_among(&mailbox.state, seen, deadline, ALL_WAITERS);
        }
    }
}

fn swap(mailbox: &Mailbox, from: u32, to: u32) -> bool {
    mailbox.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// The thread's main function.
fn serve(mailbox: &Mailbox, must_share: bool) -> ! {
    // SAFETY: this thread uses no files; its children use only files that they open themselves.
    let has_own_files = !must_share && unsafe { sys::unshare_files(0..=u32::MAX) }.is_ok();
    mailbox.has_own_files.store(has_own_files, Ordering::Relaxed);
    mailbox.tid.store(sys::gettid(), Ordering::Relaxed);
    mailbox.state.store(state::IDLE, Ordering::Release);
    sys::futex_wake_among(&mailbox.state, u32::MAX >> 1, ALL_WAITERS);
    loop {
        match mailbox.state.load(Ordering::Acquire) {
            state::REQUESTED if swap(mailbox, state::REQUESTED, state::FORKING) => {
                // SAFETY: the requesting thread waits for the outcome, and keeps the memory until then.
                let control = unsafe { &*mailbox.control.load(Ordering::Relaxed) };
                let files = if has_own_files { ChildFiles::Copied } else { ChildFiles::Shared };
                mailbox.outcome.store(fork(control, files), Ordering::Relaxed);
                mailbox.state.store(state::DONE, Ordering::Release);
                sys::futex_wake_among(&mailbox.state, u32::MAX >> 1, ALL_WAITERS);
            }
            other => sys::futex_wait_among(&mailbox.state, other, NEVER, ALL_WAITERS),
        }
    }
}

/// Forks. Returns the child's process id, or a negated error number.
fn fork(control: &Control, files: ChildFiles) -> i32 {
    let before = sys::now();
    control.deadline.store(before.wrapping_add(child::IDLE), Ordering::Relaxed);
    control.latest.store(before.wrapping_add(child::LIFETIME), Ordering::Relaxed);
    // The child inherits the blocked signals, so that it never runs handlers of the program.
    let blocked = sys::set_blocked_signals(u64::MAX);
    // SAFETY: the child immediately calls `run_child`, which obeys the contract.
    let forked = unsafe { sys::fork(files, &control.pidfd) };
    if forked == Ok(0) {
        run_child(control);
    }
    sys::set_blocked_signals(blocked);
    control.fork_nanos.store(sys::now().wrapping_sub(before), Ordering::Relaxed);
    forked.unwrap_or_else(sys::Errno::wrapping_neg)
}
