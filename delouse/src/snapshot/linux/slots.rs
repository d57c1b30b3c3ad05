//! Where the signal handler leaves what it captured: one slot per thread, made before any signal is sent.
//!
//! A table is a mapping of its own and is never unmapped, because a late handler may still look at it.
//! Whoever writes a slot's fields has claimed it by compare-and-swap first; the word that is swapped holds
//! the capture's generation, so that a handler that slept through a whole capture claims nothing of the
//! next by mistake.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::arch::Context;
use super::memory::RawMemory;
use super::sys;
use super::turn::Turn;
use crate::snapshot::SnapshotError;
use crate::snapshot::room::{self, Amount};

/// The table that handlers look into; null before the first capture.
pub(super) static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());

/// What a slot's word says, below the generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum State {
    /// Nobody may write.
    Free = 0,
    /// The thread's signal is sent: its handler may claim the slot.
    Sent = 1,
    /// A handler is writing.
    Claimed = 2,
    /// Written: the capture may read.
    Done = 3,
}

/// One thread's part of a capture.
#[repr(C, align(64))]
pub(super) struct Slot {
    tid: AtomicI32,
    /// Generation (upper 56 bits) and [`State`].
    word: AtomicU64,
    /// When the handler was entered and when it was about to return, by [`super::sys::now`].
    pub(super) entered: AtomicU64,
    pub(super) left: AtomicU64,
    /// As a [`Turn`].
    turn: AtomicU32,
    content: UnsafeCell<Content>,
}

/// What a handler writes. Owned by whoever claimed the slot; by the capture once it is `Done`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    pub(super) context: Context,
    /// Where the handler's own variables lie: on the thread's stack below what was interrupted, or on its alternate
    /// signal stack.
    pub(super) handler_at: u64,
    pub(super) alternate: AlternateStack,
    /// The copied stack: its place in the table's arena and its length; it begins at the stack pointer.
    pub(super) stack_at: usize,
    pub(super) stack_len: usize,
    /// The copy was cut at the limit, or where the arena was full.
    pub(super) stack_cut: bool,
}

/// A thread's alternate signal stack, as the kernel knows it; empty where it has none.
#[derive(Debug, Clone, Copy)]
pub(super) struct AlternateStack {
    start: u64,
    size: u64,
}

impl AlternateStack {
    /// That of the calling thread. Async-signal-safe.
    ///
    /// # Safety
    /// `ucontext` is the third argument of a handler installed with `SA_SIGINFO`, which has not returned.
    pub(super) unsafe fn of(ucontext: *const c_void) -> Self {
        // SAFETY: by the contract above; the kernel fills `uc_stack` in (`save_altstack_ex`, Linux signal.c).
        let stack = unsafe { std::ptr::addr_of!((*ucontext.cast::<libc::ucontext_t>()).uc_stack).read() };
        Self { start: stack.ss_sp.addr() as u64, size: stack.ss_size as u64 }
    }

    /// Bytes that are left of it for the caller, who may run on it; a great many where he runs on another stack.
    ///
    /// std gives its threads 8 kB. Where the capture interrupts another handler there, two frames of the kernel
    /// with vector registers leave little: then the thread is given up, not overrun.
    pub(super) fn room(&self) -> u64 {
        let here = (&raw const *self).addr() as u64;
        let room = here.wrapping_sub(self.start);
        if room < self.size { room } else { u64::MAX }
    }

    /// Where it lies, if there is one.
    pub(super) fn range(&self) -> Option<Range<u64>> {
        (self.size > 0).then(|| self.start..self.start.saturating_add(self.size))
    }
}

// SAFETY: `content` is reached through `Slot::claim_and_write` and `Slot::content`, which order and exclude access
// by `word`; everything else is atomic.
unsafe impl Sync for Slot {}

impl Slot {
    fn pack(generation: u32, state: State) -> u64 {
        (u64::from(generation) << 8) | state as u64
    }

