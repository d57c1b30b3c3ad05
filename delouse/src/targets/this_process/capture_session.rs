//! One capture in progress: sends the signal to each thread, waits for the handlers, and records why a thread was not
//! captured.
//!
//! Rules of the window (in a capture that holds threads: from the first signal until the gate is opened): any thread may be
//! stopped inside malloc, the loader or a logger. The capturing thread must therefore not wait for their locks: **no
//! allocation, no lock, no logging, no panic**. The capacity of vectors is reserved before the window.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::captured::Pause;
use super::examine::{check_signal, silence_reason};
use super::hold::{CapturingThread, Entry, Held, Hold};
use super::memory::OwnMemory;
use super::proc::{self, Stat};
use super::slots::{SlotState, Table};
use super::stacks::ThreadLayout;
use super::stop_order::StopGroup;
use super::sys;
use crate::snapshot::Unavailable;
use crate::targets::SnapshotError;

// All times are in nanoseconds.

/// How long a capture that does not hold threads waits for their handlers.
const ROLLING_DEADLINE: u64 = 1_000_000_000;
/// How long a capture that holds all threads waits for the last of them.
const FREEZE_DEADLINE: u64 = 300_000_000;
/// A thread that every probe finds in uninterruptible sleep for this long is given up. Page faults and waits for the memory
/// map end earlier, though on busy processors they may take more than 10 ms. A `vfork` or an unreachable network file
/// system may take for ever.
const ROLLING_PATIENCE: u64 = 100_000_000;
/// The same in a capture that holds all threads.
const FREEZE_PATIENCE: u64 = 30_000_000;
/// How often threads whose handler has not run are probed: a thread that exits never handles the signal.
const PROBE_INTERVAL: u64 = 500_000;
/// How long to wait until the last handler has returned.
const LEAVE_DEADLINE: u64 = 200_000_000;
/// Number of threads that are signalled or resumed together. Larger waves would occupy all processors for too long.
const WAVE: usize = 16;
/// How long to wait for a wave before the next one is signalled. Late handlers may still complete.
const WAVE_PATIENCE: u64 = 1_000_000;
/// How long stopping the sleeping threads may take. Afterwards the rest is signalled at once.
const SLEEPERS_DEADLINE: u64 = 300_000_000;
/// The most passes over the list of threads: a program that starts threads constantly always has new ones.
const MOST_SCANS: usize = 16;
/// How long to wait before a thread that blocked the signal is tried again.
const RETRY_INTERVAL: u64 = 100_000;

/// One capture in progress.
pub(super) struct CaptureSession<'e> {
    pub(super) table: &'static Table,
    pub(super) generation: u32,
    pub(super) signal: i32,
    pub(super) pid: i32,
    /// The capturing thread.
    pub(super) tid: i32,
    pub(super) memory: &'e OwnMemory,
    pub(super) known: &'e mut Vec<Entry>,
    pub(super) layout: ThreadLayout,
    /// When the capture stops waiting for handlers.
    pub(super) deadline: u64,
    /// See [`ROLLING_PATIENCE`].
    pub(super) patience: u64,
    /// Whether the list of known threads is complete.
    pub(super) all_seen: bool,
}

