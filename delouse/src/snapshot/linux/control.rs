//! The memory that a forked child and its parent share: what is asked, and what is answered.

use std::ops::Range;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use super::search::Batches;
use crate::snapshot::{Mapping, SnapshotError};

/// Mappings that the child gives up at one request.
const RELEASED_AT_ONCE: usize = 64;

/// The memory that parent and child share.
#[repr(C)]
pub(super) struct Control {
    /// Futex: 1 once the child has done what it does first.
    pub(super) ready: AtomicU32,
    /// 1 once the parent has opened the child's files.
    pub(super) opened: AtomicU32,
    /// A [`super::child::Ended`], before the child ends by itself.
    pub(super) ended: AtomicU32,
    /// Futex: number of the parent's latest request.
    pub(super) request: AtomicU32,
    /// Futex: number of the latest request that is answered.
    pub(super) reply: AtomicU32,
    /// The request: memory to write into the pipe.
    pub(super) address: AtomicU64,
    pub(super) len: AtomicU64,
    /// The answer: bytes written.
    pub(super) written: AtomicU64,
    /// The request: mappings to give up, each with its start and its end, up to the first that is empty.
    released: [[AtomicU64; 2]; RELEASED_AT_ONCE],
    /// 1: the child has the program's table of open files, and opens in it what the parent reads.
    pub(super) shares_files: AtomicU32,
    /// Descriptors that the child opened in that table; below 0, why there is none: the error number, negated.
    pub(super) memory: AtomicI32,
    pub(super) maps: AtomicI32,
    pub(super) pagemap: AtomicI32,
    pub(super) pipe: [AtomicI32; 2],
    /// `memory.stat` of the cgroup, where the child could not get a table of its own.
    pub(super) memory_stat: AtomicI32,
    /// The child's pidfd in that table, which the kernel writes.
    pub(super) pidfd: AtomicI32,
    /// When the child ends by itself.
    pub(super) deadline: AtomicU64,
    /// How long the fork took.
    pub(super) fork_nanos: AtomicU64,
    /// The process that the image is of, and its thread that forked.
    pub(super) parent: AtomicI32,
    pub(super) forker: AtomicI32,
    /// Address of the path of the cgroup's `memory.stat`, or 0, and the anonymous bytes there above which the child
    /// gives up.
    pub(super) memory_stat_path: AtomicU64,
    pub(super) memory_ceiling: AtomicU64,
    /// How many batches the parent has handed over, and (futex) how many of them are done.
    pub(super) batches_asked: AtomicU32,
    pub(super) batches_done: AtomicU32,
    pub(super) batches: Batches,
}

impl Control {
    /// The places of descriptors.
    fn descriptors(&self) -> [&AtomicI32; 7] {
        let [read_end, write_end] = &self.pipe;
        [&self.memory, &self.maps, &self.pagemap, read_end, write_end, &self.memory_stat, &self.pidfd]
    }

    /// Takes the descriptor out of `place`, or the error number.
    pub(super) fn take(place: &AtomicI32) -> Result<i32, i32> {
        let fd = place.swap(-libc::EBADF, Ordering::AcqRel);
        if fd < 0 { Err(fd.wrapping_neg()) } else { Ok(fd) }
    }

    /// Asks the child to give up as many of `ranges` as there is room for. Returns the others.
    pub(super) fn ask_to_release<'r>(&self, ranges: &'r [Range<u64>]) -> &'r [Range<u64>] {
        let (now, later) = ranges.split_at(ranges.len().min(RELEASED_AT_ONCE));
        for ([start, end], range) in self.released.iter().zip(now) {
            start.store(range.start, Ordering::Relaxed);
            end.store(range.end, Ordering::Relaxed);
        }
        later
    }

    /// Takes what [`Self::ask_to_release`] asked for. In the child.
    pub(super) fn released(&self) -> impl Iterator<Item = Range<u64>> {
        let taken = self
            .released
            .iter()
            .map(|[start, end]| start.swap(0, Ordering::Relaxed)..end.swap(0, Ordering::Relaxed));
        taken.take_while(|range| !range.is_empty())
    }
}

/// A [`Control`] in memory that the child shares; most of it is never written, and takes none.
#[derive(Debug)]
pub(super) struct ControlPage(*mut Control);

// SAFETY: everything in a `Control` is atomic; the mapping lives as long as this.
unsafe impl Send for ControlPage {}
// SAFETY: as above.
unsafe impl Sync for ControlPage {}

impl ControlPage {
    pub(super) fn new() -> Result<Self, SnapshotError> {
        // SAFETY: a fresh mapping, for which zeroes are valid.
        unsafe {
            let page = libc::mmap(
                std::ptr::null_mut(),
                size_of::<Control>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            );
            if page == libc::MAP_FAILED {
                return Err(SnapshotError::NoMemory(super::errno()));
            }
            let control = Self(page.cast());
            for fd in control.descriptors() {
                fd.store(-libc::EBADF, Ordering::Relaxed);
            }
            Ok(control)
        }
    }

    /// Whether `mapping` is this memory, which is none of the program's.
    pub(super) fn is_in(&self, mapping: &Mapping) -> bool {
        mapping.range.contains(&(self.0.addr() as u64))
    }

    /// Once the child has it: other images need not have it in them, to be looked through.
    pub(super) fn keep_to_ourselves(&self) {
        // SAFETY: advice about a mapping of our own, which changes nothing in it.
        unsafe { libc::madvise(self.0.cast(), size_of::<Control>(), libc::MADV_DONTFORK) };
    }
}

impl std::ops::Deref for ControlPage {
    type Target = Control;

    fn deref(&self) -> &Control {
        // SAFETY: mapped in `new` until dropped.
        unsafe { &*self.0 }
    }
}

impl Drop for ControlPage {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; the child that shared it is gone, or has its own mapping.
        unsafe { libc::munmap(self.0.cast(), size_of::<Control>()) };
    }
}
