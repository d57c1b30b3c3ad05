//! Memory that the helper process shares with the process that started it: its results.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

use crate::targets::other_process::sample::{STACK, Sample};

/// Threads that start during the capture have room as well.
const SPARE: usize = 64;

/// How the capture ended, in numbers that both processes can read and write at any time.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Header {
    /// A [`super::helper::Step`]: the last one that was begun.
    pub(super) step: AtomicU32,
    /// A [`super::Refusal`] by number, if there is no image; 0 otherwise.
    pub(super) refusal: AtomicU32,
    pub(super) errno: AtomicI32,
    /// The image; 0 if there is none.
    pub(super) child: AtomicI32,
    /// How long all threads were stopped that ran, in nanoseconds.
    pub(super) pause: AtomicU64,
    /// The longest time that one thread was stopped, in nanoseconds.
    pub(super) held: AtomicU64,
    /// How many samples there are.
    pub(super) threads: AtomicU32,
    /// Whether all is captured that can be.
    pub(super) done: AtomicU32,
}

/// The shared memory.
#[derive(Debug)]
pub(super) struct Board {
    memory: NonNull<u8>,
    length: usize,
    capacity: usize,
}

// SAFETY: the memory belongs to the board, as that of a `Box` does.
unsafe impl Send for Board {}
// SAFETY: shared references give atomic numbers only.
unsafe impl Sync for Board {}

/// The parts of a board, for the one process that uses them.
pub(super) struct Parts<'b> {
    pub(super) header: &'b Header,
    pub(super) samples: &'b mut [Sample],
    /// Room for a copy of each thread's stack.
    pub(super) stacks: &'b mut [u8],
}

impl Board {
    /// A board for `threads` threads and some more. `None` if there is no memory.
    pub(super) fn new(threads: usize) -> Option<Self> {
        let capacity = threads.checked_add(SPARE)?;
        let length = Self::stacks(capacity)?.end;
        // SAFETY: a new mapping. Pages are allocated when they are written.
        let memory = unsafe {
            let (protection, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            );
            libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0)
        };
        if memory == libc::MAP_FAILED {
            return None;
        }
        Some(Self { memory: NonNull::new(memory.cast())?, length, capacity })
    }

    /// Offset of the samples.
    const SAMPLES: usize = size_of::<Header>().next_multiple_of(64);

    /// Offsets of the stacks.
    fn stacks(capacity: usize) -> Option<Range<usize>> {
        let start = capacity.checked_mul(size_of::<Sample>())?.checked_add(Self::SAMPLES)?;
        let start = start.checked_next_multiple_of(4096)?;
        Some(start..capacity.checked_mul(STACK)?.checked_add(start)?)
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: the mapping begins with it, and is aligned to a page; all its fields are atomic, and zeroes are valid.
        unsafe { self.memory.cast::<Header>().as_ref() }
    }

    /// All parts.
    ///
    /// # Safety
    /// No other process uses the samples and the stacks while these exist: the helper until it has finished or has
    /// reported that it is done, the other process afterwards.
    pub(super) unsafe fn parts(&mut self) -> Parts<'_> {
        let stacks = Self::stacks(self.capacity).unwrap_or(self.length..self.length);
        // SAFETY: the three parts are within the mapping and do not overlap; zeroes are valid for all of them.
        unsafe {
            let samples = self.memory.add(Self::SAMPLES).cast::<Sample>();
            let start = self.memory.add(stacks.start);
            Parts {
                header: self.memory.cast::<Header>().as_ref(),
                samples: std::slice::from_raw_parts_mut(samples.as_ptr(), self.capacity),
                stacks: std::slice::from_raw_parts_mut(start.as_ptr(), stacks.len()),
            }
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}

/// The room for the stack of the thread with this number.
pub(super) fn stack_of(stacks: &mut [u8], index: usize) -> &mut [u8] {
    let start = index.saturating_mul(STACK);
    stacks.get_mut(start..start.saturating_add(STACK)).unwrap_or_default()
}
