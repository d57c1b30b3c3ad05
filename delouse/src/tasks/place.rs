//! Where things are stored in memory.

use crate::debuginfo::types::TypeId;
use crate::snapshot::Address;

/// What a piece of memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryPlace {
    /// A static of the executable's.
    Static,
    /// The stack of a thread, or one of its registers.
    Stack,
    /// The same, of a thread that belongs to a runtime and runs no known task: it may be running other code, and is
    /// full of stale data of tasks.
    RuntimeStack,
    /// The stack of that thread, which waits in a call until a future is done that a task drives.
    DrivingStack(i32),
    /// Anything else.
    Heap,
}

/// Where a task is stored in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskPlace {
    /// Its header; `None` for a `main` future.
    pub(crate) header: Option<Address>,
    /// The word of its state, with the count of references to it.
    pub(crate) state: Option<u64>,
    /// Its scheduler, if that is a runtime of one thread or a `LocalSet`: while it polls one of its tasks, it cannot
    /// poll the others.
    pub(crate) one_at_a_time: Option<Address>,
    /// The type and address of its future, or of the closure of `spawn_blocking`, if it still has one.
    pub(crate) future: Option<(TypeId, Address)>,
    /// The same of the futures that it drives, in the order of `drives`.
    pub(crate) driven: Vec<(TypeId, Address)>,
    /// The leaves that it waits for, in the order of `waits_on`.
    pub(crate) leaves: Vec<LeafPlace>,
}

/// Where a leaf is stored, and what it waits for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeafPlace {
    /// The leaf itself, or the future that was not recognised.
    pub(crate) at: Address,
    /// Address of what its type waits for: of the semaphore in a mutex, or of the header of a task.
    pub(crate) resource: Option<Address>,
    /// Address of the resource that the program uses, as in `waits_on`.
    pub(crate) address: Option<Address>,
    /// The path of its type; empty for a future that was not recognised.
    pub(crate) path: &'static str,
    /// What ends with it.
    pub(crate) race: Race,
}

/// Whether a leaf that completes also ends other waits of its task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Race {
    /// It is not known to.
    #[default]
    No,
    /// It is a branch of a `select!`, with no function in between.
    Select,
    /// It is the timer of a future that is named for a timeout, as `tokio::time::Timeout` is.
    Timeout,
}
