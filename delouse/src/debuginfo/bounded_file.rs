//! A file that is read in small pieces, never as a whole, and never through a mapping.
//!
//! A mapping would be simpler, but the kernel sends SIGBUS to a program that reads a mapped file after it was truncated
//! (`cp new.debug old.debug`). `pread` returns fewer bytes instead. The memory that pieces take is bounded: reading a
//! damaged file with absurd sizes fails.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use object::read::{ReadCache, ReadRef};

use crate::host::mapped_file::open_regular;

/// The largest piece that is read at once: 65,535 section headers are 4 MiB.
const MAX_PIECE: u64 = 8 << 20;
/// The most bytes that are kept in memory until the file is closed.
const MAX_KEPT: u64 = 32 << 20;
/// The most bytes that [`BoundedFile::window`] reads in all, which bounds the time.
const MAX_READ: u64 = 256 << 20;

/// A regular file, opened for bounded reading.
///
/// Headers and tables are read by `object`'s [`ReadRef`], which keeps each piece in memory as long as `self`. Large
/// contents are read by [`window`](Self::window) into a buffer of the caller.
pub(crate) struct BoundedFile {
    file: File,
    cache: ReadCache<File>,
    len: u64,
    /// Bytes read by [`ReadRef`], at most [`MAX_KEPT`].
    kept: Cell<u64>,
    /// Bytes read by [`window`](Self::window), at most [`MAX_READ`].
    read: Cell<u64>,
}

impl BoundedFile {
    /// Opens a regular file; does not block on a FIFO or a device.
    ///
    /// # Errors
    /// Those of `open`; `InvalidInput` if it is not a regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        let (len, cache) = (file.metadata()?.len(), ReadCache::new(file.try_clone()?));
        Ok(BoundedFile { file, cache, len, kept: Cell::new(0), read: Cell::new(0) })
    }

    /// The size at the time of opening, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.len
    }

    /// Fills `buf` with the first bytes of `range`: at most 8 MiB, and fewer if the file ends or [`MAX_READ`] is reached.
    pub(crate) fn window<'b>(&self, range: Range<u64>, buf: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
        let wanted = range.end.min(self.len).saturating_sub(range.start);
        let granted = wanted.min(MAX_READ.saturating_sub(self.read.get())).min(MAX_PIECE);
        self.read.set(self.read.get() + granted);
        buf.clear();
        buf.resize(usize::try_from(granted).unwrap_or(0), 0);
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, range.start.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        buf.truncate(filled);
        Ok(buf)
    }

    /// Whether [`window`](Self::window) returns no more bytes.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.read.get() >= MAX_READ
    }

    /// Counts bytes that [`ReadRef`] is about to read, also those that the cache has already. Fails beyond the limits.
    fn charge(&self, size: u64) -> Result<(), ()> {
        let kept = self.kept.get().saturating_add(size);
        if size > MAX_PIECE || kept > MAX_KEPT {
            return Err(());
        }
        self.kept.set(kept);
        Ok(())
    }
}

impl fmt::Debug for BoundedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedFile").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<'a> ReadRef<'a> for &'a BoundedFile {
    fn len(self) -> Result<u64, ()> {
        Ok(self.len)
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.charge(size)?;
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        // The most bytes that `ReadCache` reads for one string.
        self.charge(4096)?;
        self.cache.read_bytes_at_until(range, delimiter)
    }
}
