//! What counters of a `Notify` and a `Barrier` say about the waits of a finding.

use std::collections::BTreeSet;

use super::Judge;
use crate::tasks::{ResourceKind, Task, TaskState};
use crate::waits::wait::Wait;
use crate::waits::{Evidence, TaskIds};

/// The most resources of one finding that are described.
const MAX_LISTED: usize = 3;

impl Judge<'_, '_, '_, '_, '_> {
    /// Facts about the resources of these waits, each once.
    pub(super) fn signals<'w>(&mut self, waits: impl Iterator<Item = &'w Wait>) -> Vec<Evidence> {
        let mut known = BTreeSet::new();
        let mut facts = Vec::new();
        for wait in waits {
            if facts.len() < MAX_LISTED && known.insert(wait.resource) {
                facts.extend(self.signal(wait));
            }
        }
        facts
    }

    fn signal(&mut self, wait: &Wait) -> Option<Evidence> {
        let task = self.task(wait.task)?;
        let on = task.waits_on.get(wait.leaf)?;
        let place = self.edges.place(wait);
        let resource = self.edges.waits.resource(wait);
        match wait.kind {
            ResourceKind::Notify => {
                let calls = on.notified_before?;
                Some(Evidence::NotifiedBefore { task: task.id, resource, place, calls })
            }
            ResourceKind::Barrier => {
                let (arrived, wanted) = (on.arrived?, on.wanted?);
                let ended = self.ended_at(task);
                Some(Evidence::BarrierShort { resource, place, arrived, wanted, ended })
            }
            _ => None,
        }
    }

    /// The tasks that were spawned at the same line as this one, and have ended.
    fn ended_at(&self, one: &Task) -> TaskIds {
        let is_like = |task: &&Task| {
            task.state == Some(TaskState::Complete)
                && task.spawned_at.is_some()
                && task.spawned_at == one.spawned_at
        };
        TaskIds::of(self.edges.examination.listing.tasks.iter().filter(is_like).map(|task| task.id))
    }
}
