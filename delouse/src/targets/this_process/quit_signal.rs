//! SIGQUIT (Ctrl-\): the first one requests a dump; a second one within two seconds ends the program.
//!
//! Rules of the handler: it interrupts a thread at any point, like that of captures (`handler.rs`): **raw system calls only;
//! no `errno`, no thread locals, no allocation, no lock, no formatting, no unwinding, no panic**. It increments a counter,
//! and wakes the thread that waits for signals.
//!
//! The handler is never uninstalled: restoring the previous action could replace a newer one of the program. When delouse
//! does not listen, the handler performs the default action.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use super::signal_wakes::SignalWakes;
use super::{signal, sys};

/// A second SIGQUIT within this time, in nanoseconds, ends the program.
const SOON: u64 = 2_000_000_000;

/// Incremented by each SIGQUIT that requests a dump.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// The process that listens, or 0. A forked child has the handler, but not the thread.
static LISTENER: AtomicI32 = AtomicI32::new(0);
/// Time of the last SIGQUIT, by the monotonic clock; 0 for never.
static LAST: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_quit(_signal: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
    // A handler that the program installed later may call this one (signal-hook and tokio do so). The program then handles
    // the signal itself.
    if sys::action(libc::SIGQUIT) != Ok(ours()) {
        return;
    }
    if LISTENER.load(Ordering::Acquire) != sys::getpid() {
        return quit();
    }
    let now = sys::now();
    let last = LAST.swap(now, Ordering::AcqRel);
    if last != 0 && now.wrapping_sub(last) < SOON {
        return quit();
    }
    COUNT.fetch_add(1, Ordering::AcqRel);
    SignalWakes::wake();
}

/// Performs the default action, as soon as this handler, in which the signal is blocked, has returned.
fn quit() {
    sys::reset_action(libc::SIGQUIT, ours());
    let _gone = sys::tgkill(sys::getpid(), sys::gettid(), libc::SIGQUIT);
}

fn ours() -> libc::sighandler_t {
    on_quit as *const () as libc::sighandler_t
}

/// Listens for SIGQUIT until dropped.
#[derive(Debug)]
pub(crate) struct QuitSignals(());

/// Starts to listen for SIGQUIT. `None` if the program handles or ignores the signal (shells ignore it for commands started
/// by `&` in a script).
///
/// A handler that the program installs later replaces this one.
pub(crate) fn listen_for_quit() -> Option<QuitSignals> {
    // SAFETY: the handler obeys the rules above.
    if !unsafe { signal::install_where_default(libc::SIGQUIT, ours()) } {
        return None;
    }
    LISTENER.store(sys::getpid(), Ordering::Release);
    Some(QuitSignals(()))
}

impl QuitSignals {
    /// The current value of the counter.
    pub(crate) fn count() -> u32 {
        COUNT.load(Ordering::Acquire)
    }
}

impl Drop for QuitSignals {
    fn drop(&mut self) {
        LISTENER.store(0, Ordering::Release);
    }
}
