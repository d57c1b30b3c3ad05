//! In which order threads are stopped, where all have to stand still, and go on.
//!
//! Most threads of a large program sleep: nobody misses them for a moment. They are stopped before those who run, and go on
//! after them, a few at a time: the program stands still for as long as the others do.
//!
//! Rules: it is asked in the window in which threads stand still (`round.rs`): **no allocation, no lock, no panic**.

use super::memory::OwnMemory;
use super::proc::Call;
use super::sys;

/// When a thread is stopped and goes on. The numbers are bits: see [`sys::futex_wake_among`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Turn {
    /// It runs, or serves events, or will soon wake up by itself. Stopped last, and the first to go on.
    Other = 1,
    /// It sleeps until somebody wakes it, or for long.
    Sleeper = 2,
}

/// A wait that ends within this time, in nanoseconds, may end while the thread is held.
const SOON: u64 = 100_000_000;
/// Of a wait of which only the whole length is known.
const SOON_OF_ALL: u64 = 1_000_000_000;

/// Calls in which a thread waits for whatever happens to many files: it has work for others. And the one of which nobody
/// knows what it goes on with.
const SERVES: &[libc::c_long] = &[
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_io_uring_enter,
    libc::SYS_restart_syscall,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
];

impl Turn {
    /// That of a thread that sleeps in `call`, or runs.
    pub(super) fn of(call: Option<Call>, memory: &OwnMemory) -> Self {
        let Some(Call { number, arguments }) = call else { return Self::Other };
        let is = |known: libc::c_long| u64::try_from(known) == Ok(number);
        let soon = if is(libc::SYS_futex) {
            futex_ends_soon(arguments, memory)
        } else if is(libc::SYS_nanosleep) {
            let [length, ..] = arguments;
            within(memory, length, SOON_OF_ALL)
        } else if is(libc::SYS_clock_nanosleep) {
            sleep_ends_soon(arguments, memory)
        } else {
            SERVES.iter().any(|known| is(*known))
        };
        if soon { Self::Other } else { Self::Sleeper }
    }
}

/// futex(2): whose limit is a length in `FUTEX_WAIT`, and a moment in `FUTEX_WAIT_BITSET`.
fn futex_ends_soon([_, operation, _, limit]: [u64; 4], memory: &OwnMemory) -> bool {
    let operation = operation as i32 & !libc::FUTEX_PRIVATE_FLAG;
    match operation {
        _ if limit == 0 => false,
        libc::FUTEX_WAIT => within(memory, limit, SOON_OF_ALL),
        libc::FUTEX_WAIT_BITSET => within(memory, limit, sys::now().saturating_add(SOON)),
        // By another clock, or something else than a wait.
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

/// Whether the `timespec` at `place` is `most` nanoseconds at most, or cannot be read.
fn within(memory: &OwnMemory, place: u64, most: u64) -> bool {
    let mut bytes = [0; 16];
    if memory.read(place, &mut bytes) < bytes.len() {
        return true;
    }
    let ([seconds, nanoseconds], _) = bytes.as_chunks::<8>() else { return true };
    let [seconds, nanoseconds] = [*seconds, *nanoseconds].map(u64::from_ne_bytes);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds) <= most
}
