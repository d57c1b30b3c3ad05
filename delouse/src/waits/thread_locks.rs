//! Threads that are blocked in a lock of the standard library or of parking_lot, and threads that may have it.
//!
//! Such a lock keeps no name of who has it. A suspended function has the guard among its variables, where it is
//! found like any other handle. A thread has it on its stack, of which no more can be told than that the address of
//! the lock stands there: in the guard, in a reference, or in what is left of either.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::snapshot::{FutexWait, Thread};
use crate::tasks::Examination;
use crate::tasks::process::Process;
use crate::tasks::route::Route;

/// Threads that are told as ones that may have a lock.
const MAX_SUSPECTS: usize = 64;
/// Bytes of stacks that are looked through in all.
const MAX_STACKS: u64 = 64 << 20;
/// So near to the top of its stack a thread that waits at a futex has come from the lock: std is built with
/// optimisations always, the frames of `parking_lot_core` are larger in builds without.
const NEAR: (u64, u64) = (512, 4096);

/// Which threads wait for locks, and which may have these.
#[derive(Debug, Default)]
pub(super) struct ThreadLocks {
    /// The lock that each blocked thread waits for, by the complements of its addresses: who looks for the address in
    /// memory shall not find it in what is left of us.
    blocked: FxHashMap<i32, u64>,
    /// Of each lock, the threads that do not wait for it, and have its address on their stacks.
    suspects: FxHashMap<u64, BTreeSet<i32>>,
    /// Some stack could not be looked through to its end.
    pub(super) cut: bool,
}

impl ThreadLocks {
    /// Looks at where each thread is, and through the stacks if some that poll tasks wait for locks.
    pub(super) fn of(examination: &Examination<'_, '_, '_>) -> Self {
        let process = examination.process;
        let threads = process.memory.snapshot().threads();
        let (functions, parked) = (OnceCell::new(), OnceCell::new());
        let parked = || parked.get_or_init(|| Parked::learn(process)).as_ref();
        let lock = |thread: &Thread| {
            let wait = thread.registers.ok()?.futex?;
            let (kind, lock) = lock(process, wait, parked)?;
            let functions = functions.get_or_init(|| Functions::of(process));
            (examination.stands_still(thread, NEAR.0) && functions.led(process, thread, kind))
                .then_some(!lock)
        };
        let blocked: FxHashMap<i32, u64> =
            threads.iter().filter_map(|thread| Some((thread.tid, lock(thread)?))).collect();
        let mut locks = Self { blocked, ..Self::default() };
        let polled = examination.listing.tasks.iter().filter_map(|task| task.thread);
        let wanted: FxHashSet<u64> = polled.filter_map(|tid| locks.blocked.get(&tid).copied()).collect();
        let (Some(highest), Some(lowest)) = (wanted.iter().max(), wanted.iter().min()) else { return locks };
        let mut left = MAX_STACKS;
        for thread in threads.iter().filter(|thread| !examination.is_idle(thread)) {
            let own = locks.blocked.get(&thread.tid).copied();
            let all = examination.stack_words(thread, !highest..=!lowest, &mut left, |word| {
                if wanted.contains(&!word) && Some(!word) != own {
                    let suspects = locks.suspects.entry(!word).or_default();
                    if suspects.len() < MAX_SUSPECTS {
                        suspects.insert(thread.tid);
                    }
                }
            });
            locks.cut |= !all;
        }
        locks
    }

    /// The lock that a thread waits for.
    pub(super) fn lock_of(&self, tid: i32) -> Option<u64> {
        self.blocked.get(&tid).map(|lock| !lock)
    }

    /// The locks that somebody waits for.
    pub(super) fn locks(&self) -> FxHashSet<u64> {
        self.blocked.values().map(|lock| !lock).collect()
    }

    /// The threads that may have a lock, by what stands on their stacks.
    pub(super) fn suspects(&self, lock: u64) -> impl Iterator<Item = i32> {
        self.suspects.get(&!lock).into_iter().flatten().copied()
    }
}

/// Kinds of lock, by how their waiters wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// std's `sys/sync/mutex/futex.rs`.
    Mutex,
    /// std's `sys/sync/rwlock/futex.rs`.
    RwLock,
    /// `raw_mutex.rs` and `raw_rwlock.rs` of parking_lot.
    ParkingLot,
}

/// Functions in which threads wait for locks: none of them is inlined, for they are cold.
struct Functions(Vec<(Range<u64>, Kind)>);

