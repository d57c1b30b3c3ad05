//! Memory for the results of signal handlers: one slot per thread, allocated before any signal is sent.
//!
//! A table is never unmapped, because a late handler may still read it. A handler claims its slot by compare-and-swap
//! before it writes to it. The swapped word contains the generation of the capture, so that a handler that is delayed until
//! the next capture does not claim a slot of that.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::arch::SignalContext;
use super::memory::RawMemory;
use super::stop_order::StopGroup;
use super::sys;
use crate::host::memory_budget::{self, Amount};
use crate::targets::SnapshotError;

/// The table that handlers use; null before the first capture.
pub(super) static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());

/// The state of a slot: the lower bits of its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum SlotState {
    /// No handler may claim the slot.
    Free = 0,
    /// The signal is sent: the thread's handler may claim the slot.
    Sent = 1,
    /// A handler is writing.
    Claimed = 2,
    /// The handler has written the slot: the capture may read it.
    Done = 3,
}

/// One thread's part of a capture.
#[repr(C, align(64))]
pub(super) struct Slot {
    tid: AtomicI32,
    /// Generation (upper 56 bits) and [`SlotState`].
    word: AtomicU64,
    /// Times at which the handler was entered and was about to return, by [`super::sys::now`].
    pub(super) entered: AtomicU64,
    pub(super) left: AtomicU64,
    /// A [`StopGroup`].
    group: AtomicU32,
    content: UnsafeCell<Content>,
}

/// The data that a handler writes. Owned by the handler that has claimed the slot, and by the capture once it is `Done`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    pub(super) context: SignalContext,
    /// Address of the handler's variables: on the thread's stack below the interrupted frame, or on its alternate signal
    /// stack.
    pub(super) handler_at: u64,
    pub(super) alternate: AlternateStack,
    /// The copied stack: offset in the table's arena, and length. It starts at the stack pointer.
    pub(super) stack_at: usize,
    pub(super) stack_len: usize,
    /// The copy is incomplete, because it reached the limit or the arena was full.
    pub(super) stack_cut: bool,
}

/// A thread's alternate signal stack; empty if it has none.
#[derive(Debug, Clone, Copy)]
pub(super) struct AlternateStack {
    start: u64,
    size: u64,
}

impl AlternateStack {
    /// The stack of the calling thread. Async-signal-safe.
    ///
    /// # Safety
    /// `ucontext` is the third argument of a handler installed with `SA_SIGINFO`, which has not returned.
    pub(super) unsafe fn from_ucontext(ucontext: *const c_void) -> Self {
        // SAFETY: by the contract above; the kernel writes `uc_stack` (`save_altstack_ex`, Linux signal.c).
        let stack = unsafe { std::ptr::addr_of!((*ucontext.cast::<libc::ucontext_t>()).uc_stack).read() };
        Self { start: stack.ss_sp.addr() as u64, size: stack.ss_size as u64 }
    }

    /// Bytes left on it below the calling function; `u64::MAX` if the caller runs on another stack.
    ///
    /// std's threads have 8 kB. If the capture interrupts another handler there, two signal frames with vector registers
    /// leave little: the handler then returns at once instead of overflowing the stack.
    pub(super) fn bytes_left(&self) -> u64 {
        let here = (&raw const *self).addr() as u64;
        let left = here.wrapping_sub(self.start);
        if left < self.size { left } else { u64::MAX }
    }

    /// Its addresses; `None` if there is none.
    pub(super) fn range(&self) -> Option<Range<u64>> {
        (self.size > 0).then(|| self.start..self.start.saturating_add(self.size))
    }
}

// SAFETY: `content` is accessed by `Slot::claim_and_write` and `Slot::content` only, which synchronise by `word`; all other
// fields are atomic.
unsafe impl Sync for Slot {}

impl Slot {
    fn pack(generation: u32, state: SlotState) -> u64 {
        (u64::from(generation) << 8) | state as u64
    }

    pub(super) fn is(&self, generation: u32, state: SlotState) -> bool {
        self.word.load(Ordering::Acquire) == Self::pack(generation, state)
    }