    pub(super) fn is(&self, generation: u32, state: State) -> bool {
        self.word.load(Ordering::Acquire) == Self::pack(generation, state)
    }

    fn swap(&self, generation: u32, from: State, to: State) -> bool {
        let (from, to) = (Self::pack(generation, from), Self::pack(generation, to));
        self.word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes the slot if this generation's signal is out, has it written, and hands it to the capture.
    /// False: it is not ours to write. Async-signal-safe.
    pub(super) fn claim_and_write(&self, generation: u32, write: impl FnOnce(&mut Content)) -> bool {
        if !self.swap(generation, State::Sent, State::Claimed) {
            return false;
        }
        // SAFETY: the swap succeeds once for each generation, and the capture reads after `Done` only, so
        // this is the only reference.
        write(unsafe { &mut *self.content.get() });
        self.word.store(Self::pack(generation, State::Done), Ordering::Release);
        true
    }

    /// Before [`Self::announce`].
    pub(super) fn prepare(&self, turn: Turn) {
        self.left.store(0, Ordering::Relaxed);
        self.set_turn(turn);
    }

    /// Right before the signal is sent, and after the gate is shut: from now on a handler may claim the slot. It need not
    /// be that signal's, as one of an earlier capture may still be pending.
    pub(super) fn announce(&self, generation: u32) {
        self.word.store(Self::pack(generation, State::Sent), Ordering::Release);
    }

    /// Before the signal is sent, if the thread has gone on since.
    pub(super) fn set_turn(&self, turn: Turn) {
        self.turn.store(turn as u32, Ordering::Relaxed);
    }

    /// The thread's [`Turn`], as a bit. Async-signal-safe.
    pub(super) fn turn(&self) -> u32 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Takes back a slot that no handler has claimed: from now on none will. False: too late.
    pub(super) fn revoke(&self, generation: u32) -> bool {
        self.swap(generation, State::Sent, State::Free)
    }

    /// What was captured, once the slot is `Done`.
    ///
    /// # Safety
    /// The table begins no other capture ([`Table::begin`]) while what is returned is in use.
    pub(super) unsafe fn content(&self, generation: u32) -> Option<&Content> {
        // SAFETY: `Done` is stored after the last write, and this generation's handler writes no more; by the contract
        // above there is no handler of another.
        self.is(generation, State::Done).then(|| unsafe { &*self.content.get() })
    }
}

/// All slots, the arena for stacks, and the words on which threads wait.
#[repr(C)]
pub(super) struct Table {
    /// Futex, and the capture in progress: threads of generation G stand still while this is G.
    pub(super) gate: AtomicU32,
    /// Futex: how many handlers have published.
    pub(super) arrived: AtomicU32,
    /// Handlers wake the capture when `arrived` comes to this.
    pub(super) target: AtomicU32,
    /// How many handlers are about to return.
    pub(super) left: AtomicU32,
    /// How many frozen threads waited too long and went on by themselves.
    pub(super) overslept: AtomicU32,
    /// The capturing thread, which never freezes.
    pub(super) capturer: AtomicI32,
    /// How the handler reads its stack.
    pub(super) memory: AtomicI32,
    /// The capture in progress.
    pub(super) generation: AtomicU32,
    /// Longest copy of one stack, in bytes; 0: none.
    pub(super) stack_limit: AtomicUsize,
    /// An address above all frames of the process's first thread, not far; 0: not known.
    pub(super) first_stack_end: AtomicU64,
    arena: *mut u8,
    arena_len: usize,
    arena_used: AtomicUsize,
    slots: *const Slot,
    slot_count: usize,
}

// SAFETY: the pointers are set once, before the table is shared, and lead to mappings that stay.
unsafe impl Sync for Table {}
// SAFETY: as above.
unsafe impl Send for Table {}

/// Each slot's share of the arena: a stack in use is a few kilobytes as a rule. Only pages that are
/// written take memory.
const ARENA_PER_SLOT: usize = 32 << 10;
const ARENA_BASE: usize = 16 << 20;
/// More than any processor saves of a thread's floating-point and vector registers.
pub(super) const MOST_VECTOR_BYTES: usize = 64 << 10;
/// Arena memory that is kept for the next capture.
const ARENA_KEPT: usize = 1 << 20;

impl Table {
    /// Maps a table for at least `threads` threads.
    pub(super) fn new(threads: usize) -> Result<&'static Self, SnapshotError> {
        let slot_count = threads.saturating_mul(2).next_power_of_two();
        let head = size_of::<Self>().next_multiple_of(align_of::<Slot>());
        let slot_bytes = slot_count.saturating_mul(size_of::<Slot>());
        let arena_at = head.saturating_add(slot_bytes).next_multiple_of(super::page_size());
        let arena_len = slot_count.saturating_mul(ARENA_PER_SLOT).saturating_add(ARENA_BASE);
        let wiped = arena_at.saturating_add(arena_len);
        let total = wiped.saturating_add(MOST_VECTOR_BYTES);
        room::expect(Amount::mapped(total as u64)).map_err(SnapshotError::Short)?;
        // SAFETY: a fresh anonymous mapping; zeroes are valid for every field (atomics, pointers, and
        // `Content`, which is plain numbers). It is as aligned as a page and is never unmapped.
        unsafe {
            let base = libc::mmap(
                std::ptr::null_mut(),
                total,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            );
            if base == libc::MAP_FAILED {
                return Err(SnapshotError::NoMemory(super::errno()));
            }
            // A child gets zeroes, which every handler takes for "no capture", and the threads that a fork stops do not
            // copy it page by page as they go on. Where the kernel is older than 4.14, they do.
            libc::madvise(base, wiped, libc::MADV_WIPEONFORK);
            let base = base.cast::<u8>();
            let table = base.cast::<Self>();
            (*table).slots = base.add(head).cast();
            (*table).slot_count = slot_count;
            (*table).arena = base.add(arena_at);
            (*table).arena_len = arena_len;
            Ok(&*table)
        }
    }

