//! Bytes with many owners: a mapped file or a buffer, and slices of them that keep the whole alive.
//!
//! Here because `gimli`'s and `framehop`'s traits for such bytes are unsafe to implement.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, Weak};

use super::mapped_file::MappedFile;
use super::room::Grant;
use super::scratch::Scratch;

/// A slice of bytes that are kept alive, unmoved, by each of its clones.
#[derive(Clone)]
pub(crate) struct SharedBytes {
    owner: Arc<Owner>,
    /// Always within the owner's bytes.
    range: Range<usize>,
}

struct Owner {
    content: Content,
    /// Returned when the bytes are freed.
    _grant: Option<Grant>,
}

enum Content {
    Mapped(MappedFile),
    Filled(Scratch),
    Made(Vec<u8>),
}

/// Bytes that somebody else may keep alive.
pub(super) struct WeakBytes(Weak<Owner>);

impl WeakBytes {
    /// All of them, while they live.
    pub(super) fn upgrade(&self) -> Option<SharedBytes> {
        self.0.upgrade().map(SharedBytes::of)
    }
}

impl Owner {
    fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(file) => file,
            Content::Filled(bytes) => bytes,
            Content::Made(bytes) => bytes,
        }
    }
}

impl SharedBytes {
    /// Of a mapped file, or a part of one.
    pub(super) fn mapped(file: MappedFile, grant: Grant) -> Self {
        Self::of(Arc::new(Owner { content: Content::Mapped(file), _grant: Some(grant) }))
    }

    /// Of memory that was filled and that no fork copies.
    pub(super) fn filled(bytes: Scratch, grant: Grant) -> Self {
        Self::of(Arc::new(Owner { content: Content::Filled(bytes), _grant: Some(grant) }))
    }

    /// What finds these bytes again as long as they live.
    pub(super) fn downgrade(&self) -> WeakBytes {
        WeakBytes(Arc::downgrade(&self.owner))
    }

    fn of(owner: Arc<Owner>) -> Self {
        let range = 0..owner.bytes().len();
        Self { owner, range }
    }

    /// Takes a buffer over.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self::of(Arc::new(Owner { content: Content::Made(bytes), _grant: None }))
    }

    /// A part of these bytes; `None` where `range` reaches beyond them.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<Self> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        (start <= end && end <= self.range.end).then(|| Self { owner: self.owner.clone(), range: start..end })
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