    fn swap(&self, generation: u32, from: SlotState, to: SlotState) -> bool {
        let (from, to) = (Self::pack(generation, from), Self::pack(generation, to));
        self.word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Claims the slot, calls `write`, and publishes the result. Returns false, without a call, if the signal of this
    /// generation was not sent or the slot was revoked. Async-signal-safe.
    pub(super) fn claim_and_write(&self, generation: u32, write: impl FnOnce(&mut Content)) -> bool {
        if !self.swap(generation, SlotState::Sent, SlotState::Claimed) {
            return false;
        }
        // SAFETY: the swap succeeds once per generation, and the capture reads only after `Done`, so that this is the only
        // reference.
        write(unsafe { &mut *self.content.get() });
        self.word.store(Self::pack(generation, SlotState::Done), Ordering::Release);
        true
    }

    /// Resets the slot. Call this before [`Self::announce`].
    pub(super) fn prepare(&self, group: StopGroup) {
        self.left.store(0, Ordering::Relaxed);
        self.set_group(group);
    }

    /// Lets a handler claim the slot. Call this after the gate is closed, directly before the signal is sent. A pending
    /// signal of an earlier capture may cause the claim as well.
    pub(super) fn announce(&self, generation: u32) {
        self.word.store(Self::pack(generation, SlotState::Sent), Ordering::Release);
    }

    /// Call this before the signal is sent.
    pub(super) fn set_group(&self, group: StopGroup) {
        self.group.store(group as u32, Ordering::Relaxed);
    }

    /// The thread's [`StopGroup`], as a bit. Async-signal-safe.
    pub(super) fn group(&self) -> u32 {
        self.group.load(Ordering::Relaxed)
    }

    /// Prevents the slot from being claimed. Returns false if a handler has claimed it already.
    pub(super) fn revoke(&self, generation: u32) -> bool {
        self.swap(generation, SlotState::Sent, SlotState::Free)
    }

    /// The captured data; `None` unless the slot is `Done`.
    ///
    /// # Safety
    /// The table begins no other capture ([`Table::begin`]) while the returned reference is in use.
    pub(super) unsafe fn content(&self, generation: u32) -> Option<&Content> {
        // SAFETY: `Done` is stored after the last write of this generation's handler; by the contract above, no handler of
        // another generation writes.
        self.is(generation, SlotState::Done).then(|| unsafe { &*self.content.get() })
    }
}

/// All slots, the arena for copied stacks, and the futexes on which threads wait.
#[repr(C)]
pub(super) struct Table {
    /// Futex: threads captured in generation G wait while this is G.
    pub(super) gate: AtomicU32,
    /// Futex: number of handlers that have published.
    pub(super) arrived: AtomicU32,
    /// The handler that raises `arrived` to this wakes the capturing thread.
    pub(super) target: AtomicU32,
    /// Number of handlers that are about to return.
    pub(super) left: AtomicU32,
    /// Number of held threads that resumed by themselves because the capture took too long.
    pub(super) overslept: AtomicU32,
    /// The capturing thread, which is not held.
    pub(super) capturer: AtomicI32,
    /// A [`RawMemory`], by which handlers read their stacks.
    pub(super) memory: AtomicI32,
    /// Number of the current capture.
    pub(super) generation: AtomicU32,
    /// At most this many bytes of each stack are copied; 0: stacks are not copied.
    pub(super) stack_limit: AtomicUsize,
    /// An address shortly above all frames of the process's first thread; 0 if not known.
    pub(super) first_stack_end: AtomicU64,
    arena: *mut u8,
    arena_len: usize,
    arena_used: AtomicUsize,
    slots: *const Slot,
    slot_count: usize,
}

// SAFETY: the pointers are set once, before the table is shared, and their mappings are never unmapped.
unsafe impl Sync for Table {}
// SAFETY: as above.
unsafe impl Send for Table {}

/// Bytes of the arena per slot. The used part of a stack is usually a few kilobytes. Only written pages take memory.
const ARENA_PER_SLOT: usize = 32 << 10;
const ARENA_BASE: usize = 16 << 20;
/// An upper bound of the size of a thread's floating-point and vector registers.
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
        memory_budget::check(Amount::mapped(total as u64))?;
        // SAFETY: a fresh anonymous mapping, aligned to pages and never unmapped; zeroes are valid for every field (atomics,
        // pointers, and `Content`, which is plain numbers).
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
            // In forked children the table reads as zeroes, which means to handlers that there is no capture. Also, threads
            // that resume after a fork do not have to copy its pages. Kernels before 4.14 do not support this.
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

    /// The most threads: half of the slots, so that few slots are probed to find one.
    pub(super) fn capacity(&self) -> usize {
        self.slot_count / 2
    }

