//! What follows from the graph of stuck tasks: deadlocks, futurelocks, leaked tasks, tasks that nothing
//! wakes.

mod deadlock;
mod leak;
mod signals;
mod unwakeable;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::components::{Component, Graph};
use super::edges::Edges;
use super::liveness::Liveness;
use super::ownership::Node;
use super::stale_references::StaleReferences;
use super::wait::{ResourceKey, Wait};
use super::{CodeLocation, Doubt, Edge, Evidence, Finding, FindingKind, Gap, Severity, TaskIds};
use crate::tasks::layout::handles::Roles;
use crate::tasks::{ResourceKind, Task, TaskKind, TaskState};

/// The most types that are named of futures that are not known.
const MAX_FUTURES: usize = 3;

/// Where a task waits, and for what, in each branch of a `select!`: tasks with the same pattern are reported together.
type Pattern = Vec<(Option<Arc<CodeLocation>>, ResourceKind)>;

/// All findings, worst first.
pub(super) fn findings(
    graph: &Graph<'_>,
    components: Vec<Component>,
    liveness: &Liveness,
    stale: &StaleReferences,
    gaps: &[Gap],
    edges: &mut Edges<'_, '_, '_, '_>,
) -> Vec<Finding> {
    let mut judge = Judge { graph, liveness, stale, gaps, edges };
    let mut findings = Vec::new();
    let mut leaks: BTreeMap<Vec<Pattern>, Vec<Component>> = BTreeMap::new();
    let mut ends: BTreeMap<Pattern, Vec<Component>> = BTreeMap::new();
    for component in components {
        if let [only] = component.vertices.as_slice()
            && let Some(task) = graph.task(*only)
        {
            // A thread that nothing will notify may be meant to wait for ever.
            if judge.edges.threads.thread(task).is_some() {
                continue;
            }
            if judge.is_worth_reporting(&component, task) {
                ends.entry(judge.pattern(task)).or_default().push(component);
            }
        } else if graph.is_blocked(&component) {
            let mut finding = judge.deadlock(&component);
            judge.doubt_mains(&mut finding, std::slice::from_ref(&component));
            findings.push(finding);
        } else {
            let tasks = component.vertices.iter().filter_map(|vertex| graph.task(*vertex));
            let mut patterns: Vec<Pattern> = tasks.map(|task| judge.pattern(task)).collect();
            patterns.sort();
            patterns.dedup();
            leaks.entry(patterns).or_default().push(component);
        }
    }
    for components in leaks.into_values() {
        let mut finding = judge.leak(&components);
        judge.doubt_mains(&mut finding, &components);
        findings.push(finding);
    }
    for finding in &mut findings {
        if let Some(why) = judge.overdue(finding) {
            // What it waits for is held by the future that it does not poll.
            if finding.kind == FindingKind::Deadlock && finding.tasks.len() == 1 {
                finding.kind = FindingKind::Futurelock;
            }
            finding.doubt(why);
        }
    }
    for components in ends.into_values() {
        let mut finding = judge.unwakeable(&components);
        judge.doubt_recognised(&mut finding, &components);
        findings.push(finding);
    }
    findings.sort_by_key(|finding| (finding.severity == Severity::Suspected, finding.kind));
    findings
}

/// Adds the deadlocks among tasks that `liveness`, for which timeouts do not count, says are stuck.
pub(super) fn until_timeout(
    graph: &Graph<'_>,
    liveness: &Liveness,
    stale: &StaleReferences,
    gaps: &[Gap],
    edges: &mut Edges<'_, '_, '_, '_>,
    findings: &mut Vec<Finding>,
) {
    let known: HashSet<u64> = findings.iter().flat_map(|finding| &finding.tasks).copied().collect();
    let mut judge = Judge { graph, liveness, stale, gaps, edges };
    for component in graph.components() {
        let tasks: Vec<u32> = component.vertices.iter().filter_map(|vertex| graph.task(*vertex)).collect();
        let is_known = tasks.iter().any(|task| known.contains(&judge.edges.id(*task)));
        let is_blocked = graph.is_blocked(&component) || graph.keeps_locks(&component);
        if component.vertices.len() > 1 && is_blocked && !is_known {
            let mut finding = judge.deadlock(&component);
            judge.doubt_mains(&mut finding, std::slice::from_ref(&component));
            finding.doubt(judge.ends_by(&tasks));
            findings.push(finding);
        }
    }
}

struct Judge<'j, 't, 'e, 'p, 'i> {
    graph: &'j Graph<'j>,
    liveness: &'j Liveness,
    stale: &'j StaleReferences,
    /// What was not read.
    gaps: &'j [Gap],
    edges: &'j mut Edges<'t, 'e, 'p, 'i>,
}

