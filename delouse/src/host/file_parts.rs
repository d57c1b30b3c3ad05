//! Parts of files, loaded on first use and shared by all readers.
//!
//! Most of a program's executable is debug information, which several readers use. Each section is mapped separately when
//! a reader first requests it, and unmapped when its last reader drops it. Before a section is mapped, its size is reserved
//! in the [`memory_budget`].

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use super::lock::lock;
use super::mapped_file::{MappedFile, open_regular};
use super::memory_budget::{self, Amount, Shortage};
use super::scratch::Scratch;
use super::shared_bytes::{SharedBytes, WeakBytes};

/// Parts up to this size are read into a buffer: a mapping takes whole pages.
const SHORT: u64 = 64 << 10;

/// All open files.
static FILES: Mutex<Vec<Weak<FileParts>>> = Mutex::new(Vec::new());

/// How parts are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// By mapping them. Only for files that the program itself has mapped (see [`MappedFile`]): truncating such a file
    /// ends the program in any case.
    Map,
    /// By reading them. For files that the program has not mapped, which a compiler may be writing at this moment.
    Read,
}

/// Why a part cannot be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The file has no such part, or reading it failed.
    Absent,
    /// Loading it would take too much memory.
    Short(Shortage),
}

/// See the module.
pub(crate) struct FileParts {
    path: PathBuf,
    access: Access,
    identity: Identity,
    parts: Mutex<Vec<(Key, WeakBytes)>>,
}

/// A range of the file, and whether its bytes are decompressed.
type Key = (Range<u64>, bool);

/// Identifies the contents of a file, to detect that a path now names other contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Identity {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl fmt::Debug for FileParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileParts({})", self.path.display())
    }
}

impl FileParts {
    /// Returns the file at `path`, shared with other users of the same file. No part is loaded yet, and the descriptor is
    /// closed again.
    ///
    /// # Errors
    /// Those of `open`; `InvalidInput` if it is not a regular file.
    pub(crate) fn open(path: &Path, access: Access) -> io::Result<Arc<Self>> {
        let identity = Identity::new(&open_regular(path)?.metadata()?);
        let mut files = lock(&FILES);
        files.retain(|file| file.strong_count() > 0);
        let same = |file: &Arc<Self>| file.identity == identity && file.access == access;
        if let Some(known) = files.iter().filter_map(Weak::upgrade).find(same) {
            return Ok(known);
        }
        let file = Arc::new(Self { path: path.to_owned(), access, identity, parts: Mutex::default() });
        files.push(Arc::downgrade(&file));
        Ok(file)
    }

    /// The bytes of `range`.
    pub(crate) fn part(&self, range: Range<u64>) -> Result<SharedBytes, Missing> {
        if range.start >= range.end || range.end > self.identity.length {
            return Err(Missing::Absent);
        }
        self.load_once((range.clone(), false), || self.load(range))
    }

    /// The result of `unpack` for the bytes of `range`.
    pub(crate) fn unpacked(
        &self,
        range: Range<u64>,
        unpack: impl FnOnce(&[u8]) -> Result<SharedBytes, Missing>,
    ) -> Result<SharedBytes, Missing> {
        // Outside `load_once`: both take the lock of `parts`.
        let packed = self.part(range.clone())?;
        self.load_once((range, true), || unpack(&packed))
    }

    fn load_once(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<SharedBytes, Missing>,
    ) -> Result<SharedBytes, Missing> {
        let mut parts = lock(&self.parts);
        parts.retain(|(_, bytes)| bytes.upgrade().is_some());
        if let Some(bytes) =
            parts.iter().find(|(other, _)| *other == key).and_then(|(_, bytes)| bytes.upgrade())
        {
            return Ok(bytes);
        }
        let made = make()?;
        parts.push((key, made.downgrade()));
        Ok(made)
    }

    fn load(&self, range: Range<u64>) -> Result<SharedBytes, Missing> {
        let absent = |_| Missing::Absent;
        let file = open_regular(&self.path).map_err(absent)?;
        let length = range.end.saturating_sub(range.start);
        let bytes = usize::try_from(length).map_err(|_| Missing::Absent)?;
        // The path may name another file by now. (The kernel refuses writes to mapped executables.)
        if Identity::new(&file.metadata().map_err(absent)?) != self.identity {
            return Err(Missing::Absent);
        }
        if length <= SHORT {
            let mut buffer = vec![0; bytes];
            file.read_exact_at(&mut buffer, range.start).map_err(absent)?;
            return Ok(SharedBytes::new(buffer));
        }
        match self.access {
            Access::Map => {
                let grant = memory_budget::acquire(Amount::mapped(length)).map_err(Missing::Short)?;
                let start = usize::try_from(range.start).map_err(|_| Missing::Absent)?;
                let map = MappedFile::part(&file, start..start.saturating_add(bytes)).map_err(absent)?;
                Ok(SharedBytes::mapped(map, grant))
            }
            Access::Read => filled(bytes, |buffer| file.read_exact_at(buffer, range.start).ok()),
        }
    }
}

/// Allocates `length` bytes in memory that forks do not copy, and has `fill` write them.
pub(crate) fn filled(
    length: usize,
    fill: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Result<SharedBytes, Missing> {
    let grant = memory_budget::acquire(Amount::filled(length as u64)).map_err(Missing::Short)?;
    let mut bytes = Scratch::new(length);
    if bytes.len() < length {
        return Err(Missing::Absent);
    }
    fill(&mut bytes).ok_or(Missing::Absent)?;
    Ok(SharedBytes::filled(bytes, grant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(length: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&(0..length).map(|n| (n / 7) as u8).collect::<Vec<_>>()).unwrap();
        file
    }

    #[test]
    fn parts_equal_the_file_and_are_shared() {
        let (file, length) = (file(300_001), 300_001);
        let whole = std::fs::read(file.path()).unwrap();
        for access in [Access::Map, Access::Read] {
            let parts = FileParts::open(file.path(), access).unwrap();
            let again = FileParts::open(file.path(), access).unwrap();
            assert!(Arc::ptr_eq(&parts, &again));
            for range in [0..1, 5..70_000, 100_001..300_001] {
                let part = parts.part(range.clone()).unwrap();
                assert_eq!(*part, whole[range.start as usize..range.end as usize]);
                assert_eq!(part.as_ptr(), again.part(range).unwrap().as_ptr(), "loaded once");
            }
            for invalid in [0..length + 1, length..length, u64::MAX - 1..u64::MAX] {
                assert_eq!(parts.part(invalid).unwrap_err(), Missing::Absent);
            }
        }
    }

    #[test]
    fn parts_of_a_replaced_file_are_absent() {
        let (first, second) = (file(100_000), file(100_000));
        let parts = FileParts::open(first.path(), Access::Read).unwrap();
        std::fs::rename(second.path(), first.path()).unwrap();
        assert_eq!(parts.part(0..90_000).unwrap_err(), Missing::Absent);
    }
}
