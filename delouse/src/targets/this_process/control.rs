//! The memory that a forked child and its parent share: requests and answers.

use std::ops::Range;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use super::batches::Batches;
use crate::snapshot::{Address, Mapping};
use crate::targets::SnapshotError;

/// How often a wait for the child checks whether it is alive, in nanoseconds.
pub(super) const ALIVE_INTERVAL: u64 = 10_000_000;
/// The most mappings that one request has the child unmap.
const RELEASED_AT_ONCE: usize = 64;

/// The layout of the shared memory.
#[repr(C)]
pub(super) struct Control {
    /// Futex: 1 once the child has opened its files.
    pub(super) ready: AtomicU32,
    /// 1 once the parent has opened the child's files.
    pub(super) opened: AtomicU32,
    /// A [`super::child::ExitReason`], stored before the child exits by itself.
    pub(super) ended: AtomicU32,
    /// Futex: number of the parent's latest request.
    pub(super) request: AtomicU32,
    /// Futex: number of the latest answered request.
    pub(super) reply: AtomicU32,
    /// Request: memory to write to the pipe.
    pub(super) address: AtomicU64,
    pub(super) len: AtomicU64,
    /// Answer: bytes written to the pipe.
    pub(super) written: AtomicU64,
    /// Request: start and end of mappings to unmap, up to the first empty one.
    released: [[AtomicU64; 2]; RELEASED_AT_ONCE],
    /// 1: the child shares the program's table of open files, and opens there the files that the parent reads.
    pub(super) shares_files: AtomicU32,
    /// Descriptors that the child has opened in that table, or negated error numbers.
    pub(super) memory: AtomicI32,
    pub(super) maps: AtomicI32,
    pub(super) pagemap: AtomicI32,
    pub(super) pipe: [AtomicI32; 2],
    /// `memory.stat` of the cgroup, if the child could not get its own table.
    pub(super) memory_stat: AtomicI32,
    /// The child's pidfd in that table, stored by the kernel.
    pub(super) pidfd: AtomicI32,
    /// When the child exits, unless its memory is read before.
    pub(super) deadline: AtomicU64,
    /// When the child exits at the latest.
    pub(super) latest: AtomicU64,
    /// How long the fork took.
    pub(super) fork_nanos: AtomicU64,
    /// The program's process id, and the id of its thread that forked the child.
    pub(super) parent: AtomicI32,
    pub(super) forker: AtomicI32,
    /// Address of the path of the cgroup's `memory.stat`, or 0; if the anonymous memory reported there exceeds the
    /// ceiling, in bytes, the child exits.
    pub(super) memory_stat_path: AtomicU64,
    pub(super) memory_ceiling: AtomicU64,
    /// Number of batches that the parent has requested, and (futex) how many of them are done.
    pub(super) batches_asked: AtomicU32,
    pub(super) batches_done: AtomicU32,
    pub(super) batches: Batches,
}

impl Control {
    /// All fields that contain descriptors.
    fn descriptors(&self) -> [&AtomicI32; 7] {
        let [read_end, write_end] = &self.pipe;
        [&self.memory, &self.maps, &self.pagemap, read_end, write_end, &self.memory_stat, &self.pidfd]
    }

    /// Takes ownership of the descriptor in `place`. The error is an error number.
    pub(super) fn take(place: &AtomicI32) -> Result<i32, i32> {
        let fd = place.swap(-libc::EBADF, Ordering::AcqRel);
        if fd < 0 { Err(fd.wrapping_neg()) } else { Ok(fd) }
    }

    /// Stores the first of `ranges` as a request to unmap them. Returns those that did not fit.
    pub(super) fn ask_to_release<'r>(&self, ranges: &'r [Range<u64>]) -> &'r [Range<u64>] {
        let (now, later) = ranges.split_at(ranges.len().min(RELEASED_AT_ONCE));
        for ([start, end], range) in self.released.iter().zip(now) {
            start.store(range.start, Ordering::Relaxed);
            end.store(range.end, Ordering::Relaxed);
        }
        later
    }

    /// Takes the ranges that [`Self::ask_to_release`] stored. Runs in the child.
    pub(super) fn released(&self) -> impl Iterator<Item = Range<u64>> {
        let taken = self
            .released
            .iter()
            .map(|[start, end]| start.swap(0, Ordering::Relaxed)..end.swap(0, Ordering::Relaxed));
        taken.take_while(|range| !range.is_empty())
    }
}

/// A [`Control`] in shared memory. The kernel allocates only the pages that are written.
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

    /// Whether `mapping` is this memory.
    pub(super) fn is_in(&self, mapping: &Mapping) -> bool {
        mapping.range.contains(&Address::new(self.0.addr() as u64))
    }

    /// Excludes it from later forks, whose images would have to be searched for it. Call this once the child exists.
    pub(super) fn exclude_from_forks(&self) {
        // SAFETY: the advice does not change the contents of the mapping.
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
        // SAFETY: mapped in `new`; the child has its own mapping of this memory.
        unsafe { libc::munmap(self.0.cast(), size_of::<Control>()) };
    }
}
