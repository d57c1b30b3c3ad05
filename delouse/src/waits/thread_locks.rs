//! Threads that are blocked in a lock of the standard library or of parking_lot, and threads that may hold it.
//!
//! Such a lock does not record its holder. A suspended function has the guard among its variables, where it is found
//! like any other handle. A thread has the guard on its stack, where only the lock's address can be found: in the
//! guard, in a reference, or in a stale copy of either.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::debuginfo::address::FileAddress;
use crate::host::search;
use crate::snapshot::{Address, FutexWait, Hidden, Thread};
use crate::tasks::Examination;
use crate::tasks::process::Process;
use crate::tasks::route::Route;

/// The most threads that are listed as possible holders of a lock.
const MAX_SUSPECTS: usize = 64;
/// The most bytes of stacks that are searched in all.
const MAX_STACKS: u64 = 64 << 20;
/// The most bytes of one future that are searched.
const MAX_FUTURE: u64 = 1 << 20;
/// The most words of the own frames of one thread that are searched.
const MAX_OWN_WORDS: usize = 1 << 17;
/// The return address into the lock's function is at most this many bytes from the top of the stack of a thread that
/// waits at its futex: for std, which is always optimised, and for `parking_lot_core`, whose frames are larger without
/// optimisations.
const NEAR: (u64, u64) = (512, 4096);

/// The threads that wait for locks, and the threads that may hold these.
#[derive(Debug, Default)]
pub(super) struct ThreadLocks {
    /// The lock that each blocked thread waits for: a scan of memory for the address must not find it in stale copies of
    /// our own data.
    blocked: FxHashMap<i32, Hidden>,
    /// For each lock, the threads that have its address on their stacks and do not wait for it.
    suspects: FxHashMap<Hidden, BTreeSet<i32>>,
    /// Threads that wait for a lock, and have its address in the frames of the program's own functions, too.
    own: FxHashSet<i32>,
    /// Some stack could not be searched to its end.
    pub(super) cut: bool,
}

impl ThreadLocks {
    /// Finds the threads that wait for locks, and searches the stacks if some of these poll tasks.
    pub(super) fn of(examination: &Examination<'_, '_, '_>) -> Self {
        let process = examination.process;
        let threads = process.memory.snapshot().threads();
        let (functions, parked) = (OnceCell::new(), OnceCell::new());
        let parked = || parked.get_or_init(|| Parked::learn(process)).as_slice();
        let lock = |thread: &Thread| {
            let wait = thread.registers.ok()?.futex?;
            let (kind, lock) = lock(process, wait, parked)?;
            let functions = functions.get_or_init(|| Functions::of(process));
            (examination.stands_still(thread, NEAR.0) && functions.led(process, thread, kind))
                .then_some(Hidden::from(lock))
        };
        let blocked: FxHashMap<i32, Hidden> =
            threads.iter().filter_map(|thread| Some((thread.tid, lock(thread)?))).collect();
        let mut locks = Self { blocked, ..Self::default() };
        let polled = examination.listing.tasks.iter().filter_map(|task| task.thread);
        let wanted: FxHashSet<Hidden> = polled.filter_map(|tid| locks.blocked.get(&tid).copied()).collect();
        if wanted.is_empty() {
            return locks;
        }
        let mut left = MAX_STACKS;
        for thread in threads.iter().filter(|thread| !examination.is_idle(thread)) {
            let own = locks.blocked.get(&thread.tid).copied();
            let all = examination.stack_words(thread, Hidden::range(wanted.iter()), &mut left, |word| {
                let word = Hidden::from(word);
                if wanted.contains(&word) && Some(word) != own {
                    let suspects = locks.suspects.entry(word).or_default();
                    if suspects.len() < MAX_SUSPECTS {
                        suspects.insert(thread.tid);
                    }
                }
            });
            locks.cut |= !all;
        }
        locks.in_futures(examination, &wanted);
        locks.in_own_frames(examination);
        locks
    }

