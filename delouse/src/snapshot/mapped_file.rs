//! A file as bytes, mapped rather than read: debug information of a gigabyte costs only what is touched.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a regular file, mapped read-only.
#[derive(Debug)]
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// The system's error where it cannot be opened or mapped; `InvalidInput` for what is not a regular
    /// file (opening a FIFO would wait for a writer).
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = File::open(path)?;
        // SAFETY: the mapping is private and read-only. Executables, libraries and their debug files are
        // replaced by renaming, never rewritten in place (the kernel refuses to write to a running one),
        // so that the bytes stay what they are while they are mapped.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
