//! How what was found compares with the counts in memory.

use super::ownership::{Object, Reference};

/// How the count in memory compares with the number of handles or references that were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Account {
    /// As many exist as were found.
    Exact,
    /// Fewer exist than were found: some are stale copies of handles that were moved or dropped.
    TooMany,
    /// More exist than were found.
    Missing,
    /// There is no count.
    Unknown,
}

impl Account {
    pub(super) fn compare(counted: u64, found: u64) -> Self {
        match counted.cmp(&found) {
            std::cmp::Ordering::Equal => Self::Exact,
            std::cmp::Ordering::Less => Self::TooMany,
            std::cmp::Ordering::Greater => Self::Missing,
        }
    }

    pub(super) fn of_object<'r>(
        object: &Object,
        references: impl Iterator<Item = &'r Reference> + Clone,
    ) -> Self {
        let count = |weak: bool| references.clone().filter(|r| r.weak == weak && !r.borrowed).count() as u64;
        let strong = Self::compare(object.strong, count(false));
        let weak = Self::compare(object.weak, count(true));
        // A missing reference outweighs a stale one.
        if strong == Self::Missing || weak == Self::Missing { Self::Missing } else { strong.max(weak) }
    }
}
