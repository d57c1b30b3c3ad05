//! What is wrong, by all that was looked at.

use std::cmp::Reverse;
use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::growing::Counts;
use super::look::Look;
use super::{Edge, Finding, NotJudgedList, blocked_worker, files, growing, starved, words};
use crate::snapshot::files::Files;
use crate::threads::ThreadRole;

/// What a diagnosis rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LookedAt {
    /// Tasks, those of `spawn_blocking` and `main` futures too.
    pub tasks: usize,
    /// Threads of the program, without delouse's own.
    pub threads: usize,
    /// Resources that somebody waits for: locks, channels, timers, sockets, ….
    pub resources: usize,
    /// Waits: a task in `select!` has several.
    pub waits: usize,
    /// Open files, where they could be counted.
    pub open_files: Option<usize>,
    /// How often the program was looked at.
    pub looks: usize,
    /// From the first look to the last, in milliseconds.
    pub apart_ms: u64,
    /// From the capture that growth is measured against, in milliseconds; `None` where growth was not asked for.
    pub growth_over_ms: Option<u64>,
    /// What could not be looked at, and why: there may be something wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_looked_at: Vec<String>,
}

/// What is wrong, and what was looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diagnosis {
    /// Worst first.
    pub(crate) findings: Vec<Finding>,
    pub(crate) looked_at: LookedAt,
    /// Tasks of which it is not known whether they will go on; none that a finding is about.
    pub(crate) not_judged: NotJudgedList,
}

/// Whether these looks leave a question that one more would answer.
pub(crate) fn is_undecided(looks: &[Look]) -> bool {
    // What a single look finds may be a moment that it caught: the next one confirms it.
    let unconfirmed = matches!(looks, [only] if !only.findings.is_empty());
    unconfirmed || blocked_worker::is_undecided(looks) || starved::is_undecided(looks)
}

/// The diagnosis of `looks`, in the order of time; `earlier` to tell what has grown.
pub(crate) fn diagnose(looks: &[Look], files: Option<&Files>, earlier: Option<&Counts>) -> Diagnosis {
    let Some(last) = looks.last() else { return Diagnosis::default() };
    let tasks = &last.listing.tasks;
    let mut findings = confirmed(looks);
    let blocked_threads = blocked(last);
    findings.iter_mut().for_each(|finding| tell_threads(finding, last, &blocked_threads));
    let blocked = blocked_worker::check(looks);
    findings.extend(starved::check(looks, &blocked));
    findings.extend(blocked);
    findings.extend(files.and_then(|open| files::check(open, tasks)));
    if let Some(earlier) = earlier {
        // A leak that is proven needs no suspicion of growth.
        let told: HashSet<u64> = findings.iter().flat_map(|finding| &finding.tasks).copied().collect();
        let grown = growing::check(earlier, last.at, tasks);
        let (known, new): (Vec<_>, Vec<_>) =
            grown.into_iter().partition(|finding| finding.tasks.iter().all(|task| told.contains(task)));
        for grown in known {
            let of = |finding: &&mut Finding| grown.tasks.iter().any(|task| finding.tasks.contains(task));
            if let Some(finding) = findings.iter_mut().find(of) {
                finding.evidence.push(grown.summary);
            }
        }
        findings.extend(new);
    }
    findings.sort_by_key(|finding| (finding.severity, finding.kind, Reverse(finding.tasks.len())));
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let looked_at = LookedAt {
        tasks: tasks.len(),
        threads: last.threads.iter().filter(|thread| thread.role != ThreadRole::Delouse).count(),
        resources: last.resources(),
        waits: last.graph.edges.len(),
        open_files: files.map(|files| files.open),
        looks: looks.len(),
        apart_ms: looks.first().map_or(0, |first| millis(last.at.saturating_sub(first.at))),
        growth_over_ms: earlier.map(|earlier| millis(last.at.saturating_sub(earlier.at()))),
        not_looked_at: not_looked_at(last),
    };
    let not_judged = last.not_judged.clone().without(&findings);
    Diagnosis { findings, looked_at, not_judged }
}