    /// Adds the threads that poll tasks in whose futures the address of a lock is: a guard that lives across an `.await`
    /// is stored there, even before the future is suspended.
    fn in_futures(&mut self, examination: &Examination<'_, '_, '_>, wanted: &FxHashSet<Hidden>) {
        let process = examination.process;
        for (task, place) in examination.listing.tasks.iter().zip(&examination.places) {
            let (Some(tid), Some((of, at))) = (task.thread, place.future) else { continue };
            let own = self.blocked.get(&tid).copied();
            let size = process.ty(of).map_or(0, |ty| ty.size.min(MAX_FUTURE));
            let words =
                (0..size).step_by(8).filter_map(|offset| process.memory.word(at.checked_add(offset)?));
            let words = words.map(Hidden::new);
            for lock in words.filter(|word| wanted.contains(word) && Some(*word) != own) {
                self.suspects.entry(lock).or_default().insert(tid);
            }
        }
    }

    /// Finds the threads that have the lock that they wait for in their own frames.
    fn in_own_frames(&mut self, examination: &Examination<'_, '_, '_>) {
        for (tid, own) in &examination.listing.own_frames {
            let Some(lock) = self.lock_of(*tid) else { continue };
            let mut words = Address::word_places(&own.range).take(MAX_OWN_WORDS);
            if words.any(|at| examination.process.memory.address(at) == Some(lock)) {
                self.own.insert(*tid);
            }
        }
    }

    /// Whether a thread may hold the lock that it waits for.
    pub(super) fn may_hold_itself(&self, tid: i32) -> bool {
        self.own.contains(&tid)
    }

    /// The lock that a thread waits for.
    pub(super) fn lock_of(&self, tid: i32) -> Option<Address> {
        self.blocked.get(&tid).map(|lock| lock.address())
    }

    /// The lock that each thread waits for.
    pub(super) fn by_thread(&self) -> FxHashMap<i32, Address> {
        self.blocked.iter().map(|(tid, lock)| (*tid, lock.address())).collect()
    }

    /// The locks that threads wait for.
    pub(super) fn locks(&self) -> FxHashSet<Address> {
        self.blocked.values().map(|lock| lock.address()).collect()
    }

    /// The threads that may hold a lock, by the addresses on their stacks.
    pub(super) fn suspects(&self, lock: Address) -> impl Iterator<Item = i32> {
        self.suspects.get(&lock.into()).into_iter().flatten().copied()
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
    /// std's `sys/sync/once/futex.rs`: what holds it initialises a value.
    Once,
}

/// Functions in which threads wait for locks. They are marked cold, so they are not inlined.
struct Functions(Vec<(Range<FileAddress>, Kind)>);

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
        ("4Once4call", "4once5futex", Kind::Once),
        // dashmap's `lock.rs`, with the states of parking_lot's.
        ("16lock_shared_slow", "7dashmap4lock", Kind::ParkingLot),
        ("19lock_exclusive_slow", "7dashmap4lock", Kind::ParkingLot),
    ];

    fn of(process: &Process<'_, '_>) -> Self {
        let mut found = Vec::new();
        for (name, module, kind) in Self::NAMES {
            for symbol in process.types.symbols_with(name).iter() {
                if search::find(symbol.name, module.as_bytes()).is_some()
                    && symbol.address != FileAddress::default()
                {
                    // A function ends where the next one begins.
                    let end = process.types.next_symbol(symbol.address);
                    let end = end.unwrap_or(FileAddress::new(u64::MAX));
                    found.push((symbol.address..end, *kind));
                }
            }
        }
        Self(found)
    }

    /// Whether a function of that kind is on the stack of a thread, near the top.
    fn led(&self, process: &Process<'_, '_>, thread: &Thread, kind: Kind) -> bool {
        let Ok(registers) = thread.registers else { return false };
        let near = if kind == Kind::ParkingLot { NEAR.1 } else { NEAR.0 };
        (0..near).step_by(8).any(|offset| {
            let word = registers.sp.checked_add(offset).and_then(|at| process.memory.address(at));
            let address = word.map_or(FileAddress::default(), |word| process.bias.file_address(word));
            self.0.iter().any(|(range, of)| *of == kind && range.contains(&address))
        })
    }
}

