//! What can be known of a thread without asking it.
//!
//! Rules: but for [`thread`], [`list`] and [`count_of_others`], all of this runs in the window in which threads stand still
//! (`engine.rs`): **no allocation, no lock, no panic**.

use super::arch::RT_SIGTIMEDWAIT;
use super::memory::OwnMemory;
use super::proc::{self, Call, Stat, mask_has};
use super::sys;
use super::turn::Turn;
use crate::snapshot::{SnapshotError, Thread, Unavailable};

/// Whether a signal would reach the thread's handler, as far as `/proc` tells, and what it would be taken from.
pub(super) fn can_be_asked(
    tid: i32,
    stat: Option<&Stat>,
    signal: i32,
    memory: &OwnMemory,
) -> Result<Turn, Unavailable> {
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
        // While it waits, the signals that it waits for are not blocked.
        Some(Call { number: RT_SIGTIMEDWAIT, arguments: [set, ..] }) if set_has(memory, set, signal) => {
            Err(Unavailable::SigWait)
        }
        call => Ok(Turn::of(call, memory)),
    }
}

/// Whether the signal set at `set`, which a thread waits for (sigtimedwait(2)), has `signal` in it.
fn set_has(memory: &OwnMemory, set: u64, signal: i32) -> bool {
    let mut mask = [0; 8];
    // It cannot be read: better one stack less than a signal that somebody takes for his own.
    memory.read(set, &mut mask) < mask.len() || mask_has(u64::from_le_bytes(mask), signal)
}

/// Why a thread has not answered yet.
pub(super) fn why_silent(pid: i32, tid: i32) -> Unavailable {
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

/// A thread as `/proc` tells of it.
pub(super) fn thread(tid: i32, stat: Option<Stat>) -> Thread {
    // SAFETY: only asks.
    let ticks = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100);
    Thread {
        tid,
        name: stat.map(|stat| stat.name()).unwrap_or_default(),
        state: stat.map(|stat| char::from(stat.state)),
        cpu: stat.map(|stat| stat.cpu(ticks)),
        registers: Err(Unavailable::NotCaptured),
        kernel: None,
        stack: None,
        alternate_stack: None,
    }
}

/// How many threads a capture that holds all keeps from going on. The others sleep.
///
/// Costs a read in `/proc` for each thread, and of memory for some.
pub(super) fn count_of_others() -> Result<usize, SnapshotError> {
    let (mut count, memory) = (0_usize, OwnMemory::open()?);
    proc::for_each_thread(&mut vec![0; 32 << 10], |tid| {
        let is_other = Turn::of(proc::call_of(tid), &memory) == Turn::Other;
        count = count.saturating_add(usize::from(is_other));
    })
    .map_err(|errno| SnapshotError::Proc("/proc/self/task", errno))?;
    Ok(count)
}

/// Names and states of all threads, without asking any of them.
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
