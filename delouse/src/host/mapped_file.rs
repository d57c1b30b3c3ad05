//! A file mapped into memory: unwinding tables, symbols, types.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// A regular file, mapped read-only and privately.
///
/// If another process truncates the file while it is mapped, the next access raises SIGBUS. The executable of a running
/// program is safe, because the kernel refuses to write to it (ETXTBSY). Libraries are safe in practice, because linkers and
/// package managers replace them by a new inode. Separate files with debug information are not safe: read them instead
/// ([`Access::Read`]).
///
/// [`Access::Read`]: super::file_parts::Access::Read
#[derive(Debug)]
pub(crate) struct MappedFile {
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the file at `path`. The kernel reads pages when they are first used.
    ///
    /// # Errors
    /// Those of `open` and `mmap`; `InvalidInput` if it is not a regular file or is empty.
    pub(crate) fn open(path: &Path) -> io::Result<MappedFile> {
        let file = open_regular(path)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty file"));
        }
        Self::part(&file, 0..length)
    }

    /// Maps the bytes of `range`, which must be within the file.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub(super) fn part(file: &File, range: Range<usize>) -> io::Result<MappedFile> {
        let mut options = memmap2::MmapOptions::new();
        options.offset(range.start as u64).len(range.end.saturating_sub(range.start));
        // SAFETY: the file's bytes must not change under the reference. The kernel refuses to write to a running
        // executable (ETXTBSY), and linkers and package managers do not write to libraries in place: see the type. The
        // parsers of the mapping tolerate any bytes; a page beyond a new, shorter end raises SIGBUS, which is the risk
        // stated above, not undefined behaviour.
        let map = unsafe { options.map(file)? };
        Ok(MappedFile { map })
    }
}

/// Opens a regular file.
///
/// # Errors
/// Those of `open`; `InvalidInput` if it is not a regular file.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // O_NONBLOCK: opening a FIFO must not block.
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
    fn maps_the_contents_of_a_file() {
        let path = std::env::current_exe().unwrap();
        let mapped = MappedFile::open(&path).unwrap();
        assert_eq!(mapped.len() as u64, std::fs::metadata(&path).unwrap().len());
        assert_eq!(&mapped[..4], b"\x7fELF");
    }

    #[test]
    fn refuses_empty_files_directories_and_devices() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(MappedFile::open(empty.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(MappedFile::open(Path::new("/")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(MappedFile::open(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(MappedFile::open(Path::new("/nowhere/at/all")).is_err());
    }
}
