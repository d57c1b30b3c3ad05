//! What follows from the graph of stuck tasks: deadlocks, futurelocks, leaked tasks, tasks that nothing
//! wakes.

mod deadlock;
mod leak;
mod sentences;
mod unwakeable;

use std::collections::BTreeMap;

use sentences::a;

use super::edges::Teller;
use super::handles::Roles;
use super::islands::{Graph, Island};
use super::liveness::Liveness;
use super::ownership::Node;
use super::remains::Remains;
use super::resources::holds_main;
use super::{Finding, Gap, Severity, words};
use crate::tasks::{Task, TaskKind};

/// All findings, worst first.
pub(super) fn findings(
    graph: &Graph<'_>,
    islands: Vec<Island>,
    liveness: &Liveness,
    remains: &Remains,
    gaps: &[Gap],
    teller: &mut Teller<'_, '_, '_, '_>,
) -> Vec<Finding> {
    let mut judge = Judge { graph, liveness, remains, gaps, teller };
    let mut findings = Vec::new();
    let mut leaks: BTreeMap<Vec<String>, Vec<Island>> = BTreeMap::new();
    let mut ends: BTreeMap<String, Vec<Island>> = BTreeMap::new();
    for island in islands {
        let mut waits = island.vertices.iter().filter_map(|vertex| graph.wait(*vertex));
        if let [only] = island.vertices.as_slice()
            && let Some(task) = graph.task(*only)
        {
            if judge.is_worth_telling(&island, task) {
                ends.entry(judge.pattern(task)).or_default().push(island);
            }
        } else if waits.any(|wait| graph.blocks(wait)) {
            let mut finding = judge.deadlock(&island);
            if judge.has_resting_main(&island) {
                finding.doubt_main();
            }
            findings.push(finding);
        } else {
            let tasks = island.vertices.iter().filter_map(|vertex| graph.task(*vertex));
            let mut patterns: Vec<String> = tasks.map(|task| judge.pattern(task)).collect();
            patterns.sort();
            patterns.dedup();
            leaks.entry(patterns).or_default().push(island);
        }
    }
    for islands in leaks.into_values() {
        let mut finding = judge.leak(&islands);
        if islands.iter().any(|island| judge.has_resting_main(island)) {
            finding.doubt_main();
        }
        findings.push(finding);
    }
    findings.extend(ends.into_values().map(|islands| judge.unwakeable(&islands)));
    findings.sort_by_key(|finding| (finding.severity == Severity::Suspected, finding.kind));
    findings
}

struct Judge<'j, 't, 'e, 'p, 'i> {
    graph: &'j Graph<'j>,
    liveness: &'j Liveness,
    remains: &'j Remains,
    /// What was not read.
    gaps: &'j [Gap],
    teller: &'j mut Teller<'t, 'e, 'p, 'i>,
}

impl Judge<'_, '_, '_, '_, '_> {
    fn task(&self, number: u32) -> Option<&Task> {
        self.teller.examination.listing.tasks.get(number as usize)
    }

    /// Whether it takes a main future that only its thread says to wait.
    fn has_resting_main(&self, island: &Island) -> bool {
        let is_main = |task: u32| self.task(task).is_some_and(|of| of.kind == TaskKind::Main);
        let mains = island.vertices.iter().filter(|vertex| self.graph.task(**vertex).is_some_and(is_main));
        let mut waits = mains.flat_map(|vertex| self.graph.waits_of(*vertex));
        self.teller.waits.mains_rest && waits.any(|wait| !holds_main(wait.kind))
    }

    /// Somebody alive that has a handle of a resource, as words.
    fn living(&self, resource: u64, roles: Roles) -> Option<String> {
        let of = self.graph.holders.of_resource(resource, roles);
        let alive = of.map(|holding| holding.owner).find(|owner| self.liveness.is_alive(*owner))?;
        let task = self.graph.holders.ownership.parts.task_of(alive);
        Some(match alive {
            Node::Task(_) | Node::Part(_) => words::name(self.teller.id(task?)),
            Node::Object(_) => "somebody outside of these tasks".to_owned(),
            Node::Statics => "a static".to_owned(),
        })
    }

    fn behind(&self, island: &Island, evidence: &mut Vec<String>) {
        if !island.behind.is_empty() {
            let behind = self.ids(island.behind.iter().copied());
            evidence.push(sentences::behind(&behind));
        }
    }

    fn ids(&self, tasks: impl Iterator<Item = u32>) -> Vec<u64> {
        let mut ids: Vec<u64> = tasks.map(|task| self.teller.id(task)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Where a task waits, and for what: tasks with the same pattern are told together.
    fn pattern(&self, task: u32) -> String {
        let waits = self.teller.waits.of_task(task);
        let mut parts: Vec<String> = waits
            .iter()
            .map(|wait| {
                let place = self.teller.place(wait).unwrap_or_else(|| "?".into());
                format!("`{place}` waits for {}", a(wait.kind))
            })
            .collect();
        parts.dedup();
        match parts.len() {
            0 => "?".to_owned(),
            _ => parts.join(", or "),
        }
    }
}