fn not_looked_at(look: &Look) -> Vec<String> {
    let mut missing = look.doubts.clone();
    if look.listing.without_types && look.listing.shortage.is_none() {
        missing.push("what tasks wait for and who holds it: the debug information has no types".to_owned());
    }
    if !cfg!(target_arch = "x86_64") {
        missing.push("which thread polls which task: known on x86_64 only".to_owned());
    }
    missing
}

/// The waits in which a thread itself is blocked: few, and asked for by every finding.
fn blocked(look: &Look) -> Vec<&Edge> {
    look.graph.edges.iter().filter(|edge| edge.thread.is_some()).collect()
}

/// Whether each thread that a finding is about was blocked at the same lock before, in the same poll: threads that
/// contend wait for one another in ever new ways.
fn blocks_the_same(
    finding: &Finding,
    (before, then): (&Look, &[&Edge]),
    (last, now): (&Look, &[&Edge]),
) -> bool {
    let of = |edge: &Edge| (edge.waiter, edge.thread, edge.resource.address.clone());
    let rounds = |look: &Look, edge: &Edge| edge.thread.and_then(|tid| look.rounds(tid));
    now.iter().filter(|edge| is_about(finding, edge)).all(|edge| {
        then.iter().any(|earlier| of(earlier) == of(edge)) && rounds(before, edge) == rounds(last, edge)
    })
}

fn is_about(finding: &Finding, edge: &Edge) -> bool {
    edge.waiter.is_some_and(|task| finding.tasks.contains(&task))
}

/// Adds where those are whose thread is blocked: no `.await`, but a line on the thread's stack.
fn tell_threads(finding: &mut Finding, last: &Look, blocked: &[&Edge]) {
    let about: Vec<&Edge> = blocked.iter().copied().filter(|edge| is_about(finding, edge)).take(8).collect();
    for edge in about {
        let (Some(task), Some(tid)) = (edge.waiter, edge.thread) else { continue };
        let Some((place, called)) = last.thread(tid).and_then(words::own_line) else { continue };
        let called = called.map(|called| format!(", which called {called}")).unwrap_or_default();
        let lock = &edge.resource.id;
        finding
            .evidence
            .insert(0, format!("{} blocks thread {tid} for {lock} in {place}{called}", words::name(task)));
    }
}

