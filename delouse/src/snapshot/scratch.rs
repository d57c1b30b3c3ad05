//! Memory for copies: of the program's memory, and of files.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Zeroed memory that no image of this process has in it, and that is gone when it is dropped.
///
/// What a capture reads looks just like what it was read from: copies that lie about on the heap, even freed,
/// would be found by the next scan of memory as tasks that are long gone. And a fork takes no longer for it.
pub(crate) struct Scratch {
    map: Option<MmapMut>,
}

impl Scratch {
    /// `length` bytes, or none where there is no memory. The kernel gives pages when they are first written.
    pub(crate) fn new(length: usize) -> Self {
        let map = MmapMut::map_anon(length).ok();
        #[cfg(target_os = "linux")]
        if let Some(map) = &map {
            // Where the kernel refuses, images hold copies for as long as these live: no harm is done.
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
