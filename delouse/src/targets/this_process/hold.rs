//! The threads of a capture, and whether they are held until all are captured.
//!
//! Functions that are called while threads are stopped obey the rules of the window (`capture_session.rs`).

use super::memory::OwnMemory;
use super::proc::{self, Stat};
use super::slots::Slot;
use super::stacks::{self, ThreadLayout};
use super::stop_order::StopGroup;
use super::sys;
use crate::snapshot::Unavailable;

/// One thread of a capture.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) tid: i32,
    pub(super) stat: Option<Stat>,
    /// Time of the first of consecutive probes that found the thread in uninterruptible sleep; 0 if the last did not.
    pub(super) uninterruptible_since: u64,
    pub(super) group: StopGroup,
    /// `Err`: not signalled, or given up.
    pub(super) slot: Result<&'static Slot, Unavailable>,
}

impl Entry {
    /// Classifies a sleeper again: a thread classified as sleeping may be running by now and may hold a lock that others
    /// need.
    pub(super) fn reclassify(&mut self, memory: &OwnMemory) {
        if let (Ok(slot), StopGroup::Sleeper) = (self.slot, self.group) {
            self.group = StopGroup::classify(proc::call_of(self.tid), memory);
            slot.set_group(self.group);
        }
    }

    /// Sends the signal, if the thread has a slot.
    pub(super) fn send_signal(&mut self, pid: i32, signal: i32, generation: u32) {
        let Ok(slot) = self.slot else { return };
        slot.announce(generation);
        if let Err(errno) = sys::tgkill(pid, self.tid, signal)
            && slot.revoke(generation)
        {
            // EAGAIN: too many real-time signals are pending (RLIMIT_SIGPENDING).
            self.slot = Err(if errno == libc::ESRCH { Unavailable::Exited } else { Unavailable::NoAnswer });
        }
    }
}

/// Whether threads are held.
pub(super) enum Hold<'a> {
    /// Each thread resumes as soon as it is captured.
    Separately,
    /// All threads are held. When the last is captured, this function is called; when it returns, threads resume. It
    /// must not allocate, and captures the calling thread by [`CapturingThread::capture`].
    Together(&'a mut dyn FnMut(Held<'_>)),
}

/// All threads, while they are held.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) capturing_thread: CapturingThread,
    pub(super) known: &'a [Entry],
    pub(super) generation: u32,
    pub(super) layout: ThreadLayout,
}

impl Held<'_> {
    /// Call this after a fork: see [`stacks::unshare`]. Only for active threads, because sleepers will not run soon.
    pub(super) fn unshare_stacks(self) {
        let awake = self.known.iter().filter(|entry| entry.group == StopGroup::Active);
        let slots = awake.filter_map(|entry| entry.slot.ok());
        // SAFETY: the next capture cannot begin while threads of this one are held.
        let contents = slots.filter_map(|slot| unsafe { slot.content(self.generation) });
        stacks::unshare(contents, self.layout);
    }
}

/// The capturing thread, which signals itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct CapturingThread {
    pub(super) pid: i32,
    pub(super) tid: i32,
    /// `None` if it cannot handle the signal.
    pub(super) signal: Option<i32>,
}

impl CapturingThread {
    /// For a fork without a capture.
    pub(super) const NOT_CAPTURED: Self = Self { pid: 0, tid: 0, signal: None };

    /// Captures the calling thread. Inlined, so that its registers are those of the calling function.
    #[inline(always)]
    pub(super) fn capture(self) {
        if let Some(signal) = self.signal {
            let _ = sys::tgkill(self.pid, self.tid, signal);
        }
    }
}