/// What the last look found and the one before it too, as far as there is one.
fn confirmed(looks: &[Look]) -> Vec<Finding> {
    match looks {
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

/// Whether two lists of ids have one in common, or name none at all.
fn overlap(one: &[u64], other: &[u64]) -> bool {
    let ids: HashSet<&u64> = one.iter().collect();
    (one.is_empty() && other.is_empty()) || other.iter().any(|id| ids.contains(id))
}

impl LookedAt {
    /// `12 tasks, 6 threads, 9 resources that somebody waits for, 18 open files; 2 looks, 150 ms apart`.
    pub(crate) fn words(&self) -> String {
        use words::{count, span};
        let mut text = format!(
            "{}, {}, {} that somebody waits for",
            count(self.tasks, "task"),
            count(self.threads, "thread"),
            count(self.resources, "resource")
        );
        if let Some(files) = self.open_files {
            text.push_str(&format!(", {}", count(files, "open file")));
        }
        let millis = std::time::Duration::from_millis;
        match self.looks {
            0 | 1 => text.push_str("; one look"),
            looks => text.push_str(&format!("; {looks} looks, {} apart", span(millis(self.apart_ms)))),
        }
        match self.growth_over_ms {
            Some(ms) => text.push_str(&format!("; growth over {}", span(millis(ms)))),
            None => text.push_str("; growth was not measured"),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::super::{FindingKind, Severity, made_up};
    use super::*;

    fn finding(kind: FindingKind, severity: Severity, tasks: &[u64]) -> Finding {
        Finding {
            kind,
            severity,
            summary: format!("{kind:?} of {tasks:?}"),
            tasks: tasks.to_vec(),
            evidence: Vec::new(),
            remedy: None,
        }
    }

    fn look(ms: u64, findings: &[Finding]) -> Look {
        let tasks = vec![made_up::task(1, "app::one", 1), made_up::task(2, "app::two", 2)];
        Look { findings: findings.to_vec(), ..made_up::look(ms, tasks, Vec::new()) }
    }

    #[test]
    fn what_could_not_be_looked_at_is_told() {
        let mut blind = look(0, &[]);
        assert_eq!(diagnose(&[blind.clone()], None, None).looked_at.not_looked_at, [""; 0]);
        blind.listing.without_types = true;
        blind.doubts.push("memory beyond a gigabyte".to_owned());
        assert_eq!(diagnose(&[blind], None, None).looked_at.not_looked_at.len(), 2);
    }

    #[test]
    fn only_what_two_looks_agree_on() {
        let deadlock = finding(FindingKind::Deadlock, Severity::Certain, &[1, 2]);
        let leak = finding(FindingKind::LeakedTasks, Severity::Certain, &[1]);
        assert!(is_undecided(&[look(0, from_ref(&deadlock))]));
        let both = [look(0, &[deadlock.clone(), leak.clone()]), look(150, from_ref(&deadlock))];
        assert!(!is_undecided(&both));
        assert_eq!(diagnose(&both, None, None).findings, from_ref(&deadlock));
        assert_eq!(diagnose(&[look(0, &[]), look(150, &[deadlock])], None, None).findings, []);
        // A leak goes on growing.
        let grown = finding(FindingKind::LeakedTasks, Severity::Certain, &[1, 2]);
        assert_eq!(diagnose(&[look(0, &[leak]), look(150, from_ref(&grown))], None, None).findings, [grown]);
    }

    #[test]
    fn the_worst_comes_first() {
        let found = [
            finding(FindingKind::Deadlock, Severity::Suspected, &[1]),
            finding(FindingKind::UnwakeableTask, Severity::Certain, &[1]),
            finding(FindingKind::LeakedTasks, Severity::Certain, &[1]),
            finding(FindingKind::LeakedTasks, Severity::Certain, &[1, 2]),
        ];
        let looks = [look(0, &found), look(150, &found)];
        let order: Vec<_> = diagnose(&looks, None, None).findings.into_iter().map(|f| f.summary).collect();
        assert_eq!(
            order,
            ["LeakedTasks of [1, 2]", "LeakedTasks of [1]", "UnwakeableTask of [1]", "Deadlock of [1]"]
        );
    }

    #[test]
    fn what_was_looked_at() {
        let healthy = diagnose(&[look(0, &[])], None, None);
        assert_eq!(healthy.findings, []);
        assert_eq!(
            healthy.looked_at.words(),
            "2 tasks, 0 threads, 0 resources that somebody waits for; one look; growth was not measured"
        );
        assert!(!is_undecided(&[look(0, &[])]));
    }

    #[test]
    fn a_proven_leak_is_not_told_as_growth_too() {
        let tasks = |ids: std::ops::RangeInclusive<u64>| {
            ids.map(|id| made_up::task(id, "app::one", 1)).collect::<Vec<_>>()
        };
        let earlier = Counts::new(std::time::Duration::ZERO, &tasks(1..=10));
        let mut look = made_up::look(2000, tasks(1..=30), Vec::new());
        let growth = diagnose(&[look.clone()], None, Some(&earlier)).findings;
        assert_eq!(growth[0].kind, FindingKind::GrowingGroup);
        let all: Vec<u64> = (1..=30).collect();
        look.findings = vec![finding(FindingKind::LeakedTasks, Severity::Certain, &all)];
        let leak = diagnose(&[look], None, Some(&earlier)).findings;
        assert_eq!(leak.len(), 1);
        assert_eq!(leak[0].kind, FindingKind::LeakedTasks);
    }
}
