//! Which signal captures use, and its handler's installation.

use std::mem::MaybeUninit;

use super::handler::on_signal;
use super::sys;
use crate::snapshot::SnapshotError;

/// The signal to use now: `current` while its handler is still ours, else the best that is free.
///
/// SIGURG first: by default it is ignored, so one that comes late does no harm, and hardly a program
/// handles it. Then real-time signals from the top. A signal whose handler someone replaced is never
/// sent again.
pub(super) fn ready(current: Option<i32>) -> Result<i32, SnapshotError> {
    if let Some(signal) = current.filter(|&signal| disposition(signal) == Some(ours())) {
        return Ok(signal);
    }
    let real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev();
    std::iter::once(libc::SIGURG)
        .chain(real_time)
        // Ours already: the signal of an earlier time, while another one was current.
        .find(|&signal| match disposition(signal) {
            // SAFETY: it obeys the rules at the top of its file.
            Some(libc::SIG_DFL) => unsafe { install(signal, ours()) },
            handler => handler == Some(ours()),
        })
        .ok_or(SnapshotError::NoSignal)
}

/// Installs `handler` for a signal that has the default action; returns whether it is installed now.
///
/// # Safety
/// As for [`install`].
pub(super) unsafe fn install_where_default(signal: i32, handler: libc::sighandler_t) -> bool {
    match disposition(signal) {
        // SAFETY: by the contract above.
        Some(libc::SIG_DFL) => unsafe { install(signal, handler) },
        current => current == Some(handler),
    }
}

/// Runs `start` with signals blocked; threads that are started in it inherit that.
///
/// A signal for the whole process goes to any thread that does not block it. A program that blocks SIGTERM
/// in `main` and waits for it in `sigwait` would be killed through a thread of ours. So ours take none but
/// the signals of captures and those of their own faults.
pub(crate) fn shielded<T>(start: impl FnOnce() -> T) -> T {
    /// Lifts the shield on every way out.
    struct Restore(u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            sys::set_blocked_signals(self.0);
        }
    }
    let bit = |signal: i32| 1_u64 << (signal - 1);
    let taken = [
        libc::SIGURG,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGSYS,
    ];
    let taken = taken.into_iter().map(bit).fold(0, |set, signal| set | signal);
    let before = sys::set_blocked_signals(u64::MAX);
    let _restore = Restore(before);
    // What the starting thread blocks itself stays blocked.
    sys::set_blocked_signals(!taken | before);
    start()
}

fn ours() -> libc::sighandler_t {
    on_signal as *const () as libc::sighandler_t
}

/// The handler that stands for `signal` now.
fn disposition(signal: i32) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks; `action` is written on success, and zeroes are valid before.
    unsafe {
        (libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0)
            .then(|| action.assume_init().sa_sigaction)
    }
}

/// Installs `handler` for a signal that had the default action a moment ago; returns whether it is installed now.
///
/// The program may have installed a handler of its own in that moment: the action that the kernel returns as the one
/// before tells, and is installed again.
///
/// # Safety
/// `handler` takes three arguments (`SA_SIGINFO`) and is async-signal-safe: it interrupts the program anywhere.
pub(super) unsafe fn install(signal: i32, handler: libc::sighandler_t) -> bool {
    /// Handlers that a program installs one after the other, within microseconds.
    const MOST: usize = 8;
    // SAFETY: all fields are plain numbers or sets, for which zeroes are valid.
    let ours = unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigfillset(&raw mut action.sa_mask);
        action
    };
    // SAFETY: by the contract above.
    let Some(mut theirs) = (unsafe { exchange(signal, &ours) }) else { return false };
    if [libc::SIG_DFL, handler].contains(&theirs.sa_sigaction) {
        return true;
    }
    for _ in 0..MOST {
        // SAFETY: an action that the program has installed.
        let replaced = unsafe { exchange(signal, &theirs) };
        match replaced {
            // Installed over ours since then: that one goes before the one that was there before ours.
            Some(newer) if newer.sa_sigaction != handler && newer.sa_sigaction != theirs.sa_sigaction => {
                theirs = newer
            }
            _ => break,
        }
    }
    false
}

/// Installs `action` and returns the one before.
///
/// # Safety
/// Its handler is one for this signal: of ours, see [`install`], or of the program's.
unsafe fn exchange(signal: i32, action: &libc::sigaction) -> Option<libc::sigaction> {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: by the contract above; `before` is written on success, and zeroes are valid before.
    unsafe { (libc::sigaction(signal, action, before.as_mut_ptr()) == 0).then(|| before.assume_init()) }
}