/// `parking_lot_core`'s record of a parked thread, where its type is known.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parked {
    /// From its beginning to the futex.
    futex: u64,
    /// From its beginning to the key: the address of what the thread waits for.
    key: u64,
}

impl Parked {
    /// One for each version of the crate that the program has.
    pub(super) fn learn(process: &Process<'_, '_>) -> Vec<Self> {
        let all =
            process.types.all_at_path("parking_lot_core::parking_lot::ThreadData", "16parking_lot_core");
        let mut versions: Vec<Self> = all
            .filter_map(|of| {
                let offset = |way| Route::compile(process, of, way)?.offset();
                Some(Self { futex: offset("parker futex")?, key: offset("key")? })
            })
            .collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// The address of what the thread with this futex waits for.
    pub(super) fn key(&self, process: &Process<'_, '_>, futex: Address) -> Option<Address> {
        process.memory.address(futex.checked_sub(self.futex)?.checked_add(self.key)?)
    }

    /// The lock for which the thread with this futex waits.
    fn lock(&self, process: &Process<'_, '_>, futex: Address) -> Option<Address> {
        let key = self.key(process, futex)?;
        // A read-write lock is a word: readers or a writer, with waiters. 1 is added to the key of a writer that waits for
        // readers to leave, and, in dashmap's `lock.rs`, of every reader that waits.
        let lock = if key.is_aligned(2) { key } else { key.checked_sub(1)? };
        let state = process.memory.word(lock).filter(|_| lock.is_aligned(8));
        let taken = state.filter(|state| state & 3 != 0 && state & !3 != 0);
        // A mutex is one byte, locked, with waiters; so is the second byte of a lock of dashmap's that a writer has.
        let has_writer = taken.is_some_and(|state| state | 3 == u64::MAX);
        if process.memory.number(key, 1)? & 3 == 3 && !(has_writer && key != lock) {
            return Some(key);
        }
        taken.map(|_| lock)
    }
}

/// The state of a `Once` that is being initialised, with waiters: `sys/sync/once/futex.rs`.
const ONCE_RUNNING: u32 = 1 | 4;
/// The state of a thread that parking_lot has parked: `thread_parker/linux.rs`.
const PARKED: u32 = 1;

/// The lock that a thread may wait for, if the memory there looks like that of a taken lock; `None` for any other wait:
/// for a condition variable, to be unparked, ….
fn lock<'p>(
    process: &Process<'_, '_>,
    wait: FutexWait,
    parked: impl Fn() -> &'p [Parked],
) -> Option<(Kind, Address)> {
    // 2: the lock is taken, and others wait for it.
    const CONTENDED: u32 = 2;
    // The count of readers, or all ones for a writer, and flags for waiters.
    const MASK: u32 = (1 << 30) - 1;
    const READERS_WAITING: u32 = 1 << 30;
    const WRITERS_WAITING: u32 = 1 << 31;
    let half = |address: Address| process.memory.half(address);
    let is_taken = |state: u32, waiting: u32| state & MASK != 0 && state & waiting != 0;
    let at = wait.address;
    let now = half(at)?;
    if wait.expected == CONTENDED && now == CONTENDED {
        return Some((Kind::Mutex, at));
    }
    if wait.expected == ONCE_RUNNING && now == ONCE_RUNNING {
        return Some((Kind::Once, at));
    }
    if wait.expected == PARKED
        && now == PARKED
        && let Some(lock) = parked().iter().find_map(|parked| parked.lock(process, at))
    {
        return Some((Kind::ParkingLot, lock));
    }
    // A thread that waits to be unparked expects all ones (`thread_parking/futex.rs`).
    if is_taken(wait.expected, READERS_WAITING) && wait.expected != u32::MAX && is_taken(now, READERS_WAITING)
    {
        return Some((Kind::RwLock, at));
    }
    // Writers wait at a counter of their own, which follows the state.
    let state = at.checked_sub(4)?;
    (wait.expected == now && is_taken(half(state)?, WRITERS_WAITING)).then_some((Kind::RwLock, state))
}
