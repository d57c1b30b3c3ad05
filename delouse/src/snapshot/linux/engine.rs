//! The capture of all threads: who is asked, who is waited for, who is given up, and why.
//!
//! Rules of the window (from the first signal to the open gate, in a capture that holds threads): any
//! thread may stand still inside malloc, the loader, a logger. So on our own thread, too: **no
//! allocation, no lock, no logging, no panic**. Vectors that grow there were given their room before.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::arch::Context;
use super::examine::{can_be_asked, thread, why_silent};
use super::memory::OwnMemory;
use super::proc::{self, Stat};
use super::slots::{Content, Slot, State, TABLE, Table};
use super::stacks::{self, Places};
use super::{kernel_wait, signal, sys};
use crate::snapshot::{SnapshotError, StackCopy, Thread, Unavailable};

/// Longest copy of one stack: a deeper one is cut, and the capture says so.
pub(super) const STACK_LIMIT: usize = 1 << 20;
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
/// Passes over the thread list: under heavy churn there is always someone new.
const MOST_SCANS: usize = 16;
/// How long those are left alone who blocked the signal while they ran.
const RETRY_INTERVAL: u64 = 100_000;
/// Tables lost to threads that never came back from their handlers.
const MOST_ABANDONED: u32 = 8;

/// What captures need between them; one capture at a time.
static ENGINE: Mutex<Engine> =
    Mutex::new(Engine { signal: None, table: None, abandoned: 0, known: Vec::new(), listing: Vec::new() });

struct Engine {
    signal: Option<i32>,
    table: Option<&'static Table>,
    abandoned: u32,
    /// Scratch, kept for its room.
    known: Vec<Entry>,
    listing: Vec<u8>,
}

/// Whether threads go on at once or wait for each other.
pub(super) enum Hold<'a> {
    /// Each goes on as soon as it is copied.
    Nobody,
    /// All stand still until this function, called when the last has come, returns. It allocates nothing,
    /// and has the capturing thread captured by calling [`Myself::capture`].
    Everybody(&'a mut dyn FnMut(Held<'_>)),
}

/// All threads while they stand still.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) myself: Myself,
    known: &'a [Entry],
    generation: u32,
    places: Places,
}

impl Held<'_> {
    /// After a fork: see [`stacks::unshare`].
    pub(super) fn unshare_stacks(self) {
        let slots = self.known.iter().filter_map(|entry| entry.slot.ok());
        stacks::unshare(slots.filter_map(|slot| slot.content(self.generation)), self.places);
    }
}

/// The capturing thread, which signals itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Myself {
    pid: i32,
    tid: i32,
    /// `None` where it cannot take the signal.
    signal: Option<i32>,
}

impl Myself {
    /// Of a fork without a capture.
    pub(super) const NOT_ASKED: Self = Self { pid: 0, tid: 0, signal: None };

    /// Captures the calling thread, in the frame of the calling function.
    #[inline(always)]
    pub(super) fn capture(self) {
        if let Some(signal) = self.signal {
            let _ = sys::tgkill(self.pid, self.tid, signal);
        }
    }
}

/// All threads as they were captured.
#[derive(Default)]
pub(super) struct Captured {
    pub(super) threads: Vec<Thread>,
    /// Full registers of those that answered, for a core file.
    pub(super) contexts: Vec<(i32, Context)>,
    /// Held: first signal to last handler's return. Not held: the longest that one thread was in its
    /// handler.
    pub(super) pause: Duration,
    /// Nobody was missed and nobody went on too early.
    pub(super) complete: bool,
    pub(super) notes: Vec<String>,
    /// What all handlers took together.
    #[cfg(test)]
    pub(super) in_handlers: Duration,
}

/// One thread while it is captured.
#[derive(Clone, Copy)]
struct Entry {
    tid: i32,
    stat: Option<Stat>,
    /// When the first of the looks that found it in uninterruptible sleep was; 0: it was not, last time.
    uninterruptible_since: u64,
    /// `Err`: not asked, or given up.
    slot: Result<&'static Slot, Unavailable>,
}

impl Entry {
    /// Sends the signal, if there is a slot for the answer.
    fn ask(&mut self, pid: i32, signal: i32, generation: u32) {
        let Ok(slot) = self.slot else { return };
        if let Err(errno) = sys::tgkill(pid, self.tid, signal)
            && slot.revoke(generation)
        {
            // EAGAIN: too many real-time signals are pending (RLIMIT_SIGPENDING).
            self.slot = Err(if errno == libc::ESRCH { Unavailable::Exited } else { Unavailable::NoAnswer });
        }
    }
}

