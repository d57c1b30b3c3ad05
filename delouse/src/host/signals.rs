//! Signals that a thread waits for instead of handling them.

use std::io;
use std::time::Duration;

/// Signals that are blocked, so that [`wait`](Self::wait) receives them.
pub(crate) struct AwaitedSignals(libc::sigset_t);

/// A signal that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) signal: i32,
    /// Whether a process sent it to this process only. The terminal sends signals to all processes of a group.
    pub(crate) is_addressed: bool,
}

impl AwaitedSignals {
    /// Blocks `signals` in this thread, and in those threads and programs that it starts later.
    ///
    /// # Errors
    /// If one of them is no signal.
    pub(crate) fn block(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: `sigset_t` is plain data, which `sigemptyset` initialises.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is a valid set.
        unsafe { libc::sigemptyset(&raw mut set) };
        for signal in signals {
            // SAFETY: `set` is a valid set; the call fails for a number that is no signal.
            if unsafe { libc::sigaddset(&raw mut set, *signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: `set` is a valid set; the old one is not wanted.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
            0 => Ok(Self(set)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Waits for one of them; `None` if there was none for `time`.
    pub(crate) fn wait(&self, time: Duration) -> Option<Received> {
        let time = libc::timespec {
            // The type differs between systems, and libc deprecates its name for musl.
            tv_sec: time.as_secs().try_into().unwrap_or(i32::MAX.into()),
            tv_nsec: time.subsec_nanos().into(),
        };
        // SAFETY: `siginfo_t` is plain data.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: all three are valid for the call.
        let signal = unsafe { libc::sigtimedwait(&raw const self.0, &raw mut info, &raw const time) };
        (signal > 0).then_some(Received { signal, is_addressed: info.si_code <= 0 })
    }
}

/// Has the kernel discard a signal where it is not blocked. Programs that this process executes inherit that.
pub(crate) fn ignore(signal: i32) {
    // SAFETY: SIG_IGN runs no code of this process.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Undoes [`ignore`].
pub(crate) fn restore(signal: i32) {
    // SAFETY: SIG_DFL runs no code of this process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}
