//! A file mapped into memory, for readers that walk all of it: unwinding tables, symbols, types.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// A regular file, mapped read-only and privately.
///
/// Who truncates the file while it is mapped makes the next access raise SIGBUS. The kernel protects running
/// programs and the libraries that they use from that (ETXTBSY, and linkers and package managers that replace
/// them by a new inode). Files with debug information are not protected: read those (`SharedBytes::read`).
#[derive(Debug)]
pub(crate) struct MappedFile {
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the file at `path`. Costs two system calls; pages are read when they are used.
    ///
    /// # Errors
    /// Those of `open` and `mmap`; `InvalidInput` where it is not a regular file or is empty.
    pub(crate) fn open(path: &Path) -> io::Result<MappedFile> {
        let file = open_regular(path)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty file"));
        }
        Self::part(&file, 0..length)
    }

    /// Maps the pages with the bytes of `range` of an open file, which must be within it.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub(super) fn part(file: &File, range: Range<usize>) -> io::Result<MappedFile> {
        let mut options = memmap2::MmapOptions::new();
        options.offset(range.start as u64).len(range.end.saturating_sub(range.start));
        // SAFETY: the file's bytes must not change under the reference. Nobody writes to a running program
        // (ETXTBSY) nor, by custom, to a library or debug file in place: see the type. The parsers that read
        // the mapping check every offset against what they have read and tolerate any bytes; a page beyond
        // a new, shorter end raises SIGBUS, which is the risk stated above, not undefined behaviour.
        let map = unsafe { options.map(file)? };
        Ok(MappedFile { map })
    }
}

/// Opens a regular file.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // O_NONBLOCK: a FIFO must not block us before we know that it is one.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_what_is_in_the_file() {
        let path = std::env::current_exe().unwrap();
        let mapped = MappedFile::open(&path).unwrap();
        assert_eq!(mapped.len() as u64, std::fs::metadata(&path).unwrap().len());
        assert_eq!(&mapped[..4], b"\x7fELF");
    }

    #[test]
    fn refuses_what_cannot_be_mapped() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(MappedFile::open(empty.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(MappedFile::open(Path::new("/")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(MappedFile::open(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(MappedFile::open(Path::new("/nowhere/at/all")).is_err());
    }
}