/// Captures every thread of this process.
pub(super) fn capture(hold: Hold<'_>, stack_limit: usize) -> Result<Captured, SnapshotError> {
    // The engine's state is sound between any two statements: a poisoned lock is as good as another.
    let mut engine = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    let signal = signal::ready(engine.signal)?;
    engine.signal = Some(signal);
    let memory = OwnMemory::open()?;
    let table = engine.prepare()?;

    let Engine { known, listing, .. } = &mut *engine;
    let tid = sys::gettid();
    let generation = table.begin(tid, memory.raw(), stack_limit);
    let mut round = Round {
        table,
        generation,
        signal,
        pid: sys::getpid(),
        tid,
        known,
        places: Places::find(),
        started: 0,
        deadline: 0,
        patience: 0,
    };

    round.look_for_threads(listing)?;
    let pause = round.run(hold, listing);
    let captured = round.collect(pause);
    if round.is_anyone_inside() {
        // Their handlers may write yet: this table is theirs for ever.
        engine.table = None;
        engine.abandoned = engine.abandoned.saturating_add(1);
    } else {
        table.release_memory();
    }
    drop(memory);
    Ok(captured)
}

impl Engine {
    /// Makes room for all threads, and half as many again.
    fn prepare(&mut self) -> Result<&'static Table, SnapshotError> {
        self.listing.resize(32 << 10, 0);
        let mut threads = 0_usize;
        proc::for_each_thread(&mut self.listing, |_| threads = threads.saturating_add(1))
            .map_err(|errno| SnapshotError::Proc("/proc/self/task", errno))?;
        let wanted = threads.saturating_add(threads / 2).saturating_add(64);

        let table = match self.table {
            Some(table) if table.capacity() >= wanted => table,
            _ if self.abandoned >= MOST_ABANDONED => return Err(SnapshotError::Stuck),
            // A smaller one stays mapped, for handlers that are late.
            _ => {
                let table = Table::new(wanted)?;
                TABLE.store(std::ptr::from_ref(table).cast_mut(), Ordering::Release);
                self.table = Some(table);
                table
            }
        };
        self.known.clear();
        self.known.reserve(table.capacity());
        Ok(table)
    }
}

/// One capture in progress.
struct Round<'e> {
    table: &'static Table,
    generation: u32,
    signal: i32,
    pid: i32,
    tid: i32,
    known: &'e mut Vec<Entry>,
    places: Places,
    started: u64,
    deadline: u64,
    patience: u64,
}

/// Opens the gate on every path.
struct Gate(&'static Table);

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.gate.store(0, Ordering::Release);
        sys::futex_wake(&self.0.gate);
    }
}

