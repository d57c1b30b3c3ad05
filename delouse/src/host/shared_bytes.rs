//! Reference-counted bytes: a mapped file or a buffer, and slices that keep it alive.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, Weak};

use super::mapped_file::MappedFile;
use super::memory_budget::Grant;
use super::scratch::Scratch;

/// A slice of reference-counted bytes. Their address does not change.
#[derive(Clone)]
pub(crate) struct SharedBytes {
    owner: Arc<Owner>,
    /// Always within the owner's bytes.
    range: Range<usize>,
}

struct Owner {
    content: Content,
    /// Returned to the budget when the bytes are freed.
    _grant: Option<Grant>,
}

enum Content {
    Mapped(MappedFile),
    Filled(Scratch),
    Buffer(Vec<u8>),
}

/// A weak reference to [`SharedBytes`].
pub(super) struct WeakBytes(Weak<Owner>);

impl WeakBytes {
    /// The bytes, unless they have been freed.
    pub(super) fn upgrade(&self) -> Option<SharedBytes> {
        self.0.upgrade().map(SharedBytes::from_owner)
    }
}

impl Owner {
    fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(file) => file,
            Content::Filled(bytes) => bytes,
            Content::Buffer(bytes) => bytes,
        }
    }
}

impl SharedBytes {
    /// The bytes of a mapped file, or of a part of one.
    pub(super) fn mapped(file: MappedFile, grant: Grant) -> Self {
        Self::from_owner(Arc::new(Owner { content: Content::Mapped(file), _grant: Some(grant) }))
    }

    /// The bytes of memory that forks do not copy.
    pub(super) fn filled(bytes: Scratch, grant: Grant) -> Self {
        Self::from_owner(Arc::new(Owner { content: Content::Filled(bytes), _grant: Some(grant) }))
    }

    pub(super) fn downgrade(&self) -> WeakBytes {
        WeakBytes(Arc::downgrade(&self.owner))
    }

    fn from_owner(owner: Arc<Owner>) -> Self {
        let range = 0..owner.bytes().len();
        Self { owner, range }
    }

    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self::from_owner(Arc::new(Owner { content: Content::Buffer(bytes), _grant: None }))
    }

    /// A part of these bytes; `None` if `range` exceeds them.
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
