//! Where the search for tasks starts.

use super::process::Process;
use crate::snapshot::Address;

/// Something that the program has registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// A `tokio::runtime::Handle`.
    Handle {
        /// Address of the handle itself, which must not be moved.
        address: Address,
    },
    /// The handle of delouse's own runtime, whose tasks are left out.
    Own {
        /// Address of the handle itself.
        address: Address,
    },
    /// A future that no runtime lists: the one that `block_on` drives.
    Future {
        /// Address of the pinned future.
        address: Address,
        /// Address of its `<F as Future>::poll`, whose first argument has its type.
        poll: Address,
    },
}

/// The scheduler of delouse's own runtime, which all tasks of that runtime point to.
pub(super) fn own_scheduler(process: &Process<'_, '_>, roots: &[Root]) -> Option<Address> {
    roots.iter().find_map(|root| match root {
        // A `Handle` is an enum: its discriminant, then the `Arc` of the scheduler.
        Root::Own { address } => process.memory.address(address.checked_add(8)?),
        _ => None,
    })
}
