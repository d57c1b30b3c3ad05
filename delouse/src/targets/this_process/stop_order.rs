//! The order in which a capture that holds all threads stops and resumes them.
//!
//! Most threads of a large program sleep, and are not delayed by a short stop. They are stopped before the active threads
//! and resumed after them, in waves, so that active threads are stopped for a shorter time.
//!
//! Rules: this runs in the window in which threads are stopped (`capture_session.rs`): **no allocation, no lock, no panic**.

use super::arch::OLD_EVENT_CALLS;
use super::memory::OwnMemory;
use super::proc::Call;
use super::sys;

/// Determines when a thread is stopped and resumed. The numbers are bits: see [`sys::futex_wake_among`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum StopGroup {
    /// It runs, waits for events, or will soon wake up by itself. Stopped last, and resumed first.
    Active = 1,
    /// It sleeps until another thread wakes it, or for a long time.
    Sleeper = 2,
}

/// A wait whose deadline is within this time, in nanoseconds, may end while the thread is held.
const SOON: u64 = 100_000_000;
/// The same for a wait whose start is not known, for its whole duration.
const SOON_OF_ALL: u64 = 1_000_000_000;

/// Calls in which a thread waits for events of several files, whose events other threads need. Also `restart_syscall`, which
/// may continue any call.
const SERVES: &[libc::c_long] = &[
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_io_uring_enter,
    libc::SYS_restart_syscall,
];

impl StopGroup {
    /// Classifies a thread that sleeps in `call`, or runs if that is `None`.
    pub(super) fn classify(call: Option<Call>, memory: &OwnMemory) -> Self {
        let Some(Call { number, arguments }) = call else { return Self::Active };
        let is = |known: libc::c_long| u64::try_from(known) == Ok(number);
        let soon = if is(libc::SYS_futex) {
            futex_ends_soon(arguments, memory)
        } else if is(libc::SYS_nanosleep) {
            let [length, ..] = arguments;
            within(memory, length, SOON_OF_ALL)
        } else if is(libc::SYS_clock_nanosleep) {
            sleep_ends_soon(arguments, memory)
        } else {
            SERVES.iter().chain(OLD_EVENT_CALLS).any(|known| is(*known))
        };
        if soon { Self::Active } else { Self::Sleeper }
    }
}

/// futex(2). The timeout is a duration in `FUTEX_WAIT`, and a time in `FUTEX_WAIT_BITSET`.
fn futex_ends_soon([_, operation, _, limit]: [u64; 4], memory: &OwnMemory) -> bool {
    let operation = operation as i32 & !libc::FUTEX_PRIVATE_FLAG;
    match operation {
        _ if limit == 0 => false,
        libc::FUTEX_WAIT => within(memory, limit, SOON_OF_ALL),
        libc::FUTEX_WAIT_BITSET => within(memory, limit, sys::now().saturating_add(SOON)),
        // Another clock, or another operation.
        _ => true,
    }
}

/// clock_nanosleep(2)
fn sleep_ends_soon([clock, flags, limit, _]: [u64; 4], memory: &OwnMemory) -> bool {
    match (flags as i32, clock as i32) {
        (0, _) => within(memory, limit, SOON_OF_ALL),
        (libc::TIMER_ABSTIME, libc::CLOCK_MONOTONIC) => {
            within(memory, limit, sys::now().saturating_add(SOON))
        }
        _ => true,
    }
}

/// Whether the `timespec` at address `place` is at most `most` nanoseconds, or cannot be read.
fn within(memory: &OwnMemory, place: u64, most: u64) -> bool {
    let mut bytes = [0; 16];
    if memory.read(place, &mut bytes) < bytes.len() {
        return true;
    }
    let ([seconds, nanoseconds], _) = bytes.as_chunks::<8>() else { return true };
    let [seconds, nanoseconds] = [*seconds, *nanoseconds].map(u64::from_ne_bytes);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds) <= most
}
