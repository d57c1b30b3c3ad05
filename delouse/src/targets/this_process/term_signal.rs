//! SIGTERM: counted, and otherwise handled as if delouse were not there.
//!
//! A program that shuts down on SIGTERM installs a handler of its own, mostly tokio's, after delouse has installed this one.
//! Such a handler calls the one before it (tokio's and signal-hook's do), which is how this one learns of the signal: it
//! counts it, and leaves the rest to the program. If no handler was installed on top of it, it performs the default action:
//! the program ends at once. If the program has installed a handler before delouse starts, or ignores the signal, or its
//! handler calls no other, signals are not counted.
//!
//! Rules of the handler: those of `quit_signal.rs`. It is never uninstalled either.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};

use super::signal_wakes::SignalWakes;
use super::{signal, sys};

/// How many have arrived that the program handles.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// The process that listens, or 0. A forked child has the handler, but not the thread.
static LISTENER: AtomicI32 = AtomicI32::new(0);
/// The handler is installed, perhaps below one of the program.
static INSTALLED: AtomicBool = AtomicBool::new(false);
/// How many listeners there are that end the program themselves, when they have printed their report.
static DEFERRING: AtomicUsize = AtomicUsize::new(0);
/// A signal has arrived for which one of these has to end the program.
static IS_DEFERRED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_term(_signal: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
    let is_last = sys::action(libc::SIGTERM) == Ok(ours());
    let listens = LISTENER.load(Ordering::Acquire) == sys::getpid();
    if listens && !is_last {
        COUNT.fetch_add(1, Ordering::AcqRel);
        SignalWakes::wake();
        return;
    }
    // The second one ends the program although the report is not printed.
    if listens && DEFERRING.load(Ordering::Acquire) > 0 && !IS_DEFERRED.swap(true, Ordering::AcqRel) {
        SignalWakes::wake();
        return;
    }
    if is_last {
        // The default action, as soon as this handler, in which the signal is blocked, has returned.
        sys::reset_action(libc::SIGTERM, ours());
        let _gone = sys::tgkill(sys::getpid(), sys::gettid(), libc::SIGTERM);
    }
}

/// Ends the program as SIGTERM does by default, unless the program handles the signal. Not for signal handlers.
pub(crate) fn end_by_sigterm() {
    sys::reset_action(libc::SIGTERM, ours());
    // To the process: delouse's own threads block signals.
    let _ended = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
}

fn ours() -> libc::sighandler_t {
    on_term as *const () as libc::sighandler_t
}

/// Counts SIGTERM until dropped.
#[derive(Debug)]
pub(crate) struct TermSignals {
    is_deferring: bool,
}

/// Starts to count. `None` if the program handles or ignores the signal already.
pub(crate) fn listen_for_term() -> Option<TermSignals> {
    listen(false)
}

/// The same; the first signal that the program does not handle does not end it: the caller does, by [`end_by_sigterm`].
pub(crate) fn defer_term() -> Option<TermSignals> {
    listen(true)
}

fn listen(is_deferring: bool) -> Option<TermSignals> {
    // SAFETY: the handler obeys the rules above.
    if !INSTALLED.load(Ordering::Acquire) && !unsafe { signal::install_where_default(libc::SIGTERM, ours()) }
    {
        return None;
    }
    INSTALLED.store(true, Ordering::Release);
    DEFERRING.fetch_add(usize::from(is_deferring), Ordering::AcqRel);
    LISTENER.store(sys::getpid(), Ordering::Release);
    Some(TermSignals { is_deferring })
}

impl TermSignals {
    /// How many have arrived so far that the program handles.
    pub(crate) fn count() -> u32 {
        COUNT.load(Ordering::Acquire)
    }

    /// Whether one has arrived that the program does not handle, and that was deferred.
    pub(crate) fn is_deferred() -> bool {
        IS_DEFERRED.load(Ordering::Acquire)
    }
}

impl Drop for TermSignals {
    fn drop(&mut self) {
        DEFERRING.fetch_sub(usize::from(self.is_deferring), Ordering::AcqRel);
    }
}
