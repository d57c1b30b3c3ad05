//! One capture in progress: who is asked, who is waited for, who is given up, and why.
//!
//! Rules of the window (from the first signal to the open gate, in a capture that holds threads): any
//! thread may stand still inside malloc, the loader, a logger. So on our own thread, too: **no
//! allocation, no lock, no logging, no panic**. Vectors that grow there were given their room before.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::captured::Pause;
use super::engine::{Held, Hold, Myself};
use super::examine::{can_be_asked, why_silent};
use super::memory::OwnMemory;
use super::proc::{self, Stat};
use super::slots::{Slot, State, Table};
use super::stacks::Places;
use super::sys;
use super::turn::Turn;
use crate::snapshot::{SnapshotError, Unavailable};

/// How long a capture waits for threads that nobody holds.
const ROLLING_DEADLINE: u64 = 1_000_000_000;
/// How long the whole program may stand still for one thread that does not come.
const FREEZE_DEADLINE: u64 = 300_000_000;
/// How long a thread may be in uninterruptible sleep, at every look, until it is given up. Page faults and
/// waits for the memory map pass, a `vfork` and a dead network file system do not. On busy processors
/// they have been seen to take more than 10 ms.
const ROLLING_PATIENCE: u64 = 100_000_000;
/// The same while the whole program stands still.
const FREEZE_PATIENCE: u64 = 30_000_000;
/// How often silent threads are probed: those that exit never answer.
const PROBE_INTERVAL: u64 = 500_000;
/// How long to wait until the last handler has left.
const LEAVE_DEADLINE: u64 = 200_000_000;
/// So many threads are asked, or go on, at a time: more at once would keep the program from its processors for too long.
const WAVE: usize = 16;
/// How long to wait for a wave, in nanoseconds: who has not come by then may take his time, and the next are asked.
const WAVE_PATIENCE: u64 = 1_000_000;
/// How long it may take until all who sleep are stopped: then the others are, too, whoever is missing.
const SLEEPERS_DEADLINE: u64 = 300_000_000;
/// Passes over the thread list: under heavy churn there is always someone new.
const MOST_SCANS: usize = 16;
/// How long those are left alone who blocked the signal while they ran.
const RETRY_INTERVAL: u64 = 100_000;

/// One thread while it is captured.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) tid: i32,
    pub(super) stat: Option<Stat>,
    /// When the first of the looks that found it in uninterruptible sleep was; 0: it was not, last time.
    uninterruptible_since: u64,
    pub(super) turn: Turn,
    /// `Err`: not asked, or given up.
    pub(super) slot: Result<&'static Slot, Unavailable>,
}

impl Entry {
    /// Who slept when he was examined may run by now, and have what others need.
    fn look_again(&mut self, memory: &OwnMemory) {
        if let (Ok(slot), Turn::Sleeper) = (self.slot, self.turn) {
            self.turn = Turn::of(proc::call_of(self.tid), memory);
            slot.set_turn(self.turn);
        }
    }

