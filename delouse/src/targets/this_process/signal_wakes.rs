//! Wakes the thread that waits for signals: from handlers, which only make raw system calls, and from other threads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::sys;

/// Futex: incremented by each wake.
static WAKES: AtomicU32 = AtomicU32::new(0);

/// The wakes of this process.
pub(crate) struct SignalWakes;

impl SignalWakes {
    /// How many there were so far.
    pub(crate) fn count() -> u32 {
        WAKES.load(Ordering::Acquire)
    }

    /// Wakes all that wait. Async-signal-safe.
    pub(crate) fn wake() {
        WAKES.fetch_add(1, Ordering::AcqRel);
        sys::futex_wake(&WAKES);
    }

    /// Waits until the count differs from `seen`, for `time` at most; returns it.
    pub(crate) fn wait(seen: u32, time: Duration) -> u32 {
        const LONG: u64 = 3_600_000_000_000;
        if Self::count() == seen {
            sys::futex_wait(&WAKES, seen, u64::try_from(time.as_nanos()).unwrap_or(LONG).min(LONG));
        }
        Self::count()
    }
}
