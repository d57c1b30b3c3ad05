//! Memory for copies of the program's memory and of files.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Zeroed memory that forks do not copy, and that is unmapped on drop.
///
/// A copy of a task's memory looks like a task. If it were on the heap, even freed, the next scan of memory would report
/// it. Memory that is not copied also does not make forks slower.
pub(crate) struct Scratch {
    map: Option<MmapMut>,
}

impl Scratch {
    /// Maps `length` bytes; the result is empty if that fails. The kernel allocates pages when they are first written.
    pub(crate) fn new(length: usize) -> Self {
        let map = MmapMut::map_anon(length).ok();
        #[cfg(target_os = "linux")]
        if let Some(map) = &map {
            // If the kernel refuses, forked images contain these copies: tasks may be reported twice.
            let _in_images = map.advise(memmap2::Advice::DontFork);
        }
        Self { map }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.map.as_deref_mut().unwrap_or_default()
    }
}
