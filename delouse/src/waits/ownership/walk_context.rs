//! What a walk knows about the current value from the path to it.

/// What is known about the current value of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct WalkContext {
    /// It belongs to the variables of a function, and not to what the function awaits.
    pub(super) aside: bool,
    /// It is such a variable itself.
    pub(super) variable: bool,
    /// It belongs to what a `join!` awaits.
    pub(super) joined: bool,
    /// Between it and the innermost branch there is a future that may complete before its parts do: a timeout, a
    /// `select!`, a future that the program implements itself.
    pub(super) raced: bool,
    /// The branch of a `join!` that it is in.
    pub(super) branch: Option<u32>,
    /// If it is inside a future that its task does not poll at the moment: the step of the path that led to that
    /// future.
    pub(super) unpolled: Option<u32>,
    /// It is a guess that a variable is stored here: only a handle of a resource that is waited for counts.
    pub(super) guessed: bool,
    /// It was reached through a raw pointer: it has another owner, and only wakers in it count.
    pub(super) borrowed: bool,
    /// It is part of a handle that can only add messages to a queue.
    pub(super) only_adds: bool,
    /// Doubt about the value itself.
    pub(super) doubt: Doubt,
    /// Doubt about the allocation that contains it, in which a future that was polled is pinned.
    pub(super) pinned: Doubt,
}

/// Whether a value may have been moved or dropped, with everything that it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Doubt {
    /// It is a variable of a suspended function: moving it leaves no trace in memory.
    pub(super) loose: bool,
    /// A drop flag says that a variable of its function was moved; it may be this one.
    pub(super) maybe_moved: bool,
}

impl WalkContext {
    /// Whether its task polls the value.
    pub(super) fn polled(self) -> bool {
        !self.aside && self.unpolled.is_none()
    }

    /// The context of a pointer's target: when the pointer is moved, its target changes owner, but stays where it is in
    /// memory.
    pub(super) fn behind_pointer(self) -> Self {
        Self { pinned: self.doubt, ..self }
    }
}
