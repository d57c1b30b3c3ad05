//! What is wrong, concluded from all samples.

use std::cmp::Reverse;
use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::growing::Counts;
use super::sample::{Sample, interval, millis};
use super::{
    Edge, Evidence, Finding, NotCovered, Observation, UnjudgedList, blocked_worker, blocking_pool, busy_loop,
    files, growing, location, observations, shutdown, starved,
};
use crate::host::open_files::OpenFiles;
use crate::threads::ThreadRole;

/// What a diagnosis rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Scope {
    /// Tasks, those of `spawn_blocking` and `main` futures too.
    pub tasks: usize,
    /// Threads of the program, without delouse's own.
    pub threads: usize,
    /// Resources that have waiters: locks, channels, timers, sockets, ….
    pub resources: usize,
    /// Waits: a task in `select!` has several.
    pub waits: usize,
    /// Open files, where they could be counted.
    pub open_files: Option<usize>,
    /// How many samples were taken of the program.
    pub samples: usize,
    /// From the first sample to the last, in milliseconds.
    pub interval_ms: u64,
    /// From the capture that growth is measured against, in milliseconds; `None` if growth was not requested.
    pub growth_over_ms: Option<u64>,
}

/// The findings, and what they are based on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diagnosis {
    /// Worst first.
    pub(crate) findings: Vec<Finding>,
    pub(crate) scope: Scope,
    /// Tasks of which it is not known whether they will continue, without those that a finding is about.
    pub(crate) not_judged: UnjudgedList,
    /// What is true and may be wrong, worst first.
    pub(crate) observations: Vec<Observation>,
    pub(crate) not_covered: Vec<NotCovered>,
}

/// Earlier captures that growth is measured against.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Earlier<'c> {
    /// The one that the request names: growth since then is a finding.
    pub(crate) requested: Option<&'c Counts>,
    /// The oldest one that is known: growth since then is an observation.
    pub(crate) kept: Option<&'c Counts>,
}

/// Whether another sample could change the diagnosis.
pub(crate) fn is_undecided(samples: &[Sample]) -> bool {
    // A finding of a single sample may be about a passing state: the next sample confirms it.
    let unconfirmed = matches!(samples, [only] if !only.findings.is_empty());
    unconfirmed
        || blocked_worker::is_undecided(samples)
        || starved::is_undecided(samples)
        || blocking_pool::is_undecided(samples)
        || observations::is_undecided(samples)
        || busy_loop::is_undecided(samples)
        || shutdown::is_undecided(samples)
}

/// The diagnosis of `samples`, in the order of time.
pub(crate) fn diagnose(samples: &[Sample], files: Option<&OpenFiles>, earlier: Earlier<'_>) -> Diagnosis {
    let Some(last) = samples.last() else { return Diagnosis::default() };
    let tasks = &last.listing.tasks;
    let mut findings = confirmed(samples);
    let blocked_threads = blocked(last);
    findings.iter_mut().for_each(|finding| add_threads(finding, last, &blocked_threads));
    let busy = busy_loop::check(samples);
    let mut blocked = blocked_worker::check(samples);
    // A loop that never ends says more than a poll that does not return.
    let is_busy = |task: &u64| busy.iter().any(|finding| finding.tasks.contains(task));
    blocked.retain(|finding| !finding.tasks.iter().all(is_busy));
    findings.extend(busy.iter().cloned());
    let starved = starved::check(samples, &blocked);
    blocked.retain(|blocked| !is_explained(&mut findings, blocked));
    findings.extend(starved);
    findings.extend(blocked);
    findings.extend(blocking_pool::check(samples));
    findings.extend(shutdown::check(samples));
    findings.extend(files.and_then(|open| files::check(open, tasks)));
    if let Some(earlier) = earlier.requested {
        // A proven leak is not suspected of growth as well.
        let known: HashSet<u64> = findings.iter().flat_map(|finding| &finding.tasks).copied().collect();
        let grown = growing::check(earlier, last);
        let (proven, new): (Vec<_>, Vec<_>) =
            grown.into_iter().partition(|finding| finding.tasks.iter().all(|task| known.contains(task)));
        for grown in proven {
            let of = |finding: &&mut Finding| overlap(&grown.tasks, &finding.tasks);
            if let Some(finding) = findings.iter_mut().find(of) {
                finding.evidence.extend(grown.evidence);
            }
        }
        findings.extend(new);
    }
    findings.sort_by_key(|finding| (finding.severity, finding.kind, Reverse(finding.tasks.len())));
    let scope = Scope {
        tasks: tasks.len(),
        threads: last.threads.iter().filter(|thread| thread.role != ThreadRole::Delouse).count(),
        resources: last.resources(),
        waits: last.graph.edges.len(),
        open_files: files.map(|files| files.open),
        samples: samples.len(),
        interval_ms: millis(interval(samples)),
        growth_over_ms: earlier.requested.map(|earlier| millis(last.at.saturating_sub(earlier.at()))),
    };
    let not_judged = last.not_judged.clone().without(&findings);
    let kept = earlier.kept.filter(|_| earlier.requested.is_none());
    let observations = observations::check(samples, (&findings, &not_judged), kept);
    Diagnosis { findings, scope, not_judged, observations, not_covered: not_covered(last) }
}

