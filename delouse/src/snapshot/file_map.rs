//! Files mapped for reading.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// Maps `path` read-only and private. Costs address space, and memory only for what is read.
pub(crate) fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: an executable that runs cannot be written (ETXTBSY), and separate debug files are replaced,
    // not rewritten, by every tool that makes them. Truncation under our hands would end in SIGBUS; that
    // risk is the one that every debugger and every dynamic loader takes.
    unsafe { Mmap::map(&file) }
}