impl Judge<'_, '_, '_, '_, '_> {
    fn task(&self, number: u32) -> Option<&Task> {
        self.edges.examination.listing.tasks.get(number as usize)
    }

    /// The first task of a finding that has a timer that is over, which counts as not polled.
    fn overdue(&self, finding: &Finding) -> Option<Doubt> {
        let tasks = (0..).zip(&self.edges.examination.listing.tasks);
        let about: HashSet<u64> = finding.tasks.iter().copied().collect();
        let of_finding = tasks.filter(|(_, task)| about.contains(&task.id));
        let mut waits = of_finding.flat_map(|(number, _)| self.edges.waits.of_task(number));
        let wait = waits.find(|wait| self.edges.waits.is_overdue(wait))?;
        let on = self.task(wait.task)?.waits_on.get(wait.leaf)?;
        Some(Doubt::TimerNotPolled { task: self.edges.id(wait.task), over_ms: on.in_ms?.unsigned_abs() })
    }

    /// What ends a deadlock of these tasks, if timeouts and the ends of connections do not count.
    fn ends_by(&self, tasks: &[u32]) -> Doubt {
        let in_ms = self.first_timeout(tasks);
        let mut waits = tasks.iter().flat_map(|task| self.edges.waits.of_task(*task));
        match waits.any(|wait| self.edges.waits.is_interruption(wait)) {
            true if in_ms.is_none() => Doubt::EndsByConnection,
            _ => Doubt::EndsByTimeout { in_ms },
        }
    }

    /// When the first timeout of these tasks ends, in milliseconds.
    fn first_timeout(&self, tasks: &[u32]) -> Option<i64> {
        let waits = tasks.iter().flat_map(|task| self.edges.waits.of_task(*task));
        let timeouts = waits.filter(|wait| self.edges.waits.is_timeout(wait));
        timeouts.filter_map(|wait| self.task(wait.task)?.waits_on.get(wait.leaf)?.in_ms).min()
    }

    /// Adds the doubts about the main futures in these components.
    fn doubt_mains(&self, finding: &mut Finding, components: &[Component]) {
        if components.iter().any(|component| self.has_resting_main(component)) {
            finding.doubt(Doubt::MainFuture);
        }
        self.doubt_recognised(finding, components);
    }

    /// Adds the doubt about a future that was recognised by its contents.
    fn doubt_recognised(&self, finding: &mut Finding, components: &[Component]) {
        let tasks = components.iter().flat_map(|of| &of.vertices).filter_map(|of| self.graph.task(*of));
        let calls = tasks
            .filter_map(|task| self.task(task))
            .flat_map(|task| task.found_in.iter().chain(task.drives.iter().map(|driven| &driven.call)));
        if let Some(call) = calls.into_iter().find(|call| call.guess) {
            finding.doubt(Doubt::RecognisedFuture { thread: call.thread });
        }
    }

    /// Whether it contains a main future of which only an earlier stack of its thread shows that it waits.
    fn has_resting_main(&self, component: &Component) -> bool {
        let is_unknown = |task: &Task| task.kind == TaskKind::Main && task.state != Some(TaskState::Idle);
        let is_main = |task: u32| self.task(task).is_some_and(is_unknown);
        let mains = component.vertices.iter().filter(|vertex| self.graph.task(**vertex).is_some_and(is_main));
        let mut waits = mains.flat_map(|vertex| self.graph.waits_of(*vertex));
        self.edges.waits.mains_rest && waits.any(|wait| !wait.kind.holds_main())
    }

    /// The doubt about waits that are judged by wakers, if there are any.
    fn by_wakers<'w>(&mut self, waits: impl Iterator<Item = &'w Wait>) -> Option<Doubt> {
        let edges: Vec<Edge> =
            waits.filter(|wait| wait.is_by_wakers()).map(|wait| self.edges.edge(wait)).collect();
        let futures: BTreeSet<String> =
            edges.iter().filter_map(|edge| Some(edge.leaf.as_ref()?.to_string())).collect();
        let futures = futures.into_iter().take(MAX_FUTURES).collect();
        (!edges.is_empty()).then_some(Doubt::ByWakers { futures })
    }

    /// A living owner of a handle of a resource: a task, or `None` for a static or a value that tasks share.
    fn living(&self, resource: ResourceKey, roles: Roles) -> Option<Option<u64>> {
        let of = self.graph.holders.of_resource(resource, roles);
        let alive = of.map(|holding| holding.owner).find(|owner| self.liveness.is_alive(*owner))?;
        let task = self.graph.holders.ownership.parts.task_of(alive);
        let is_task = matches!(alive, Node::Task(_) | Node::Part(_));
        Some(task.filter(|_| is_task).map(|task| self.edges.id(task)))
    }

    /// The tasks behind these components.
    fn behind(&self, components: &[Component]) -> Vec<u64> {
        self.ids(components.iter().flat_map(|component| component.behind.iter().copied()))
    }

    fn ids(&self, tasks: impl Iterator<Item = u32>) -> Vec<u64> {
        let tasks = tasks.filter(|task| self.edges.threads.thread(*task).is_none());
        let mut ids: Vec<u64> = tasks.map(|task| self.edges.id(task)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn pattern(&self, task: u32) -> Pattern {
        let waits = self.edges.waits.of_task(task);
        let mut pattern: Pattern = waits.iter().map(|wait| (self.edges.place(wait), wait.kind)).collect();
        pattern.dedup();
        pattern
    }
}

/// The tasks that wait for those of a finding, if there are any.
fn behind(tasks: &[u64]) -> Option<Evidence> {
    (!tasks.is_empty()).then(|| Evidence::Behind(TaskIds::of(tasks.iter().copied())))
}