fn not_covered(sample: &Sample) -> Vec<NotCovered> {
    let mut missing = sample.not_covered.clone();
    if sample.listing.without_types && sample.listing.shortage.is_none() {
        missing.push(NotCovered::Types);
    }
    missing
}

/// The waits that block a thread itself. They are few, and every finding needs them.
fn blocked(sample: &Sample) -> Vec<&Edge> {
    sample.graph.edges.iter().filter(|edge| edge.thread.is_some()).collect()
}

/// Whether each thread that a finding is about was blocked at the same lock before, in the same poll: threads that
/// contend wait for one another in ever new ways.
fn blocks_the_same(
    finding: &Finding,
    (before, then): (&Sample, &[&Edge]),
    (last, now): (&Sample, &[&Edge]),
) -> bool {
    let of = |edge: &Edge| (edge.waiter, edge.thread, edge.resource.address.clone());
    let rounds = |sample: &Sample, edge: &Edge| edge.thread.and_then(|tid| sample.rounds(tid));
    now.iter().filter(|edge| is_about(finding, edge)).all(|edge| {
        then.iter().any(|earlier| of(earlier) == of(edge)) && rounds(before, edge) == rounds(last, edge)
    })
}

fn is_about(finding: &Finding, edge: &Edge) -> bool {
    edge.waiter.is_some_and(|task| finding.tasks.contains(&task))
}

/// Adds the lines at which tasks block their threads: those are on the threads' stacks, and at no `.await`.
fn add_threads(finding: &mut Finding, last: &Sample, blocked: &[&Edge]) {
    let about: Vec<&Edge> = blocked.iter().copied().filter(|edge| is_about(finding, edge)).take(8).collect();
    for edge in about {
        let (Some(task), Some(tid)) = (edge.waiter, edge.thread) else { continue };
        let Some((place, called)) = last.thread(tid).and_then(location::own_line) else { continue };
        let (resource, called) = (edge.resource.clone(), called.map(str::to_owned));
        finding.evidence.insert(0, Evidence::BlocksThread { task, thread: tid, resource, place, called });
    }
}

/// Whether blocked threads wait for a lock in the circle of another finding, which says more. What these threads mean for
/// others is added to that finding.
fn is_explained(findings: &mut [Finding], blocked: &Finding) -> bool {
    let blocks = |finding: &Finding, task: &u64| {
        let of = |fact: &Evidence| matches!(fact, Evidence::BlocksThread { task: of, .. } if of == task);
        finding.evidence.iter().any(of)
    };
    let explains = |finding: &&mut Finding| blocked.tasks.iter().all(|task| blocks(finding, task));
    let Some(cause) = findings.iter_mut().find(explains) else { return false };
    let meaning = blocked.evidence.iter().filter(|fact| {
        matches!(fact, Evidence::InPoll { .. } | Evidence::NoEventLoop { .. } | Evidence::Queued(_))
    });
    // Before what makes it doubtful.
    let end = cause.evidence.iter().position(|fact| matches!(fact, Evidence::Doubt { .. }));
    let end = end.unwrap_or(cause.evidence.len());
    cause.evidence.splice(end..end, meaning.cloned());
    true
}

/// The findings of the last sample that the sample before it has, too, if there is one.
fn confirmed(samples: &[Sample]) -> Vec<Finding> {
    match samples {
        [.., before, last] => {
            let (then, now) = (blocked(before), blocked(last));
            let same = |a: &Finding, b: &Finding| a.kind == b.kind && overlap(&a.tasks, &b.tasks);
            let seen = |found: &&Finding| {
                before.findings.iter().any(|earlier| same(earlier, found))
                    && blocks_the_same(found, (before, &then), (last, &now))
            };
            last.findings.iter().filter(seen).cloned().collect()
        }
        [only] => only.findings.clone(),
        [] => Vec::new(),
    }
}