/// Opens the gate when dropped, so that threads are resumed on every path.
struct Gate(&'static Table);

impl Gate {
    /// Resumes the active threads, and then the sleepers in waves. Returns the time at which it begins.
    fn open(self) -> u64 {
        let opened = sys::now();
        self.0.gate.store(0, Ordering::Release);
        self.resume(i32::MAX as u32, StopGroup::Active);
        while self.resume(WAVE as u32, StopGroup::Sleeper) > 0 {}
        opened
    }

    /// Wakes at most `most` threads, and waits until their handlers have returned or [`WAVE_PATIENCE`] is over. Returns the
    /// number of threads woken.
    fn resume(&self, most: u32, group: StopGroup) -> u32 {
        let Self(table) = self;
        let before = table.left.load(Ordering::Acquire);
        let woken = sys::futex_wake_among(&table.gate, most, group as u32);
        let deadline = sys::now().wrapping_add(WAVE_PATIENCE);
        loop {
            let left = table.left.load(Ordering::Acquire);
            if left.wrapping_sub(before) >= woken || sys::now() >= deadline {
                return woken;
            }
            // Polls, because returning handlers do not spend a system call on waking this thread.
            sys::futex_wait(&table.left, left, 50_000);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.gate.store(0, Ordering::Release);
        sys::futex_wake_among(&self.0.gate, i32::MAX as u32, u32::MAX);
    }
}

impl CaptureSession<'_> {
    /// Adds threads that are not known yet, with their state from `/proc`. Returns whether another pass is needed: some
    /// threads were new, or the listing was incomplete.
    pub(super) fn add_new_threads(&mut self, listing: &mut [u8]) -> Result<bool, SnapshotError> {
        let before = self.known.len();
        let Self { table, signal, memory, known, .. } = self;
        let result = proc::for_each_thread(listing, |tid| {
            // Pushing beyond the capacity would allocate.
            if known.len() == known.capacity() || table.find(tid).is_some() {
                return;
            }
            let stat = Stat::read(tid);
            let room = known.len() < table.capacity();
            let asked =
                room.then(|| table.insert(tid)).flatten().ok_or(Unavailable::NoSlot).and_then(|slot| {
                    let group = check_signal(tid, stat.as_ref(), *signal, memory)?;
                    slot.prepare(group);
                    Ok((slot, group))
                });
            let group = asked.map_or(StopGroup::Active, |(_, group)| group);
            let slot = asked.map(|(slot, _)| slot);
            known.push(Entry { tid, stat, uninterruptible_since: 0, group, slot });
        });
        let all = result.map_err(|errno| SnapshotError::Proc("/proc/self/task", errno))?;
        Ok(self.known.len() > before || !all)
    }

    /// Captures all threads. This is the window.
    pub(super) fn run(&mut self, hold: Hold<'_>, listing: &mut [u8]) -> Pause {
        let holds = matches!(hold, Hold::Together(_));
        let begun = sys::now();
        let gate = Gate(self.table);
        if holds {
            self.table.gate.store(self.generation, Ordering::Release);
            self.send_in_waves(Some(StopGroup::Sleeper), begun.wrapping_add(SLEEPERS_DEADLINE));
        } else {
            self.send_in_waves(None, u64::MAX);
        }
        let stopped = sys::now();
        let (longest, patience) =
            if holds { (FREEZE_DEADLINE, FREEZE_PATIENCE) } else { (ROLLING_DEADLINE, ROLLING_PATIENCE) };
        (self.deadline, self.patience) = (stopped.wrapping_add(longest), patience);
        if holds {
            self.send(0, Some(StopGroup::Active));
        }
        self.wait();
        self.all_seen = self.capture_new_threads(holds, listing);
        let capturing_thread = self.capturing_thread();
        match hold {
            Hold::Separately => capturing_thread.capture(),
            Hold::Together(while_held) => {
                while_held(Held {
                    capturing_thread,
                    known: self.known,
                    generation: self.generation,
                    layout: self.layout,
                });
            }
        }
        let opened = gate.open();
        // The handler of the capturing thread has returned. Revoke all slots that are still `Sent`.
        self.revoke_silent(true);
        self.wait_until_all_left();

        let (mut awake, mut all, mut longest) = (opened, opened, 0);
        for (group, entered, left) in self.times() {
            all = all.max(left);
            if group == StopGroup::Active {
                awake = awake.max(left);
            }
            longest = longest.max(left.saturating_sub(entered));
        }
        let (program, longest) = match holds {
            true => (awake.saturating_sub(stopped), all.saturating_sub(begun)),
            false => (longest, longest),
        };
        Pause { program: Duration::from_nanos(program), longest: Duration::from_nanos(longest) }
    }

    /// Captures threads that were started meanwhile, and threads that blocked the signal before, until none are left.
    /// Returns whether the list of threads is complete.
    fn capture_new_threads(&mut self, holds: bool, listing: &mut [u8]) -> bool {
        let mut more = true;
        for _ in 0..MOST_SCANS {
            if holds && self.are_all_held() {
                return true;
            }
            let first_new = self.known.len();
            more = match self.add_new_threads(listing) {
                Ok(more) => more,
                Err(_) => return false,
            };
            self.send(first_new, None);
            let blocked = self.retry_blocked();
            self.wait();
            if blocked {
                // Give these threads time to unblock the signal.
                sys::futex_wait(&self.table.gate, self.table.gate.load(Ordering::Relaxed), RETRY_INTERVAL);
            } else if !more {
                break;
            }
        }
        !more || (holds && self.are_all_held())
    }

    /// Whether all threads of the process are stopped: as many as exist now. Cheaper than another pass over the list
    /// while all threads wait.
    fn are_all_held(&self) -> bool {
        let others = self.known.iter().filter(|entry| entry.tid != self.tid);
        let held =
            others.filter(|entry| entry.slot.is_ok_and(|slot| slot.is(self.generation, SlotState::Done)));
        let held = held.count().wrapping_add(1);
        held == self.known.len() && proc::thread_count() == Ok(held as u64)
    }

    /// The group of each captured thread, and when its handler was entered and left.
    pub(super) fn times(&self) -> impl Iterator<Item = (StopGroup, u64, u64)> {
        let slots = self.known.iter().filter_map(|entry| Some((entry.group, entry.slot.ok()?)));
        slots
            .map(|(group, slot)| {
                (group, slot.entered.load(Ordering::Relaxed), slot.left.load(Ordering::Acquire))
            })
            .filter(|&(.., left)| left != 0)
    }

    /// Sends the signal to the threads from index `first` that are in `group` (all, if `None`), except the capturing thread.
    fn send(&mut self, first: usize, group: Option<StopGroup>) {
        for entry in self.known.iter_mut().skip(first) {
            if entry.tid != self.tid && group.is_none_or(|group| entry.group == group) {
                entry.send_signal(self.pid, self.signal, self.generation);
            }
        }
    }

    /// The same for all known threads, in waves; after `deadline`, the rest at once.
    fn send_in_waves(&mut self, group: Option<StopGroup>, deadline: u64) {
        let mut first = 0;
        while first < self.known.len() {
            let (mut end, mut asked) = (first, 0);
            let is_late = sys::now() >= deadline;
            while let Some(entry) = self.known.get_mut(end)
                && (is_late || asked < WAVE)
            {
                end = end.wrapping_add(1);
                if group == Some(StopGroup::Sleeper) {
                    entry.reclassify(self.memory);
                }
                if entry.tid != self.tid && group.is_none_or(|group| entry.group == group) {
                    entry.send_signal(self.pid, self.signal, self.generation);
                    asked = asked.wrapping_add(1);
                }
            }
            self.wait_for_wave(first..end, group);
            first = end;
        }
    }

    /// Waits until the signalled threads of a wave have published, or [`WAVE_PATIENCE`] is over.
    fn wait_for_wave(&self, wave: Range<usize>, group: Option<StopGroup>) {
        let deadline = sys::now().wrapping_add(WAVE_PATIENCE);
        loop {
            let wave = self.known.get(wave.clone()).unwrap_or_default().iter();
            let seen = self.table.arrived.load(Ordering::Acquire);
            let missing =
                self.count_missing(wave.filter(|entry| group.is_none_or(|group| entry.group == group)));
            let now = sys::now();
            if missing == 0 || now >= deadline {
                return;
            }
            self.table.target.store(seen.wrapping_add(missing), Ordering::Release);
            sys::futex_wait(&self.table.arrived, seen, deadline.wrapping_sub(now));
        }
    }

    /// Signals running threads that blocked the signal before. libc blocks all signals briefly while a thread starts or
    /// exits, and while it starts another one. Returns whether some threads still block it.
    fn retry_blocked(&mut self) -> bool {
        let mut blocked = false;
        for entry in self.known.iter_mut().filter(|entry| entry.tid != self.tid) {
            let briefly = entry.stat.is_some_and(|stat| matches!(stat.state, b'R' | b'D'));
            if entry.slot.err() != Some(Unavailable::SignalBlocked) || !briefly {
                continue;
            }
            entry.stat = Stat::read(entry.tid).or(entry.stat);
            let Some(slot) = self.table.find(entry.tid) else { continue };
            match check_signal(entry.tid, entry.stat.as_ref(), self.signal, self.memory) {
                _ if sys::tgkill(self.pid, entry.tid, 0).is_err() => entry.slot = Err(Unavailable::Exited),
                Ok(group) => {
                    slot.prepare(group);
                    (entry.slot, entry.group) = (Ok(slot), group);
                    entry.send_signal(self.pid, self.signal, self.generation);
                }
                Err(reason) => {
                    blocked |= reason == Unavailable::SignalBlocked;
                    entry.slot = Err(reason);
                }
            }
        }
        blocked
    }

    /// Prepares the slot of the capturing thread, which is captured last.
    fn capturing_thread(&self) -> CapturingThread {
        let slot = self.known.iter().find(|entry| entry.tid == self.tid).and_then(|entry| entry.slot.ok());
        if let Some(slot) = slot {
            slot.announce(self.generation);
        }
        CapturingThread { pid: self.pid, tid: self.tid, signal: slot.map(|_| self.signal) }
    }

    /// Waits until each signalled thread has published, has exited, or is given up.
    fn wait(&mut self) {
        let mut next_probe = sys::now().wrapping_add(PROBE_INTERVAL);
        loop {
            let seen = self.table.arrived.load(Ordering::Acquire);
            let missing = self.count_missing(self.known.iter());
            if missing == 0 {
                return;
            }
            self.table.target.store(seen.wrapping_add(missing), Ordering::Release);
            let now = sys::now();
            if now >= self.deadline {
                self.revoke_silent(true);
                return;
            }
            if now >= next_probe {
                next_probe = now.wrapping_add(PROBE_INTERVAL);
                self.revoke_silent(false);
            } else {
                sys::futex_wait(&self.table.arrived, seen, PROBE_INTERVAL);
            }
        }
    }

    /// How many of `entries`, without the capturing thread, were signalled and have not published.
    fn count_missing<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> u32 {
        let missing = entries
            .filter(|entry| entry.tid != self.tid)
            .filter(|entry| entry.slot.is_ok_and(|slot| !slot.is(self.generation, SlotState::Done)))
            .count();
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    /// Revokes the slots of threads whose handler will not run, or of `all` threads whose handler has not run yet.
    fn revoke_silent(&mut self, all: bool) {
        let now = sys::now();
        for entry in self.known.iter_mut() {
            let Ok(slot) = entry.slot else { continue };
            if !slot.is(self.generation, SlotState::Sent) || (entry.tid == self.tid && !all) {
                continue;
            }
            let reason = silence_reason(self.pid, entry.tid);
            let hopeless = match reason {
                Unavailable::Exited | Unavailable::Stopped => true,
                Unavailable::Uninterruptible => {
                    if entry.uninterruptible_since == 0 {
                        entry.uninterruptible_since = now;
                    }
                    now.saturating_sub(entry.uninterruptible_since) >= self.patience
                }
                _ => {
                    entry.uninterruptible_since = 0;
                    false
                }
            };
            if (all || hopeless) && slot.revoke(self.generation) {
                entry.slot = Err(reason);
            }
        }
    }

    fn wait_until_all_left(&self) {
        let deadline = sys::now().wrapping_add(LEAVE_DEADLINE);
        while self.has_unfinished_handlers() && sys::now() < deadline {
            // Polls, because returning handlers do not spend a system call on waking this thread.
            sys::futex_wait(&self.table.left, self.table.left.load(Ordering::Acquire), 50_000);
        }
    }

    /// Whether some handler of this capture has not returned.
    pub(super) fn has_unfinished_handlers(&self) -> bool {
        let claimed = self.known.iter().filter(|entry| entry.slot.is_ok()).count();
        (self.table.left.load(Ordering::Acquire) as usize) < claimed
    }
}
