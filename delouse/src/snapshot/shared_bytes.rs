//! Bytes with many owners: a mapped file or a buffer, and slices of them that keep the whole alive.
//!
//! Here because `gimli`'s and `framehop`'s traits for such bytes are unsafe to implement.

use std::fmt;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;
use std::{fs::File, io, io::Read};

use super::mapped_file::MappedFile;
use super::scratch::Scratch;

/// A slice of bytes that are kept alive, unmoved, by each of its clones.
#[derive(Clone)]
pub(crate) struct SharedBytes {
    owner: Arc<Owner>,
    /// Always within the owner's bytes.
    range: Range<usize>,
}

enum Owner {
    Mapped(MappedFile),
    Read(Scratch),
    Made(Vec<u8>),
}

impl Owner {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => file,
            Self::Read(bytes) => bytes,
            Self::Made(bytes) => bytes,
        }
    }
}

impl SharedBytes {
    /// Maps a file: only for one that the program itself has mapped (see [`MappedFile`]), as whoever
    /// truncates it kills the program in any case.
    ///
    /// # Errors
    /// See [`MappedFile::open`].
    pub(crate) fn map(path: &Path) -> io::Result<Self> {
        Ok(Self::from(Owner::Mapped(MappedFile::open(path)?)))
    }

    /// Reads a file of at most `limit` bytes into memory: for those that the program has not mapped, which a
    /// compiler may just write anew. A fork does not copy that memory.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for what is not a regular file, `FileTooLarge` above the limit.
    pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if metadata.len() > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let length = usize::try_from(metadata.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if length == 0 {
            return Ok(Self::default());
        }
        let mut bytes = Scratch::new(length);
        if bytes.is_empty() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let mut file = File::open(path)?;
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // It may have become shorter meanwhile.
        Ok(Self { owner: Arc::new(Owner::Read(bytes)), range: 0..filled })
    }

    /// Takes a buffer over.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self::from(Owner::Made(bytes))
    }

    /// A part of these bytes; `None` where `range` reaches beyond them.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<Self> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        (start <= end && end <= self.range.end).then(|| Self { owner: self.owner.clone(), range: start..end })
    }
}

impl From<Owner> for SharedBytes {
    fn from(owner: Owner) -> Self {
        let range = 0..owner.bytes().len();
        Self { owner: Arc::new(owner), range }
    }
}

impl Default for SharedBytes {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.owner.bytes().get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({})", self.len())
    }
}

// SAFETY: the bytes live behind an `Arc`, in a mapping or a buffer that nothing changes or moves, so that
// moving a `SharedBytes` leaves them where they are.
unsafe impl gimli::StableDeref for SharedBytes {}
// SAFETY: a clone has the same owner and the same range, so it dereferences to the same bytes.
unsafe impl gimli::CloneStableDeref for SharedBytes {}