    /// Threads that it has room for: half of the slots, so that looking up stays short.
    pub(super) fn capacity(&self) -> usize {
        self.slot_count / 2
    }

    /// All of them, including those in use.
    fn slots(&self) -> &[Slot] {
        if self.slots.is_null() {
            // In a child that the program forked.
            return &[];
        }
        // SAFETY: mapped in `new`, for ever.
        unsafe { std::slice::from_raw_parts(self.slots, self.slot_count) }
    }

    /// The places where `tid` may be, nearest first.
    fn probe(&self, tid: i32) -> impl Iterator<Item = &Slot> {
        let slots = self.slots();
        let start = (tid as u32).wrapping_mul(0x9e37_79b1) as usize;
        let mask = slots.len().wrapping_sub(1);
        (0..slots.len()).filter_map(move |step| slots.get(start.wrapping_add(step) & mask))
    }

    /// The slot of thread `tid`. Async-signal-safe.
    pub(super) fn find(&self, tid: i32) -> Option<&Slot> {
        self.probe(tid)
            .find_map(|slot| match slot.tid.load(Ordering::Acquire) {
                0 => Some(None),
                found if found == tid => Some(Some(slot)),
                _ => None,
            })
            .flatten()
    }

    /// Gives `tid` a slot; the caller keeps to [`Self::capacity`].
    pub(super) fn insert(&self, tid: i32) -> Option<&Slot> {
        let slot = self.probe(tid).find(|slot| slot.tid.load(Ordering::Relaxed) == 0)?;
        slot.tid.store(tid, Ordering::Release);
        Some(slot)
    }

