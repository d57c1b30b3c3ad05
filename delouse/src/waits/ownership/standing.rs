//! What a walk knows of the place that it is at, by the way that led there.

/// What is known of the place that a walk is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// Among the variables of a function, not in what it awaits.
    pub(super) aside: bool,
    /// Such a variable itself.
    pub(super) variable: bool,
    /// In what a `join!` awaits.
    pub(super) joined: bool,
    /// Under something that may end without the end of all that lies in it, inside of the innermost branch: a timeout, a
    /// `select!`, a future of somebody's own.
    pub(super) raced: bool,
    /// The branch of a `join!` that it is in.
    pub(super) branch: Option<u32>,
    /// Inside of a future that its task does not poll at the moment, to which this step of the way led.
    pub(super) unpolled: Option<u32>,
    /// That a variable is stored here is a guess: all that counts is a handle of a resource that somebody waits for.
    pub(super) guessed: bool,
    /// Of what lies here.
    pub(super) doubt: Doubt,
    /// Of the memory around it, up to the last pointer: a future that was polled is pinned there.
    pub(super) pinned: Doubt,
}

/// Whether something may have been moved away or dropped, with all that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Doubt {
    /// It is a variable of a suspended function: no trace would be left.
    pub(super) loose: bool,
    /// A drop flag says that something beside it was moved away.
    pub(super) maybe_moved: bool,
}

impl Standing {
    /// Whether its task polls what lies here.
    pub(super) fn polled(self) -> bool {
        !self.aside && self.unpolled.is_none()
    }

    /// What lies behind a pointer is moved with it, but is not moved in memory.
    pub(super) fn behind_pointer(self) -> Self {
        Self { pinned: self.doubt, ..self }
    }
}
