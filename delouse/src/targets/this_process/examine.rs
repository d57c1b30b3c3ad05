//! What `/proc` reports about a thread, without interrupting it.
//!
//! Rules: all functions except [`thread`], [`list`] and [`count_active`] run in the window in which threads are stopped
//! (`capture_session.rs`): **no allocation, no lock, no panic**.

use super::memory::OwnMemory;
use super::proc::{self, Call, Stat, mask_has};
use super::stop_order::StopGroup;
use super::sys;
use crate::snapshot::{Thread, Unavailable};
use crate::targets::SnapshotError;

/// The number in `/proc/…/syscall` of the system call that `sigwait` and similar functions make.
const SIGTIMEDWAIT: u64 = libc::SYS_rt_sigtimedwait as u64;

/// Checks by `/proc` whether the thread would run the handler of `signal`. Returns the thread's group in the stop order.
pub(super) fn check_signal(
    tid: i32,
    stat: Option<&Stat>,
    signal: i32,
    memory: &OwnMemory,
) -> Result<StopGroup, Unavailable> {
    let Some(stat) = stat else {
        let exists = sys::tgkill(sys::getpid(), tid, 0).is_ok();
        return Err(if exists { Unavailable::NoFiles } else { Unavailable::Exited });
    };
    match stat.state {
        b'Z' | b'X' => return Err(Unavailable::Exited),
        b'T' | b't' => return Err(Unavailable::Stopped),
        _ => {}
    }
    if stat.blocks(tid, signal) != Some(false) {
        return Err(Unavailable::SignalBlocked);
    }
    match proc::call_of(tid).filter(|_| stat.state == b'S') {
        // While a thread waits for a signal in sigtimedwait, `/proc` does not report that signal as blocked.
        Some(Call { number: SIGTIMEDWAIT, arguments: [set, ..] }) if set_contains(memory, set, signal) => {
            Err(Unavailable::SigWait)
        }
        call => Ok(StopGroup::classify(call, memory)),
    }
}

/// Whether the signal set at address `set`, on which a thread waits (sigtimedwait(2)), contains `signal`.
fn set_contains(memory: &OwnMemory, set: u64, signal: i32) -> bool {
    let mut mask = [0; 8];
    // If the set cannot be read, assume that it does: the thread must not process the capture's signal as its own.
    memory.read(set, &mut mask) < mask.len() || mask_has(u64::from_le_bytes(mask), signal)
}

/// Why a thread has not run its handler yet.
pub(super) fn silence_reason(pid: i32, tid: i32) -> Unavailable {
    if sys::tgkill(pid, tid, 0).is_err() {
        return Unavailable::Exited;
    }
    match Stat::read(tid).map(|stat| stat.state) {
        Some(b'Z' | b'X') => Unavailable::Exited,
        Some(b'T' | b't') => Unavailable::Stopped,
        Some(b'D') => Unavailable::Uninterruptible,
        Some(_) | None => Unavailable::NoAnswer,
    }
}

/// A thread without registers.
pub(super) fn thread(tid: i32, stat: Option<Stat>) -> Thread {
    let ticks = rustix::param::clock_ticks_per_second();
    Thread {
        name: stat.map(|stat| stat.name()).unwrap_or_default(),
        state: stat.map(|stat| char::from(stat.state)),
        cpu: stat.map(|stat| stat.cpu(ticks)),
        queued: stat.and_then(|_| proc::queued(tid)),
        ..Thread::new(tid)
    }
}

/// The number of active threads, which a capture that holds all threads delays. The others sleep.
///
/// Reads a file of `/proc` for each thread, and memory for some.
pub(super) fn count_active() -> Result<usize, SnapshotError> {
    let (mut count, memory) = (0_usize, OwnMemory::open()?);
    proc::for_each_thread(&mut vec![0; 32 << 10], |tid| {
        let is_other = StopGroup::classify(proc::call_of(tid), &memory) == StopGroup::Active;
        count = count.saturating_add(usize::from(is_other));
    })
    .map_err(|errno| SnapshotError::Proc("/proc/self/task", errno))?;
    Ok(count)
}

/// Names and states of all threads, ordered by id.
pub(super) fn list() -> Result<Vec<Thread>, SnapshotError> {
    let mut threads = Vec::new();
    let mut listing = vec![0; 32 << 10];
    proc::for_each_thread(&mut listing, |tid| {
        threads.push(thread(tid, Stat::read(tid)));
    })
    .map_err(|errno| SnapshotError::Proc("/proc/self/task", errno))?;
    threads.sort_by_key(|thread| thread.tid);
    Ok(threads)
}
