//! SIGQUIT (Ctrl-\): the first one asks for a dump, a second one soon after ends the program as ever.
//!
//! Rules of the handler: it interrupts a thread anywhere, as the one of captures does (`handler.rs`): **raw
//! system calls only; no `errno`, no thread locals, no allocation, no lock, no formatting, no unwinding, no
//! panic**. It writes a byte to a pipe that a thread of ours reads, and nothing more.
//!
//! It is never taken out again: where nobody listens it does what SIGQUIT always did. So there is no moment
//! at which we could put back an old action over a new one of the program's.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::{signal, sys};

/// A second one within this time is meant for the program, in nanoseconds.
const SOON: u64 = 2_000_000_000;

/// Where the handler writes; -1 where nobody listens. Once open, both ends of the pipe stay so: the handler
/// never writes to a file that has taken the number, nor to a pipe without a reader (SIGPIPE).
static WRITER: AtomicI32 = AtomicI32::new(-1);
/// The process that listens: a child that was forked off it has the handler, but not the threads.
static LISTENER: AtomicI32 = AtomicI32::new(0);
/// When the last one came, by the monotonic clock; 0 for never.
static LAST: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_quit(_signal: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
    // Whoever has put a handler over ours may call ours from it (signal-hook does, and so does tokio): the
    // signal is theirs.
    if sys::action(libc::SIGQUIT) != Ok(ours()) {
        return;
    }
    let writer = WRITER.load(Ordering::Acquire);
    if writer < 0 || LISTENER.load(Ordering::Acquire) != sys::getpid() {
        return quit();
    }
    let now = sys::now();
    let last = LAST.swap(now, Ordering::AcqRel);
    if last != 0 && now.wrapping_sub(last) < SOON {
        return quit();
    }
    let byte = 0_u8;
    // SAFETY: what is stored there stays open.
    let writer = unsafe { BorrowedFd::borrow_raw(writer) };
    let _full = sys::write(writer, (&raw const byte) as u64, 1);
}

/// What SIGQUIT does by default: it waits until our handler, in which it is blocked, has returned.
fn quit() {
    sys::reset_action(libc::SIGQUIT, ours());
    let _gone = sys::tgkill(sys::getpid(), sys::gettid(), libc::SIGQUIT);
}

fn ours() -> libc::sighandler_t {
    on_quit as *const () as libc::sighandler_t
}

/// SIGQUIT tells us for as long as this lives.
pub(crate) struct Quits(OwnedFd);

/// Listens to SIGQUIT from now on. `None` where it is not ours to take: the program handles it, ignores it
/// (as `&` in a script has it do), or there is no room for more open files.
///
/// Handlers that are installed later go before ours.
pub(crate) fn quits() -> Option<Quits> {
    // SAFETY: it obeys the rules above.
    if !unsafe { signal::install_where_default(libc::SIGQUIT, ours()) } {
        return None;
    }
    static PIPE: OnceLock<Option<(OwnedFd, OwnedFd)>> = OnceLock::new();
    let (reader, writer) = PIPE.get_or_init(pipe).as_ref()?;
    let quits = Quits(reader.try_clone().ok()?);
    LISTENER.store(sys::getpid(), Ordering::Release);
    WRITER.store(writer.as_raw_fd(), Ordering::Release);
    Some(quits)
}

/// A pipe that nobody ever waits at: its read end and its write end.
fn pipe() -> Option<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: writes two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return None;
    }
    // SAFETY: both are open and nobody else's.
    Some(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

impl Quits {
    /// The read end of a pipe that each SIGQUIT writes a byte to.
    pub(crate) fn reader(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl Drop for Quits {
    fn drop(&mut self) {
        WRITER.store(-1, Ordering::Release);
    }
}