impl Functions {
    /// Parts of their mangled names, and of their modules'.
    const NAMES: &[(&str, &str, Kind)] = &[
        ("14lock_contended", "5futex", Kind::Mutex),
        ("14read_contended", "5futex", Kind::RwLock),
        ("15write_contended", "5futex", Kind::RwLock),
        ("9lock_slow", "9raw_mutex", Kind::ParkingLot),
        ("16lock_shared_slow", "10raw_rwlock", Kind::ParkingLot),
        ("19lock_exclusive_slow", "10raw_rwlock", Kind::ParkingLot),
        ("20lock_upgradable_slow", "10raw_rwlock", Kind::ParkingLot),
        ("12upgrade_slow", "10raw_rwlock", Kind::ParkingLot),
        ("16wait_for_readers", "10raw_rwlock", Kind::ParkingLot),
    ];

    fn of(process: &Process<'_, '_>) -> Self {
        let mut found = Vec::new();
        for (name, module, kind) in Self::NAMES {
            let module = memchr::memmem::Finder::new(module);
            for symbol in process.types.symbols_with(name).iter() {
                if module.find(symbol.name).is_some() && symbol.address != 0 {
                    found.push((symbol.address..u64::MAX, *kind));
                }
            }
        }
        // A function ends where the next one begins.
        for symbol in process.types.symbols() {
            for (range, _) in &mut found {
                if symbol.address > range.start {
                    range.end = range.end.min(symbol.address);
                }
            }
        }
        Self(found)
    }

    /// Whether a function of that kind has led a thread to where it is.
    fn led(&self, process: &Process<'_, '_>, thread: &Thread, kind: Kind) -> bool {
        let Ok(registers) = thread.registers else { return false };
        let near = if kind == Kind::ParkingLot { NEAR.1 } else { NEAR.0 };
        (0..near).step_by(8).any(|offset| {
            let word = registers.sp.checked_add(offset).and_then(|at| process.memory.word(at));
            let address = word.map_or(0, |word| word.wrapping_sub(process.bias));
            self.0.iter().any(|(range, of)| *of == kind && range.contains(&address))
        })
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

    /// The lock that the thread waits for whose futex that is.
    fn lock(&self, process: &Process<'_, '_>, futex: u64) -> Option<u64> {
        let key = process.memory.word(futex.checked_sub(self.futex)?.checked_add(self.key)?)?;
        // A mutex is one byte: locked, and somebody waits.
        if process.memory.number(key, 1)? & 3 == 3 {
            return Some(key);
        }
        // A read-write lock is a word: readers or a writer, and somebody waits. A writer that waits for readers to
        // leave has 1 added to its key.
        let lock = key & !1;
        let state = process.memory.word(lock).filter(|_| lock.is_multiple_of(8))?;
        (state & 3 != 0 && state & !3 != 0).then_some(lock)
    }
}

/// The lock that a wait may be for, by what the lock would look like; `None` where it is for something else: a
/// condition variable, to be unparked, ….
fn lock<'p>(
    process: &Process<'_, '_>,
    wait: FutexWait,
    parked: impl Fn() -> Option<&'p Parked>,
) -> Option<(Kind, u64)> {
    // 2 is a lock that is taken, and that others wait for.
    const CONTENDED: u32 = 2;
    // The count of readers, or all ones for a writer, and who waits.
    const MASK: u32 = (1 << 30) - 1;
    const READERS_WAITING: u32 = 1 << 30;
    const WRITERS_WAITING: u32 = 1 << 31;
    // `thread_parker/linux.rs`.
    const PARKED: u32 = 1;
    let half = |address: u64| process.memory.half(address);
    let is_taken = |state: u32, waiting: u32| state & MASK != 0 && state & waiting != 0;
    let now = half(wait.address)?;
    if wait.expected == CONTENDED && now == CONTENDED {
        return Some((Kind::Mutex, wait.address));
    }
    if wait.expected == PARKED
        && now == PARKED
        && let Some(lock) = parked().and_then(|parked| parked.lock(process, wait.address))
    {
        return Some((Kind::ParkingLot, lock));
    }
    // Who waits for a thread to be unparked expects all ones (`thread_parking/futex.rs`).
    if is_taken(wait.expected, READERS_WAITING) && wait.expected != u32::MAX && is_taken(now, READERS_WAITING)
    {
        return Some((Kind::RwLock, wait.address));
    }
    // Writers wait at a counter of their own, which follows the state.
    let state = wait.address.checked_sub(4)?;
    (wait.expected == now && is_taken(half(state)?, WRITERS_WAITING)).then_some((Kind::RwLock, state))
}