    /// Begins a capture.
    ///
    /// # Safety
    /// No handler of an earlier capture is inside, and nothing of it is in use: no [`Content`], and no
    /// [`Self::stack`]. `memory` is [`RawMemory`] of this process until the last handler of this capture has left.
    pub(super) unsafe fn begin(&self, capturer: i32, memory: RawMemory, stack_limit: usize) -> u32 {
        for slot in self.slots() {
            slot.word.store(0, Ordering::Release);
            slot.tid.store(0, Ordering::Release);
        }
        self.arrived.store(0, Ordering::Relaxed);
        self.target.store(u32::MAX, Ordering::Relaxed);
        self.left.store(0, Ordering::Relaxed);
        self.overslept.store(0, Ordering::Relaxed);
        self.capturer.store(capturer, Ordering::Relaxed);
        self.memory.store(memory, Ordering::Relaxed);
        self.stack_limit.store(stack_limit, Ordering::Relaxed);
        // SAFETY: only asks. The kernel puts these random bytes above the frames of `main` and what calls it (its
        // `create_elf_tables`).
        let first_stack_end = unsafe { libc::getauxval(libc::AT_RANDOM) };
        self.first_stack_end.store(first_stack_end, Ordering::Relaxed);
        self.arena_used.store(0, Ordering::Relaxed);
        // 0 means an open gate, so no generation is 0.
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1).max(1);
        self.generation.store(generation, Ordering::Release);
        generation
    }

    /// Has memory at hand for the stacks of so many threads, of so many bytes each: handlers would wait for it, page by
    /// page.
    pub(super) fn populate(&self, threads: usize, bytes: usize) {
        let len = threads.saturating_mul(bytes.min(ARENA_PER_SLOT)).min(self.arena_len);
        sys::populate(self.arena.addr() as u64, len as u64);
    }

    /// Takes up to `len` bytes of the arena: where, and how many. Async-signal-safe.
    pub(super) fn reserve(&self, len: usize) -> (usize, usize) {
        let len = len.min(self.arena_len);
        let at = self.arena_used.fetch_add(len, Ordering::Relaxed);
        (at, self.arena_len.saturating_sub(at).min(len))
    }

    /// The arena from `at` on. Async-signal-safe.
    pub(super) fn arena_at(&self, at: usize) -> *mut u8 {
        self.arena.wrapping_add(at.min(self.arena_len))
    }

    /// Room for [`MOST_VECTOR_BYTES`], which forked children have, too. Async-signal-safe.
    pub(super) fn vectors(&self) -> *mut u8 {
        self.arena.wrapping_add(self.arena_len)
    }

    /// A copied stack.
    ///
    /// # Safety
    /// `content` is of this table, which begins no other capture while what is returned is in use.
    pub(super) unsafe fn stack(&self, content: &Content) -> &[u8] {
        let end = content.stack_at.saturating_add(content.stack_len);
        if end > self.arena_len {
            return &[];
        }
        // SAFETY: inside the arena; the bytes were written before the slot was published, and no other
        // handler was given them.
        unsafe { std::slice::from_raw_parts(self.arena_at(content.stack_at), content.stack_len) }
    }

    /// Zeroes a copied stack, so that a search of memory does not take what is left of it for the program's.
    ///
    /// # Safety
    /// `content` is of this table, and nothing that [`Self::stack`] returned for it is in use.
    pub(super) unsafe fn forget_stack(&self, content: &Content) {
        let end = content.stack_at.saturating_add(content.stack_len);
        if end <= self.arena_len {
            // SAFETY: inside the arena, in the part that was given to this slot's handler, which is done; by the
            // contract above it is read no more.
            unsafe { std::ptr::write_bytes(self.arena_at(content.stack_at), 0, content.stack_len) };
        }
    }

    /// Returns the arena's memory to the system, but for a little.
    ///
    /// # Safety
    /// No handler is inside, and nothing that [`Self::stack`] returned is in use.
    pub(super) unsafe fn release_memory(&self) {
        let len = self.arena_len.saturating_sub(ARENA_KEPT);
        // SAFETY: parts of the mapping, page-aligned; by the contract above they are written before they are read again.
        unsafe {
            libc::madvise(self.arena_at(ARENA_KEPT).cast(), len, libc::MADV_DONTNEED);
            libc::madvise(self.vectors().cast(), MOST_VECTOR_BYTES, libc::MADV_DONTNEED);
        }
    }
}
