//! Memory that was freed, given back to the system.
//!
//! What a capture frees by the hundred megabytes stays with glibc's allocator as long as a small piece lies above it
//! in the same arena; and the answers of a server leave such pieces.

/// Less than that is left to the allocator.
const MUCH: u64 = 32 << 20;

/// How much anonymous memory the program had before something large was begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before(Option<u64>);

impl Before {
    pub(crate) fn now() -> Self {
        Self(anonymous())
    }

    /// What the program has grown by since. To be asked as soon as the large thing is done: later, what the program does
    /// itself would count.
    pub(crate) fn grown(self) -> Grown {
        let grown = self.0.zip(anonymous()).map(|(before, now)| (before, now.saturating_sub(before)));
        Grown(grown.is_some_and(|(before, grown)| grown >= MUCH.max(before / 4)))
    }
}

/// Whether something large has made the program grow by much.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Grown(bool);

impl Grown {
    /// Whether one of two has.
    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 || other.0)
    }

    /// Gives back what was freed, where that may be much. While it does, an arena of the allocator is locked for as long
    /// as its free pages take: a program that is large beside what delouse used is left alone, for most of what is free
    /// may be its own. To be called on the thread that needed the memory, whose arena has no other user as a rule.
    pub(crate) fn give_back(self) {
        if self.0 {
            give_back();
        }
    }
}

/// Gives back what is free, however little that may be.
pub(crate) fn give_back() {
    trim();
    trim_end();
}

/// Anonymous memory of this process, in bytes; `None` where `/proc` does not tell.
fn anonymous() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// Bytes of a page, which is not 4,096 everywhere.
pub(super) fn page_size() -> usize {
    // SAFETY: only asks.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: it takes the allocator's own locks, and touches free memory only. Whether it gave any back does not
    // matter.
    unsafe { libc::malloc_trim(0) };
}

/// What is free at the upper end of this thread's arena, too, which `malloc_trim` leaves there: up to twice the largest
/// block that was ever mapped by itself and freed, and that is up to 32 MB (`M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD` in
/// mallopt(3)). It is taken in blocks, which are emptied and freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim_end() {
    /// In bytes. Where such a block is mapped by itself, there is not much more than that at the end.
    const BLOCK: usize = 1 << 20;
    const BLOCKS: usize = (64 << 20) / BLOCK;

    let page = page_size();
    let mut blocks = Vec::<Vec<u8>>::new();
    if blocks.try_reserve_exact(BLOCKS).is_err() {
        return;
    }
    while blocks.len() < BLOCKS {
        let mut block = Vec::new();
        if block.try_reserve_exact(BLOCK).is_err() {
            break;
        }
        let begin = block.spare_capacity_mut().as_mut_ptr();
        let skipped = begin.align_offset(page);
        let length = BLOCK.saturating_sub(skipped) / page * page;
        // SAFETY: these pages lie in the block, which is ours alone and has no contents.
        let emptied =
            unsafe { libc::madvise(begin.wrapping_add(skipped).cast(), length, libc::MADV_DONTNEED) };
        blocks.push(block);
        if emptied != 0 {
            // Locked in memory (`mlockall`): more would be taken, and none given back.
            break;
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim_end() {}