    fn slots(&self) -> &[Slot] {
        if self.slots.is_null() {
            // This is a forked child of the program.
            return &[];
        }
        // SAFETY: mapped in `new`, and never unmapped.
        unsafe { std::slice::from_raw_parts(self.slots, self.slot_count) }
    }

    /// The slots that `tid` may have, in the order of probing.
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

    /// Gives `tid` a slot. The caller must not exceed [`Self::capacity`].
    pub(super) fn insert(&self, tid: i32) -> Option<&Slot> {
        let slot = self.probe(tid).find(|slot| slot.tid.load(Ordering::Relaxed) == 0)?;
        slot.tid.store(tid, Ordering::Release);
        Some(slot)
    }

    /// Begins a capture. Returns its generation.
    ///
    /// # Safety
    /// All handlers of earlier captures have returned, and no [`Content`] or [`Self::stack`] of them is in use. `memory` is
    /// valid until the last handler of this capture has returned.
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
        // SAFETY: reads a constant of the process. The kernel stores these random bytes above the frames of `main` and its
        // callers (`create_elf_tables`).
        let first_stack_end = unsafe { libc::getauxval(libc::AT_RANDOM) };
        self.first_stack_end.store(first_stack_end, Ordering::Relaxed);
        self.arena_used.store(0, Ordering::Relaxed);
        // Generations are not 0, which means an open gate.
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1).max(1);
        self.generation.store(generation, Ordering::Release);
        generation
    }

    /// Allocates memory for the stacks of `threads` threads, of `bytes` bytes each, so that handlers do not cause page
    /// faults.
    pub(super) fn populate(&self, threads: usize, bytes: usize) {
        let len = threads.saturating_mul(bytes.min(ARENA_PER_SLOT)).min(self.arena_len);
        sys::populate(self.arena.addr() as u64, len as u64);
    }

    /// Reserves up to `len` bytes of the arena. Returns their offset and their number. Async-signal-safe.
    pub(super) fn reserve(&self, len: usize) -> (usize, usize) {
        let len = len.min(self.arena_len);
        let at = self.arena_used.fetch_add(len, Ordering::Relaxed);
        (at, self.arena_len.saturating_sub(at).min(len))
    }

    /// The address of offset `at` in the arena. Async-signal-safe.
    pub(super) fn arena_at(&self, at: usize) -> *mut u8 {
        self.arena.wrapping_add(at.min(self.arena_len))
    }

    /// A buffer of [`MOST_VECTOR_BYTES`], which is also copied to forked children. Async-signal-safe.
    pub(super) fn vectors(&self) -> *mut u8 {
        self.arena.wrapping_add(self.arena_len)
    }

    /// A copied stack.
    ///
    /// # Safety
    /// `content` is of this table, which begins no other capture while the returned slice is in use.
    pub(super) unsafe fn stack(&self, content: &Content) -> &[u8] {
        let end = content.stack_at.saturating_add(content.stack_len);
        if end > self.arena_len {
            return &[];
        }
        // SAFETY: within the arena; the bytes were written before the slot was published, and are reserved for its handler.
        unsafe { std::slice::from_raw_parts(self.arena_at(content.stack_at), content.stack_len) }
    }

    /// Zeroes a copied stack, so that the scan for tasks does not find stale pointers in it.
    ///
    /// # Safety
    /// `content` is of this table, and no slice that [`Self::stack`] returned for it is in use.
    pub(super) unsafe fn forget_stack(&self, content: &Content) {
        let end = content.stack_at.saturating_add(content.stack_len);
        if end <= self.arena_len {
            // SAFETY: within the arena, in the part reserved for the handler of this slot, which has returned; by the
            // contract above it is not read any more.
            unsafe { std::ptr::write_bytes(self.arena_at(content.stack_at), 0, content.stack_len) };
        }
    }

    /// Returns the arena's memory to the system, except [`ARENA_KEPT`] bytes.
    ///
    /// # Safety
    /// All handlers have returned, and no slice that [`Self::stack`] returned is in use.
    pub(super) unsafe fn release_memory(&self) {
        let len = self.arena_len.saturating_sub(ARENA_KEPT);
        // SAFETY: page-aligned parts of the mapping; by the contract above they are not read before they are written again.
        unsafe {
            libc::madvise(self.arena_at(ARENA_KEPT).cast(), len, libc::MADV_DONTNEED);
            libc::madvise(self.vectors().cast(), MOST_VECTOR_BYTES, libc::MADV_DONTNEED);
        }
    }
}
