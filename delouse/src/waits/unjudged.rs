//! Why tasks are not judged.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why it is not known whether anything will wake a task.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unjudged {
    /// Its future could not be read: not even what it waits for is known.
    #[default]
    NoFuture,
    /// It waits in a future of an unknown kind.
    UnknownFuture,
    /// The resource that it waits for could not be read.
    UnknownResource,
    /// The types of the handles that can end its wait are not known.
    UnknownHandles,
    /// The task that it waits for was not found.
    UnknownTask,
    /// More can end the wait than what was found.
    MoreHandles,
    /// Nothing was found that can end the wait.
    NoHandles,
    /// Not all of its variables could be read.
    Unread,
    /// Something that was not found can wake it.
    MoreWakers,
    /// A branch of a `join!` waits for a semaphore, or in a future that may complete in a way that is not known.
    OpenBranch,
    /// It waits for others that are not judged.
    Behind,
}
