//! Chooses the signal for captures, and installs its handler.

use std::mem::MaybeUninit;

use super::handler::on_signal;
use crate::targets::SnapshotError;

/// Returns the signal to use: `current` while delouse's handler is installed for it, or else the first free one.
///
/// SIGURG is preferred: programs rarely handle it, and its default action is to be ignored, so that a late signal does no
/// harm. Then real-time signals, from the highest. If the program replaces the handler, the signal is not sent again.
pub(super) fn ready(current: Option<i32>) -> Result<i32, SnapshotError> {
    if let Some(signal) = current.filter(|&signal| disposition(signal) == Some(ours())) {
        return Ok(signal);
    }
    let real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev();
    std::iter::once(libc::SIGURG)
        .chain(real_time)
        // A signal that was used before may have delouse's handler already.
        .find(|&signal| match disposition(signal) {
            // SAFETY: the handler obeys the rules of `handler.rs`.
            Some(libc::SIG_DFL) => unsafe { install(signal, ours()) },
            handler => handler == Some(ours()),
        })
        .ok_or(SnapshotError::NoSignal)
}

/// Installs `handler` if the signal has its default action. Returns whether it is installed now.
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

fn ours() -> libc::sighandler_t {
    on_signal as *const () as libc::sighandler_t
}

/// The handler that is installed for `signal`.
fn disposition(signal: i32) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: changes nothing; `action` is written on success, and zeroes are valid.
    unsafe {
        (libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0)
            .then(|| action.assume_init().sa_sigaction)
    }
}

/// Installs `handler` for a signal that had its default action when it was checked. Returns whether it is installed now.
///
/// The program may have installed a handler of its own since the check. In this case the kernel returns the program's action
/// as the previous one, and this function restores it.
///
/// # Safety
/// `handler` takes three arguments (`SA_SIGINFO`) and is async-signal-safe: it may interrupt the program at any point.
pub(super) unsafe fn install(signal: i32, handler: libc::sighandler_t) -> bool {
    /// The most handlers that a program may install during this call.
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
        // SAFETY: the program has installed this action.
        let replaced = unsafe { exchange(signal, &theirs) };
        match replaced {
            // The program has installed another handler meanwhile: restore the newer one.
            Some(newer) if newer.sa_sigaction != handler && newer.sa_sigaction != theirs.sa_sigaction => {
                theirs = newer
            }
            _ => break,
        }
    }
    false
}

/// Installs `action` and returns the previous action.
///
/// # Safety
/// `action` has a handler that satisfies [`install`], or has been installed for this signal by the program.
unsafe fn exchange(signal: i32, action: &libc::sigaction) -> Option<libc::sigaction> {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: by the contract above; `before` is written on success, and zeroes are valid.
    unsafe { (libc::sigaction(signal, action, before.as_mut_ptr()) == 0).then(|| before.assume_init()) }
}
