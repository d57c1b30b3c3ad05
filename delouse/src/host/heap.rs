//! Returns freed memory to the system.
//!
//! A capture allocates and frees hundreds of megabytes. glibc keeps freed memory as long as a small allocation is stored
//! above it in the same arena, and requests to the server leave such allocations.

pub(crate) use rustix::param::page_size;

use super::proc_text::size_field;

/// Growth below this stays with the allocator.
const LARGE: u64 = 32 << 20;

/// Anonymous memory of the process before a large operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Baseline(Option<u64>);

impl Baseline {
    pub(crate) fn now() -> Self {
        Self(anonymous())
    }

    /// Measures the growth since. Call this directly after the operation, or the program's own allocations are included.
    pub(crate) fn growth(self) -> Growth {
        let growth = self.0.zip(anonymous()).map(|(before, now)| (before, now.saturating_sub(before)));
        Growth(growth.is_some_and(|(before, growth)| growth >= LARGE.max(before / 4)))
    }
}

/// Whether a large operation made the process grow by so much that its freed memory should be returned.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Growth(bool);

impl Growth {
    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 || other.0)
    }

    /// Returns freed memory to the system if the growth was large, both in bytes and relative to the program.
    ///
    /// Each arena of the allocator is locked while its free pages are returned. In a program that is much larger than what
    /// delouse used, most free pages are the program's own: there, this does nothing. Call it on the thread that made the
    /// allocations, because the arena of that thread usually has no other user.
    pub(crate) fn release_freed(self) {
        if self.0 {
            release_freed();
        }
    }
}

/// Returns all freed memory to the system.
pub(crate) fn release_freed() {
    let before = anonymous().unwrap_or(0);
    trim();
    trim_end(before.saturating_sub(anonymous().unwrap_or(0)));
}

/// Anonymous memory of this process, in bytes; `None` if `/proc` does not report it.
fn anonymous() -> Option<u64> {
    size_field(&std::fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: it takes the allocator's own locks and touches only free memory.
    unsafe { libc::malloc_trim(0) };
}

/// Returns the free pages at the upper end of this thread's arena, which `malloc_trim` keeps: up to twice the size of the
/// largest block that was ever mapped separately and freed, which is up to 32 MB (`M_MMAP_THRESHOLD` and
/// `M_TRIM_THRESHOLD` in mallopt(3)). Allocates this memory in blocks, returns their pages, and frees the blocks. The
/// allocator takes such blocks from other free memory first, which is about the `trimmed` bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim_end(trimmed: u64) {
    /// In bytes. If the allocator maps such a block separately, its arena has little more than this free at the end.
    const BLOCK: usize = 1 << 20;
    const END: u64 = 64 << 20;

    let page = page_size();
    let most = (trimmed.saturating_add(END) / BLOCK as u64) as usize;
    let mut blocks = Vec::<Vec<u8>>::new();
    if blocks.try_reserve_exact(most).is_err() {
        return;
    }
    while blocks.len() < most {
        let mut block = Vec::new();
        if block.try_reserve_exact(BLOCK).is_err() {
            break;
        }
        let begin = block.spare_capacity_mut().as_mut_ptr();
        let skipped = begin.align_offset(page);
        let length = BLOCK.saturating_sub(skipped) / page * page;
        // SAFETY: these pages are within the block, which this function owns and which has no contents.
        let emptied =
            unsafe { libc::madvise(begin.wrapping_add(skipped).cast(), length, libc::MADV_DONTNEED) };
        blocks.push(block);
        if emptied != 0 {
            // Memory is locked (`mlockall`): further blocks would add pages and return none.
            break;
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim_end(_trimmed: u64) {}