/// Whether two lists of ids have an id in common, or are both empty.
fn overlap(one: &[u64], other: &[u64]) -> bool {
    let ids: HashSet<&u64> = one.iter().collect();
    (one.is_empty() && other.is_empty()) || other.iter().any(|id| ids.contains(id))
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;
    use std::sync::Arc;

    use super::super::{CodeLocation, Doubt, FindingKind, Severity, TaskIds, fixtures};
    use super::*;

    fn finding(kind: FindingKind, severity: Severity, tasks: &[u64]) -> Finding {
        Finding { kind, severity, tasks: tasks.to_vec(), evidence: Vec::new() }
    }

    fn sample(ms: u64, findings: &[Finding]) -> Sample {
        let tasks = vec![fixtures::task(1, "app::one", 1), fixtures::task(2, "app::two", 2)];
        Sample { findings: findings.to_vec(), ..fixtures::sample(ms, tasks, Vec::new()) }
    }

    #[test]
    fn what_could_not_be_looked_at_is_told() {
        let mut blind = sample(0, &[]);
        assert_eq!(diagnose(&[blind.clone()], None, Earlier::default()).not_covered, []);
        blind.listing.without_types = true;
        blind.not_covered.push(NotCovered::Holders);
        assert_eq!(diagnose(&[blind], None, Earlier::default()).not_covered.len(), 2);
    }

    #[test]
    fn only_what_two_looks_agree_on() {
        let deadlock = finding(FindingKind::Deadlock, Severity::Certain, &[1, 2]);
        let leak = finding(FindingKind::LeakedTasks, Severity::Certain, &[1]);
        assert!(is_undecided(&[sample(0, from_ref(&deadlock))]));
        assert!(!is_undecided(&[sample(0, &[])]));
        let both = [sample(0, &[deadlock.clone(), leak.clone()]), sample(150, from_ref(&deadlock))];
        assert!(!is_undecided(&both));
        assert_eq!(diagnose(&both, None, Earlier::default()).findings, from_ref(&deadlock));
        assert_eq!(
            diagnose(&[sample(0, &[]), sample(150, &[deadlock])], None, Earlier::default()).findings,
            []
        );
        // A leak continues to grow.
        let grown = finding(FindingKind::LeakedTasks, Severity::Certain, &[1, 2]);
        assert_eq!(
            diagnose(&[sample(0, &[leak]), sample(150, from_ref(&grown))], None, Earlier::default()).findings,
            [grown]
        );
    }

    #[test]
    fn a_deadlock_explains_the_threads_that_it_blocks() {
        let blocks = |task| Evidence::BlocksThread {
            task,
            thread: 7,
            resource: Arc::default(),
            place: CodeLocation::default(),
            called: None,
        };
        let mut deadlock = finding(FindingKind::Deadlock, Severity::Suspected, &[1, 2]);
        deadlock.evidence = vec![blocks(1), Evidence::Doubt { why: Doubt::MayDoMore }];
        let mut blocked = finding(FindingKind::BlockedWorker, Severity::Certain, &[1]);
        blocked.evidence = vec![Evidence::BlockInPlace, Evidence::Queued(TaskIds::of([3]))];
        let mut findings = [deadlock];
        assert!(is_explained(&mut findings, &blocked));
        let facts =
            [blocks(1), Evidence::Queued(TaskIds::of([3])), Evidence::Doubt { why: Doubt::MayDoMore }];
        assert_eq!(findings[0].evidence, facts);
        blocked.tasks = vec![2];
        assert!(!is_explained(&mut findings, &blocked), "its thread waits for something else");
    }

    #[test]
    fn the_worst_comes_first() {
        let found = [
            finding(FindingKind::Deadlock, Severity::Suspected, &[1]),
            finding(FindingKind::UnwakeableTask, Severity::Certain, &[1]),
            finding(FindingKind::LeakedTasks, Severity::Certain, &[1]),
            finding(FindingKind::LeakedTasks, Severity::Certain, &[1, 2]),
        ];
        let samples = [sample(0, &found), sample(150, &found)];
        let order: Vec<_> = diagnose(&samples, None, Earlier::default())
            .findings
            .into_iter()
            .map(|f| (f.kind, f.tasks))
            .collect();
        assert_eq!(
            order,
            [
                (FindingKind::LeakedTasks, vec![1, 2]),
                (FindingKind::LeakedTasks, vec![1]),
                (FindingKind::UnwakeableTask, vec![1]),
                (FindingKind::Deadlock, vec![1]),
            ]
        );
    }

    #[test]
    fn a_proven_leak_is_not_told_as_growth_too() {
        let tasks = |ids: std::ops::RangeInclusive<u64>| {
            ids.map(|id| fixtures::task(id, "app::one", 1)).collect::<Vec<_>>()
        };
        let earlier = Counts::new(std::time::Duration::ZERO, &tasks(1..=10));
        let mut sample = fixtures::sample(2000, tasks(1..=30), Vec::new());
        let growth =
            diagnose(&[sample.clone()], None, Earlier { requested: Some(&earlier), kept: None }).findings;
        assert_eq!(growth[0].kind, FindingKind::GrowingGroup);
        let all: Vec<u64> = (1..=30).collect();
        sample.findings = vec![finding(FindingKind::LeakedTasks, Severity::Certain, &all)];
        let leak = diagnose(&[sample], None, Earlier { requested: Some(&earlier), kept: None }).findings;
        assert_eq!(leak.len(), 1);
        assert_eq!(leak[0].kind, FindingKind::LeakedTasks);
    }
}
