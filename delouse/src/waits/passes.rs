//! The two passes of the search for what is alive.

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

use super::components::Graph;
use super::holders::Holders;
use super::liveness::{Liveness, Timeouts};
use super::ownership::Node;
use super::resources::Waits;
use super::stale_references::StaleReferences;
use super::wait::{ResourceKey, Wait, Waker};
use crate::tasks::{Examination, ResourceKind};

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

    /// The resources through which stuck threads wait, or of which something is on the stacks of stuck threads.
    pub(super) fn through_threads(&self, waits: &Waits, holders: &Holders) -> FxHashSet<ResourceKey> {
        let without = self.without_timeouts.iter();
        let passes = || std::iter::once(&self.liveness).chain(without.clone());
        let is_stuck = |task: u32| passes().any(|liveness| !liveness.is_alive(Node::Task(task)));
        let through = |wait: &&Wait| {
            matches!(wait.by, Waker::Handles(_))
                && !matches!(wait.kind, ResourceKind::Lock | ResourceKind::Condvar | ResourceKind::Barrier)
                && (wait.blocks_thread || holders.is_on_waiting_stack(wait))
                && is_stuck(wait.task)
        };
        waits.counting().filter(through).map(|wait| wait.resource).collect()
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