    /// Sends the signal, if there is a slot for the answer.
    fn ask(&mut self, pid: i32, signal: i32, generation: u32) {
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

/// One capture in progress.
pub(super) struct Round<'e> {
    pub(super) table: &'static Table,
    pub(super) generation: u32,
    pub(super) signal: i32,
    pub(super) pid: i32,
    /// The capturing thread.
    pub(super) tid: i32,
    pub(super) memory: &'e OwnMemory,
    pub(super) known: &'e mut Vec<Entry>,
    pub(super) places: Places,
    /// After that nobody is waited for any more.
    pub(super) deadline: u64,
    /// See [`ROLLING_PATIENCE`].
    pub(super) patience: u64,
    /// Whether there is no thread that the capture does not know.
    pub(super) all_seen: bool,
}

/// Opens the gate on every path.
struct Gate(&'static Table);

impl Gate {
    /// Lets those go on who may have something to do, and then the sleepers, a few at a time. Gives the moment that
    /// it begins.
    fn open(self) -> u64 {
        let opened = sys::now();
        self.0.gate.store(0, Ordering::Release);
        self.let_go(i32::MAX as u32, Turn::Other);
        while self.let_go(WAVE as u32, Turn::Sleeper) > 0 {}
        opened
    }

    /// Wakes as many as `most`, and waits until they have left, or as long as that may take. Gives their number.
    fn let_go(&self, most: u32, turn: Turn) -> u32 {
        let Self(table) = self;
        let before = table.left.load(Ordering::Acquire);
        let woken = sys::futex_wake_among(&table.gate, most, turn as u32);
        let deadline = sys::now().wrapping_add(WAVE_PATIENCE);
        loop {
            let left = table.left.load(Ordering::Acquire);
            if left.wrapping_sub(before) >= woken || sys::now() >= deadline {
                return woken;
            }
            // Nobody wakes us: handlers that leave make no call for it.
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

impl Round<'_> {
    /// Adds the threads that are not known yet, each examined by `/proc`, and returns whether these may not be
    /// all: some were new, or fewer were seen than there are.
    pub(super) fn look_for_threads(&mut self, listing: &mut [u8]) -> Result<bool, SnapshotError> {
        let before = self.known.len();
        let Self { table, signal, memory, known, .. } = self;
        let result = proc::for_each_thread(listing, |tid| {
            // Within capacity: no allocation.
            if known.len() == known.capacity() || table.find(tid).is_some() {
                return;
            }
            let stat = Stat::read(tid);
            let room = known.len() < table.capacity();
            let asked =
                room.then(|| table.insert(tid)).flatten().ok_or(Unavailable::NoSlot).and_then(|slot| {
                    let turn = can_be_asked(tid, stat.as_ref(), *signal, memory)?;
                    slot.prepare(turn);
                    Ok((slot, turn))
                });
            let turn = asked.map_or(Turn::Other, |(_, turn)| turn);
            let slot = asked.map(|(slot, _)| slot);
            known.push(Entry { tid, stat, uninterruptible_since: 0, turn, slot });
        });
        let all = result.map_err(|errno| SnapshotError::Proc("/proc/self/task", errno))?;
        Ok(self.known.len() > before || !all)
    }

    /// The window.
    pub(super) fn run(&mut self, hold: Hold<'_>, listing: &mut [u8]) -> Pause {
        let holds = matches!(hold, Hold::Everybody(_));
        let begun = sys::now();
        let gate = Gate(self.table);
        if holds {
            self.table.gate.store(self.generation, Ordering::Release);
            self.send_in_waves(Some(Turn::Sleeper), begun.wrapping_add(SLEEPERS_DEADLINE));
        } else {
            self.send_in_waves(None, u64::MAX);
        }
        let stopped = sys::now();
        let (longest, patience) =
            if holds { (FREEZE_DEADLINE, FREEZE_PATIENCE) } else { (ROLLING_DEADLINE, ROLLING_PATIENCE) };
        (self.deadline, self.patience) = (stopped.wrapping_add(longest), patience);
        if holds {
            self.send(0, Some(Turn::Other));
        }
        self.wait();
        self.all_seen = self.ask_new_threads(holds, listing);
        let myself = self.myself();
        match hold {
            Hold::Nobody => myself.capture(),
            Hold::Everybody(while_held) => {
                while_held(Held {
                    myself,
                    known: self.known,
                    generation: self.generation,
                    places: self.places,
                });
            }
        }
        let opened = gate.open();
        // The handler of our own thread has returned: whoever is still `Sent` gets no second chance.
        self.give_up(true);
        self.wait_until_all_left();

        let (mut awake, mut all, mut longest) = (opened, opened, 0);
        for (turn, entered, left) in self.times() {
            all = all.max(left);
            if turn == Turn::Other {
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

    /// Asks the threads that were started since, and those that could not be asked, until there are no more of them.
    /// Returns whether all threads were seen.
    fn ask_new_threads(&mut self, holds: bool, listing: &mut [u8]) -> bool {
        let mut more = true;
        for _ in 0..MOST_SCANS {
            if holds && self.is_everyone_held() {
                return true;
            }
            let first_new = self.known.len();
            more = match self.look_for_threads(listing) {
                Ok(more) => more,
                Err(_) => return false,
            };
            self.send(first_new, None);
            let blocked = self.ask_again();
            self.wait();
            if blocked {
                // A moment of their own is what those who block signals for a moment need.
                sys::futex_wait(&self.table.gate, self.table.gate.load(Ordering::Relaxed), RETRY_INTERVAL);
            } else if !more {
                break;
            }
        }
        !more || (holds && self.is_everyone_held())
    }

    /// Whether all threads that exist stand still: as many as there are, so that none can have been born
    /// or have ended since. Cheaper than to look for new ones, while everybody waits.
    fn is_everyone_held(&self) -> bool {
        let others = self.known.iter().filter(|entry| entry.tid != self.tid);
        let held = others.filter(|entry| entry.slot.is_ok_and(|slot| slot.is(self.generation, State::Done)));
        let held = held.count().wrapping_add(1);
        held == self.known.len() && proc::thread_count() == Ok(held as u64)
    }

    /// When each handler was entered and left.
    pub(super) fn times(&self) -> impl Iterator<Item = (Turn, u64, u64)> {
        let slots = self.known.iter().filter_map(|entry| Some((entry.turn, entry.slot.ok()?)));
        slots
            .map(|(turn, slot)| {
                (turn, slot.entered.load(Ordering::Relaxed), slot.left.load(Ordering::Acquire))
            })
            .filter(|&(.., left)| left != 0)
    }

    /// Sends the signal to those from `first` on that can be asked and whose turn it is, but not to ourselves.
    fn send(&mut self, first: usize, turn: Option<Turn>) {
        for entry in self.known.iter_mut().skip(first) {
            if entry.tid != self.tid && turn.is_none_or(|turn| entry.turn == turn) {
                entry.ask(self.pid, self.signal, self.generation);
            }
        }
    }

    /// The same for all, a few at a time; after `deadline`, all who are left at once.
    fn send_in_waves(&mut self, turn: Option<Turn>, deadline: u64) {
        let mut first = 0;
        while first < self.known.len() {
            let (mut end, mut asked) = (first, 0);
            let is_late = sys::now() >= deadline;
            while let Some(entry) = self.known.get_mut(end)
                && (is_late || asked < WAVE)
            {
                end = end.wrapping_add(1);
                if turn == Some(Turn::Sleeper) {
                    entry.look_again(self.memory);
                }
                if entry.tid != self.tid && turn.is_none_or(|turn| entry.turn == turn) {
                    entry.ask(self.pid, self.signal, self.generation);
                    asked = asked.wrapping_add(1);
                }
            }
            self.wait_for_wave(first..end, turn);
            first = end;
        }
    }

    /// Waits until those have published whose turn it was, or longer than anybody should take who can.
    fn wait_for_wave(&self, wave: Range<usize>, turn: Option<Turn>) {
        let deadline = sys::now().wrapping_add(WAVE_PATIENCE);
        loop {
            let wave = self.known.get(wave.clone()).unwrap_or_default().iter();
            let seen = self.table.arrived.load(Ordering::Acquire);
            let missing = self.missing(wave.filter(|entry| turn.is_none_or(|turn| entry.turn == turn)));
            let now = sys::now();
            if missing == 0 || now >= deadline {
                return;
            }
            self.table.target.store(seen.wrapping_add(missing), Ordering::Release);
            sys::futex_wait(&self.table.arrived, seen, deadline.wrapping_sub(now));
        }
    }

    /// Asks those again who blocked the signal while they ran: libc blocks all signals for the first and
    /// last moments of a thread, and around the creation of one. Returns whether some still do.
    fn ask_again(&mut self) -> bool {
        let mut blocked = false;
        for entry in self.known.iter_mut().filter(|entry| entry.tid != self.tid) {
            let briefly = entry.stat.is_some_and(|stat| matches!(stat.state, b'R' | b'D'));
            if entry.slot.err() != Some(Unavailable::SignalBlocked) || !briefly {
                continue;
            }
            entry.stat = Stat::read(entry.tid).or(entry.stat);
            let Some(slot) = self.table.find(entry.tid) else { continue };
            match can_be_asked(entry.tid, entry.stat.as_ref(), self.signal, self.memory) {
                _ if sys::tgkill(self.pid, entry.tid, 0).is_err() => entry.slot = Err(Unavailable::Exited),
                Ok(turn) => {
                    slot.prepare(turn);
                    (entry.slot, entry.turn) = (Ok(slot), turn);
                    entry.ask(self.pid, self.signal, self.generation);
                }
                Err(reason) => {
                    blocked |= reason == Unavailable::SignalBlocked;
                    entry.slot = Err(reason);
                }
            }
        }
        blocked
    }

    /// The capturing thread, to be captured last.
    fn myself(&self) -> Myself {
        let slot = self.known.iter().find(|entry| entry.tid == self.tid).and_then(|entry| entry.slot.ok());
        if let Some(slot) = slot {
            slot.announce(self.generation);
        }
        Myself { pid: self.pid, tid: self.tid, signal: slot.map(|_| self.signal) }
    }

    /// Waits until everyone who was asked has published, has exited, or is given up.
    fn wait(&mut self) {
        let mut next_probe = sys::now().wrapping_add(PROBE_INTERVAL);
        loop {
            let seen = self.table.arrived.load(Ordering::Acquire);
            let missing = self.missing(self.known.iter());
            if missing == 0 {
                return;
            }
            self.table.target.store(seen.wrapping_add(missing), Ordering::Release);
            let now = sys::now();
            if now >= self.deadline {
                self.give_up(true);
                return;
            }
            if now >= next_probe {
                next_probe = now.wrapping_add(PROBE_INTERVAL);
                self.give_up(false);
            } else {
                sys::futex_wait(&self.table.arrived, seen, PROBE_INTERVAL);
            }
        }
    }

    /// How many others of these were asked and have not published.
    fn missing<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> u32 {
        let missing = entries
            .filter(|entry| entry.tid != self.tid)
            .filter(|entry| entry.slot.is_ok_and(|slot| !slot.is(self.generation, State::Done)))
            .count();
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    /// Takes the slots back of those silent threads that will not answer, or of `all` of them.
    fn give_up(&mut self, all: bool) {
        let now = sys::now();
        for entry in self.known.iter_mut() {
            let Ok(slot) = entry.slot else { continue };
            if !slot.is(self.generation, State::Sent) || (entry.tid == self.tid && !all) {
                continue;
            }
            let reason = why_silent(self.pid, entry.tid);
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
        while self.is_anyone_inside() && sys::now() < deadline {
            // Nobody wakes us: handlers that leave make no call for it.
            sys::futex_wait(&self.table.left, self.table.left.load(Ordering::Acquire), 50_000);
        }
    }

    /// Whether a handler of this capture has not returned.
    pub(super) fn is_anyone_inside(&self) -> bool {
        let claimed = self.known.iter().filter(|entry| entry.slot.is_ok()).count();
        (self.table.left.load(Ordering::Acquire) as usize) < claimed
    }
}
