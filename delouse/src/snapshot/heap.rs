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
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grown(bool);

impl Grown {
    /// Gives back what was freed, where that may be much. While it does, an arena of the allocator is locked for as long
    /// as its free pages take: a program that is large beside what delouse used is left alone, for most of what is free
    /// may be its own.
    pub(crate) fn give_back(self) {
        if self.0 {
            trim();
        }
    }
}

/// Anonymous memory of this process, in bytes; `None` where `/proc` does not tell.
fn anonymous() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: it takes the allocator's own locks, and touches free memory only. Whether it gave any back does not
    // matter.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
