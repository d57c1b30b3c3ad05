//! Variables that keep what nothing asks for.

use std::sync::Arc;

use super::CodeLocation;
use crate::snapshot::Address;

/// A variable with handles of many finished tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keeper {
    /// The task that has the variable; 0 for a `main` future.
    pub(crate) task: u64,
    pub(crate) variable: String,
    pub(crate) place: Option<Arc<CodeLocation>>,
    /// How many handles.
    pub(crate) handles: u64,
}

/// A variable with a body of an HTTP/2 connection whose window is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnreadBody {
    /// The address of the connection.
    pub(crate) connection: Address,
    /// The task that has the variable; 0 for a `main` future.
    pub(crate) task: u64,
    pub(crate) variable: String,
    pub(crate) place: Option<Arc<CodeLocation>>,
}

/// A variable with a connection that the other end has closed for its part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClosedSocket {
    pub(crate) fd: i32,
    /// The task that has the variable; 0 for a `main` future.
    pub(crate) task: u64,
    pub(crate) variable: String,
    pub(crate) place: Option<Arc<CodeLocation>>,
}
