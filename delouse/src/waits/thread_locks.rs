//! Threads that are blocked in a lock of the standard library or of parking_lot, and threads that may have it.
//!
//! Such a lock keeps no name of who has it. A suspended function has the guard among its variables, where it is
//! found like any other handle. A thread has it on its stack, of which no more can be told than that the address of
//! the lock stands there: in the guard, in a reference, or in what is left of either.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};

use crate::snapshot::FutexWait;
use crate::tasks::Examination;
use crate::tasks::process::Process;
use crate::tasks::route::Route;

/// Threads that are told as ones that may have a lock.
const MAX_SUSPECTS: usize = 64;

/// Which threads wait for locks, and which may have these.
#[derive(Debug, Default)]
pub(super) struct ThreadLocks {
    /// Threads that wait, each with the address of its lock.
    pub(super) blocked: Vec<(i32, u64)>,
    /// Of each lock, the threads that do not wait for it, and have its address on their stacks.
    suspects: HashMap<u64, BTreeSet<i32>>,
}

impl ThreadLocks {
    /// Looks at where each thread is, and through the stacks if some wait for locks.
    pub(super) fn of(examination: &Examination<'_, '_, '_>) -> Self {
        let threads = examination.process.memory.snapshot().threads();
        let parked = OnceCell::new();
        let lock = |futex| lock(examination.process, futex, &parked);
        let blocked: Vec<(i32, u64)> = threads
            .iter()
            .filter_map(|thread| Some((thread.tid, lock(thread.registers.ok()?.futex?)?)))
            .collect();
        let mut locks = Self { blocked, suspects: HashMap::new() };
        let addresses = || locks.blocked.iter().map(|(_, lock)| *lock);
        let (Some(lowest), Some(highest)) = (addresses().min(), addresses().max()) else { return locks };
        let wanted: BTreeSet<u64> = addresses().collect();
        for thread in threads {
            let own = locks.lock_of(thread.tid);
            examination.stack_words(thread, lowest..=highest, |word| {
                if wanted.contains(&word) && Some(word) != own {
                    let suspects = locks.suspects.entry(word).or_default();
                    if suspects.len() < MAX_SUSPECTS {
                        suspects.insert(thread.tid);
                    }
                }
            });
        }
        locks
    }

    /// The lock that a thread waits for.
    pub(super) fn lock_of(&self, tid: i32) -> Option<u64> {
        self.blocked.iter().find(|(blocked, _)| *blocked == tid).map(|(_, lock)| *lock)
    }

    /// The threads that may have a lock, by what stands on their stacks.
    pub(super) fn suspects(&self, lock: u64) -> impl Iterator<Item = i32> {
        self.suspects.get(&lock).into_iter().flatten().copied()
    }
}

/// `parking_lot_core`'s record of a parked thread, where its type is known.
struct Parked {
    /// From its beginning to the futex.
    futex: u64,
    /// From its beginning to the key: the address of what the thread waits for.
    key: u64,
}

impl Parked {
    fn learn(process: &Process<'_, '_>) -> Option<Self> {
        let of = process.types.at_path("parking_lot_core::parking_lot::ThreadData", "16parking_lot_core")?;
        let offset = |way| Route::compile(process, of, way)?.offset();
        Some(Self { futex: offset("parker futex")?, key: offset("key")? })
    }
}

/// The lock that a thread waits for at a futex; `None` where it waits for something else: a condition variable, to
/// be unparked, ….
fn lock(process: &Process<'_, '_>, wait: FutexWait, parked: &OnceCell<Option<Parked>>) -> Option<u64> {
    // std's `sys/sync/mutex/futex.rs`: 2 is a lock that is taken, and that others wait for.
    const CONTENDED: u32 = 2;
    // std's `sys/sync/rwlock/futex.rs`: the count of readers, or this for a writer, and who waits.
    const MASK: u32 = (1 << 30) - 1;
    const READERS_WAITING: u32 = 1 << 30;
    const WRITERS_WAITING: u32 = 1 << 31;
    // parking_lot_core's `thread_parker/linux.rs`.
    const PARKED: u32 = 1;
    let half = |address: u64| process.memory.half(address);
    let is_taken = |state: u32, waiting: u32| state & MASK != 0 && state & waiting != 0;
    if half(wait.address)? != wait.expected {
        // It is about to wake.
        return None;
    }
    // Writers wait at a counter of their own, which follows the state.
    let state = wait.address.checked_sub(4)?;
    if half(state).is_some_and(|state| is_taken(state, WRITERS_WAITING)) {
        return Some(state);
    }
    match wait.expected {
        CONTENDED => Some(wait.address),
        PARKED => {
            let Parked { futex, key } = parked.get_or_init(|| Parked::learn(process)).as_ref()?;
            let key = process.memory.word(wait.address.checked_sub(*futex)?.checked_add(*key)?)?;
            // A writer that waits for readers to leave has one added: `raw_rwlock.rs`.
            Some(key & !1).filter(|key| *key != 0)
        }
        state if is_taken(state, READERS_WAITING) => Some(wait.address),
        _ => None,
    }
}
