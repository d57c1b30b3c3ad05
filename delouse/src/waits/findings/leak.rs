//! Leaked tasks: tasks that keep one another alive and that nothing else can wake.

use std::collections::{BTreeMap, HashSet};

use super::{Judge, behind};
use crate::tasks::ResourceKind;
use crate::tasks::layout::handles::Roles;
use crate::waits::account::Account;
use crate::waits::components::Component;
use crate::waits::wait::Wait;
use crate::waits::wakers;
use crate::waits::{Doubt, Evidence, Finding, FindingKind, Severity, TaskIds, TaskWait};

/// The most waits that are listed of the first group of tasks.
const MAX_WAITS: usize = 12;
/// The most waits that are listed of one task, and holders of one wait.
const MAX_LISTED: usize = 4;

impl Judge<'_, '_, '_, '_, '_> {
    pub(super) fn leak(&mut self, components: &[Component]) -> Finding {
        let members = |component: &Component| -> Vec<u32> {
            component.vertices.iter().filter_map(|vertex| self.graph.task(*vertex)).collect()
        };
        let all: Vec<u32> = components.iter().flat_map(members).collect();
        let waiting = self.behind(components);
        let mut tasks = self.ids(all.iter().copied());
        tasks.extend(&waiting);
        tasks.sort_unstable();
        tasks.dedup();
        let first = components.iter().min_by_key(|component| component.vertices.len());
        let doubts = self.leak_doubts(components, &all);
        let mut evidence = Vec::new();
        let mut known = HashSet::new();
        let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
        components.iter().for_each(|component| *sizes.entry(members(component).len()).or_default() += 1);
        for task in first.map(members).unwrap_or_default() {
            let pattern = self.pattern(task);
            if evidence.len() < MAX_WAITS && known.insert(pattern) {
                evidence.extend(self.leaked(task, doubts.is_empty()));
            }
        }
        let waits = self.edges.waits;
        let of = first.map(members).unwrap_or_default();
        let waits: Vec<&Wait> = of.iter().flat_map(|task| waits.of_task(*task)).collect();
        // A signal beside a message is seldom the cause.
        if waits.iter().all(|wait| matches!(wait.kind, ResourceKind::Notify | ResourceKind::Barrier)) {
            evidence.extend(self.signals(waits.into_iter()));
        }
        if components.len() > 1 {
            evidence.extend(sizes.into_iter().map(|(tasks, groups)| Evidence::AlikeGroups { groups, tasks }));
        }
        if doubts.is_empty() {
            let holders = self.graph.holders;
            let objects = self.graph.objects(components);
            let exact = |object: &u32| holders.account_of_object(*object) == Account::Exact;
            evidence.push(Evidence::OwnReferences { counted: objects.iter().all(exact) });
        }
        evidence.extend(behind(&waiting));
        let kind = FindingKind::LeakedTasks;
        let mut finding = Finding { kind, severity: Severity::Certain, tasks, evidence };
        doubts.into_iter().for_each(|why| finding.doubt(why));
        finding
    }

    /// What a leaked task waits for, and what could end that; `certain`: nothing else can.
    fn leaked(&mut self, task: u32, certain: bool) -> Vec<Evidence> {
        let waits = self.edges.waits;
        let mut facts = Vec::new();
        for wait in waits.of_task(task).iter().take(MAX_LISTED) {
            let edge = self.edges.edge_in_finding(wait);
            let more_holders = (edge.holders.len() + edge.more_holders).saturating_sub(MAX_LISTED);
            facts.push(Evidence::Waits(TaskWait {
                task: self.edges.id(task),
                more_holders,
                // If there are more holders than listed, the list is not complete.
                all_known: certain && more_holders == 0,
                ..TaskWait::new(&edge, edge.holders.iter().take(MAX_LISTED))
            }));
        }
        facts
    }

    fn leak_doubts(&mut self, components: &[Component], tasks: &[u32]) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        let waits = components.iter().flat_map(|component| &component.vertices);
        doubts.extend(self.by_wakers(waits.filter_map(|vertex| self.graph.wait(*vertex))));
        let held: Vec<u32> = tasks.iter().copied().filter(|task| self.may_be_ended(*task)).collect();
        if !held.is_empty() {
            doubts.push(Doubt::CanBeAborted(TaskIds::of(self.ids(held.into_iter()))));
        }
        let objects = self.graph.objects(components);
        if objects.iter().any(|object| self.stale.doubtful.contains(object)) {
            doubts.push(Doubt::AddressElsewhere);
        }
        let account = |object: &u32| self.graph.holders.account_of_object(*object);
        let mut open = objects.iter().filter(|object| !self.graph.holders.is_confined(**object)).peekable();
        if open.peek().is_some() && open.all(|object| account(object) == Account::TooMany) {
            doubts.push(Doubt::TooManyReferences);
        } else if objects.iter().any(|object| matches!(account(object), Account::Missing | Account::Unknown))
        {
            doubts.push(Doubt::MissingReferences);
        }
        doubts
    }

    /// Whether a handle that these tasks do not own can still abort a task.
    fn may_be_ended(&self, task: u32) -> bool {
        let Some(place) = self.edges.examination.places.get(task as usize) else { return true };
        let Some(header) = place.header else { return false };
        let holders = self.graph.holders;
        let stuck =
            |roles| holders.of_task(header, roles).filter(|h| !self.liveness.is_alive(h.owner)).count();
        let found = holders.of_task(header, Roles::ABORT).count();
        wakers::has_join_handle(place) && stuck(Roles::JOIN) == 0 || stuck(Roles::ABORT) < found
    }
}
