//! The two passes of the search for what is alive.

use std::collections::BTreeSet;

use super::components::Graph;
use super::holders::Holders;
use super::liveness::{Liveness, Timeouts};
use super::resources::Waits;
use super::stale_references::StaleReferences;
use crate::tasks::Examination;

/// What is alive.
pub(super) struct Passes {
    pub(super) liveness: Liveness,
    /// The same if timeouts do not count; `None` if no task waits for others and for a timeout.
    pub(super) without_timeouts: Option<Liveness>,
}

impl Passes {
    pub(super) fn of(
        examination: &Examination<'_, '_, '_>,
        waits: &Waits,
        holders: &Holders,
        stale: &StaleReferences,
    ) -> Self {
        let pass = |timeouts| Liveness::of(examination, waits, holders, stale, timeouts);
        Self {
            liveness: pass(Timeouts::Count),
            without_timeouts: waits.have_timeouts().then(|| pass(Timeouts::Ignored)),
        }
    }

    /// The shared objects through which stuck tasks wait for one another, for good or until a timeout ends.
    pub(super) fn suspects(&self, waits: &Waits, holders: &Holders) -> BTreeSet<u32> {
        let stuck = Graph::of(waits, holders, &self.liveness);
        let mut objects = stuck.objects(&stuck.components());
        if let Some(liveness) = &self.without_timeouts {
            let stuck = Graph::of(waits, holders, liveness);
            let components = stuck.components();
            objects.extend(stuck.objects(components.iter().filter(|of| stuck.is_blocked(of))));
        }
        objects
    }
}
