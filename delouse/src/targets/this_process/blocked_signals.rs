//! Blocks signals in delouse's own threads.

use super::sys;

/// Runs `start` with signals blocked; threads that it starts inherit this.
///
/// The kernel delivers a signal for the process to any thread that does not block it. A program that blocks SIGTERM in
/// `main` and waits for it in `sigwait` would be killed if a thread of delouse did not block it. delouse's threads therefore
/// block all signals except that of captures and those of their own faults.
pub(crate) fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    /// Unblocks the signals on every path.
    struct Restore(u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            sys::set_blocked_signals(self.0);
        }
    }
    let bit = |signal: i32| 1_u64 << (signal - 1);
    let not_blocked = [
        libc::SIGURG,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGSYS,
    ];
    let not_blocked = not_blocked.into_iter().map(bit).fold(0, |set, signal| set | signal);
    let before = sys::set_blocked_signals(u64::MAX);
    let _restore = Restore(before);
    // Signals that the calling thread blocks stay blocked.
    sys::set_blocked_signals(!not_blocked | before);
    start()
}
