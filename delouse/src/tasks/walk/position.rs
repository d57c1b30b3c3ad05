//! The position of a walk, packed into whole words: a processor that reads a word of which parts were just written
//! waits for each write, which took half of the time.

/// How a future was reached: its depth in the stack that is shown, the base of its address, whether it is behind a
/// pointer (then it may be the target of an earlier pointer of the path), whether it is one of several that wait, and
/// whether it is in a branch of a `select!`, with no function in between.
#[derive(Clone, Copy, Default)]
pub(super) struct Position(u64);

impl Position {
    const BEHIND: u64 = 1 << 16;
    const BRANCH: u64 = 1 << 17;
    const RACED: u64 = 1 << 18;

    /// The position of a value in the same allocation, `frames` deeper.
    pub(super) fn deeper(self, frames: u16) -> Self {
        Self(u64::from(frames) | (self.base() as u64) << 32 | self.0 & Self::RACED)
    }

    /// The position of the target of a pointer, which has that base.
    pub(super) fn to(self, base: usize) -> Self {
        Self(u64::from(self.frames()) | (base as u64) << 32 | self.0 & Self::RACED)
    }

    /// The position of what a function awaits that is itself at this position.
    pub(super) fn in_function(self) -> Self {
        Self(self.0 & !Self::RACED)
    }

    pub(super) fn raced(self) -> Self {
        Self(self.0 | Self::RACED)
    }

    pub(super) fn behind(self) -> Self {
        Self(self.0 | Self::BEHIND)
    }

    /// The same for one of several futures that wait.
    pub(super) fn branch(self, is_branch: bool) -> Self {
        if is_branch { Self(self.0 | Self::BRANCH) } else { self }
    }

    pub(super) fn frames(self) -> u16 {
        self.0 as u16
    }

    pub(super) fn is_branch(self) -> bool {
        self.0 & Self::BRANCH != 0
    }

    pub(super) fn is_raced(self) -> bool {
        self.0 & Self::RACED != 0
    }

    pub(super) fn base(self) -> usize {
        (self.0 >> 32) as usize
    }

    pub(super) fn is_behind(self) -> bool {
        self.0 & Self::BEHIND != 0
    }
}

/// A scope ends when no more visits are left than at its start.
#[derive(Clone, Copy)]
pub(super) struct Scope(u64);

/// The kind of a scope.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The target of a pointer.
    Pointer = 0,
    /// The future that the innermost coroutine awaits.
    Await = 1,
    /// The innermost of several futures that are polled side by side.
    Branch = 2,
}

impl Scope {
    pub(super) fn new(kind: Kind, left: usize) -> Self {
        Self(((left as u64) << 2) | kind as u64)
    }

    pub(super) fn is_over(self, left: usize) -> bool {
        self.0 >> 2 == left as u64
    }

    pub(super) fn kind(self) -> Kind {
        match self.0 & 3 {
            0 => Kind::Pointer,
            1 => Kind::Await,
            _ => Kind::Branch,
        }
    }
}