impl Round<'_> {
    /// Adds the threads that are not known yet, each examined by `/proc`, and returns whether these may not be
    /// all: some were new, or fewer were seen than there are.
    fn look_for_threads(&mut self, listing: &mut [u8]) -> Result<bool, SnapshotError> {
        let before = self.known.len();
        let Self { table, generation, signal, known, .. } = self;
        let result = proc::for_each_thread(listing, |tid| {
            // Within capacity: no allocation.
            if known.len() == known.capacity() || table.find(tid).is_some() {
                return;
            }
            let stat = Stat::read(tid);
            let room = known.len() < table.capacity();
            let slot = match room.then(|| table.insert(tid)).flatten() {
                None => Err(Unavailable::NoSlot),
                Some(slot) => can_be_asked(tid, stat.as_ref(), *signal).map(|()| {
                    slot.announce(*generation);
                    slot
                }),
            };
            known.push(Entry { tid, stat, uninterruptible_since: 0, slot });
        });
        let all = result.map_err(|errno| SnapshotError::Proc("/proc/self/task", errno))?;
        Ok(self.known.len() > before || !all)
    }

    /// The window. Returns the pause, in nanoseconds (see [`Captured::pause`]).
    fn run(&mut self, hold: Hold<'_>, listing: &mut [u8]) -> u64 {
        let holds = matches!(hold, Hold::Everybody(_));
        self.started = sys::now();
        let (longest, patience) =
            if holds { (FREEZE_DEADLINE, FREEZE_PATIENCE) } else { (ROLLING_DEADLINE, ROLLING_PATIENCE) };
        (self.deadline, self.patience) = (self.started.wrapping_add(longest), patience);
        let gate = Gate(self.table);
        if holds {
            self.table.gate.store(self.generation, Ordering::Release);
        }
        self.send(0);
        self.wait();
        for _ in 0..MOST_SCANS {
            if holds && self.is_everyone_held() {
                break;
            }
            let first_new = self.known.len();
            let more = self.look_for_threads(listing).unwrap_or(false);
            self.send(first_new);
            let blocked = self.ask_again();
            self.wait();
            if blocked {
                // A moment of their own is what those who block signals for a moment need.
                sys::futex_wait(&self.table.gate, self.table.gate.load(Ordering::Relaxed), RETRY_INTERVAL);
            } else if !more {
                break;
            }
        }
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
        drop(gate);
        let opened = sys::now();
        // The handler of our own thread has returned: whoever is still `Sent` gets no second chance.
        self.give_up(true);
        self.wait_until_all_left();

        let (mut last, mut longest) = (opened, 0);
        for (entered, left) in self.times() {
            last = last.max(left);
            longest = longest.max(left.saturating_sub(entered));
        }
        if holds { last.saturating_sub(self.started) } else { longest }
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
    fn times(&self) -> impl Iterator<Item = (u64, u64)> {
        let slots = self.known.iter().filter_map(|entry| entry.slot.ok());
        slots
            .map(|slot| (slot.entered.load(Ordering::Relaxed), slot.left.load(Ordering::Acquire)))
            .filter(|&(_, left)| left != 0)
    }

    /// Sends the signal to those from `first` on that can be asked, but not to ourselves.
    fn send(&mut self, first: usize) {
        for entry in self.known.iter_mut().skip(first).filter(|entry| entry.tid != self.tid) {
            entry.ask(self.pid, self.signal, self.generation);
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
            match can_be_asked(entry.tid, entry.stat.as_ref(), self.signal) {
                _ if sys::tgkill(self.pid, entry.tid, 0).is_err() => entry.slot = Err(Unavailable::Exited),
                Ok(()) => {
                    slot.announce(self.generation);
                    entry.slot = Ok(slot);
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

    /// Ourselves, to be captured last.
    fn myself(&self) -> Myself {
        let asked = self.known.iter().any(|entry| entry.tid == self.tid && entry.slot.is_ok());
        Myself { pid: self.pid, tid: self.tid, signal: asked.then_some(self.signal) }
    }

    /// Waits until everyone who was asked has published, has exited, or is given up.
    fn wait(&mut self) {
        let mut next_probe = sys::now().wrapping_add(PROBE_INTERVAL);
        loop {
            let seen = self.table.arrived.load(Ordering::Acquire);
            let missing = self.missing();
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

    /// How many others were asked and have not published.
    fn missing(&self) -> u32 {
        let missing = self
            .known
            .iter()
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
    fn is_anyone_inside(&self) -> bool {
        let claimed = self.known.iter().filter(|entry| entry.slot.is_ok()).count();
        (self.table.left.load(Ordering::Acquire) as usize) < claimed
    }

    /// Makes threads of the entries. After the window.
    fn collect(&self, pause: u64) -> Captured {
        let mut threads = Vec::with_capacity(self.known.len());
        let mut contexts = Vec::with_capacity(self.known.len());
        let mut notes = Vec::new();
        let mut complete = true;
        for entry in self.known.iter() {
            let content: Result<&Content, Unavailable> =
                entry.slot.and_then(|slot| slot.content(self.generation).ok_or(Unavailable::NoAnswer));
            if content.is_err_and(|reason| reason == Unavailable::Exited) && entry.stat.is_none() {
                // Gone before anything was known of it.
                continue;
            }
            complete &= content.is_ok() || content.is_err_and(|reason| reason == Unavailable::Exited);
            let mut stack = None;
            if let Ok(content) = content {
                contexts.push((entry.tid, content.context));
                if content.stack_len > 0 {
                    let (base, _) = content.context.stack();
                    stack = Some(StackCopy { base, bytes: self.table.stack(content).to_vec() });
                    self.table.forget_stack(content);
                    if content.stack_cut {
                        notes.push(format!(
                            "the stack of thread {} is cut after {} KB",
                            entry.tid,
                            content.stack_len >> 10
                        ));
                    }
                }
            }
            let registers = content.map(|content| content.context.registers());
            let kernel = registers.is_err().then(|| kernel_wait::describe(entry.tid)).flatten();
            let alternate_stack = content.ok().and_then(|content| content.alternate.range());
            threads.push(Thread {
                registers,
                stack,
                kernel,
                alternate_stack,
                ..thread(entry.tid, entry.stat)
            });
        }
        threads.sort_by_key(|thread| thread.tid);
        contexts.sort_by_key(|&(tid, _)| tid);
        let overslept = self.table.overslept.load(Ordering::Acquire);
        if overslept > 0 {
            complete = false;
            notes.push(format!("{overslept} threads went on before the capture was over"));
        }
        Captured {
            threads,
            contexts,
            pause: Duration::from_nanos(pause),
            complete,
            notes,
            #[cfg(test)]
            in_handlers: self
                .times()
                .map(|(entered, left)| Duration::from_nanos(left.saturating_sub(entered)))
                .sum(),
        }
    }
}
