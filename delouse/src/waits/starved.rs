//! Tasks that were woken and that nothing polls, by two samples or more.
//!
//! A task that wants to run again and again looks the same as one that waits all the time. So only runtimes in which
//! nothing runs at all are reported, and runtimes with more woken tasks at once than chance can explain.

use std::collections::BTreeMap;

use super::sample::{LONG, Sample, interval, millis, queued};
use super::{Edge, Evidence, Finding, FindingKind, Severity, TaskWait, ThreadAt, location};
use crate::tasks::{ResourceKind, Task, TaskState};
use crate::threads::classify::rests;
use crate::threads::{Activity, ThreadRole, ThreadStack};

/// If this many tasks of one runtime wait for a worker in both samples, the workers are overloaded.
const MANY: usize = 1000;
/// The most tasks that are listed of those that wait for the ends of starved ones.
const MAX_WAITS: usize = 4;

/// Whether another sample could change the result.
pub(crate) fn is_undecided(samples: &[Sample]) -> bool {
    let [only] = samples else { return false };
    only.listing.tasks.iter().any(|task| task.state == Some(TaskState::Scheduled))
}

/// Whether the schedulers took at least `tasks` tasks from the first sample to the last: then each may have been polled
/// and woken again.
fn had_turns(first: &Sample, last: &Sample, tasks: usize) -> bool {
    let rounds = last.listing.rounds.iter();
    let taken = rounds.map(|(tid, now)| now.saturating_sub(first.rounds(*tid).unwrap_or(*now)));
    taken.fold(0, u64::saturating_add) >= tasks as u64
}

/// One finding for each runtime. Tasks behind a blocked worker are part of that finding.
pub(crate) fn check(samples: &[Sample], blocked: &[Finding]) -> Vec<Finding> {
    let Some(last) = samples.last() else { return Vec::new() };
    if interval(samples) < LONG {
        return Vec::new();
    }
    let mut runtimes: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
    for task in queued(samples) {
        runtimes.entry(task.runtime.as_deref().unwrap_or_default()).or_default().push(task);
    }
    let is_blocked = |runtime: &str| {
        let of = |id: &u64| last.task(*id).and_then(|task| task.runtime.as_deref());
        let is_main = |finding: &Finding| {
            let threads = finding.evidence.iter().filter_map(|fact| match fact {
                Evidence::InPoll { thread, .. } if finding.tasks == [0] => Some(thread.tid),
                _ => None,
            });
            let entered =
                |tid| last.listing.entered.iter().any(|(of, name)| *of == tid && **name == *runtime);
            threads.into_iter().any(entered)
        };
        blocked.iter().any(is_main)
            || blocked.iter().flat_map(|finding| &finding.tasks).any(|id| of(id) == Some(runtime))
    };
    let runtimes = runtimes.into_iter().filter(|(runtime, _)| !is_blocked(runtime));
    runtimes.filter_map(|(runtime, tasks)| finding(samples, runtime, &tasks)).collect()
}

fn finding(samples: &[Sample], runtime: &str, tasks: &[&Task]) -> Option<Finding> {
    let (first, last, example) = (samples.first()?, samples.last()?, tasks.first()?);
    let polled = |sample: &Sample| {
        let of = |task: &Task| task.runtime.as_deref() == Some(runtime);
        sample.listing.tasks.iter().any(|task| of(task) && task.state == Some(TaskState::Running))
    };
    let mut evidence = vec![Evidence::NotRun {
        task: example.id,
        place: location::of_task(&example.stack),
        count: tasks.len(),
        samples: samples.len(),
        lasted_ms: millis(interval(samples)),
    }];
    let one_thread = !runtime.starts_with("multi_thread");
    if one_thread && !samples.iter().any(polled) {
        evidence.push(Evidence::NoPolls { runtime: runtime.to_owned() });
        evidence.push(match drivers(samples).first() {
            Some(thread) => Evidence::BlockedDriver { thread: ThreadAt::of(thread) },
            None if samples.iter().any(busy_driver) => return None,
            None => Evidence::NoDriver,
        });
    } else if tasks.len() >= MANY && !had_turns(first, last, tasks.len()) {
        evidence.push(Evidence::Overloaded { runtime: runtime.to_owned() });
    } else {
        return None;
    }
    let names: Vec<String> = tasks.iter().map(|task| format!("task-{}", task.id)).collect();
    let joins = |edge: &&Edge| edge.resource.kind == ResourceKind::Join && names.contains(&edge.resource.id);
    let waits = last.graph.edges.iter().filter(joins).take(MAX_WAITS);
    evidence.extend(waits.map(|edge| Evidence::Waits(TaskWait::new(edge, edge.holders.iter()))));
    Some(Finding {
        kind: FindingKind::StarvedTasks,
        // Which thread drives a runtime is only inferred from its stack, and busy workers look overloaded.
        severity: Severity::Suspected,
        tasks: tasks.iter().map(|task| task.id).collect(),
        evidence,
    })
}

/// Threads in `block_on` that polled no task, took no task, and were not idle, all the time.
fn drivers(samples: &[Sample]) -> Vec<&ThreadStack> {
    let Some((last, before)) = samples.split_last() else { return Vec::new() };
    let stuck = |sample: &Sample, thread: &ThreadStack| {
        thread.role == ThreadRole::TokioBlockOn
            && thread.activity != Activity::Unknown
            && !rests(thread)
            && !sample.listing.running.iter().any(|(tid, _)| *tid == thread.tid)
            && sample.rounds(thread.tid) == last.rounds(thread.tid)
    };
    let always = |thread: &&ThreadStack| {
        stuck(last, thread)
            && thread.frames.iter().any(|frame| frame.own)
            && before.iter().all(|sample| sample.thread(thread.tid).is_some_and(|then| stuck(sample, then)))
    };
    last.threads.iter().filter(always).collect()
}

/// Whether some thread in `block_on` is awake: it may drive the runtime. A sleeping thread does not, because a task
/// that is woken wakes the driver of its runtime.
fn busy_driver(sample: &Sample) -> bool {
    sample.threads.iter().any(|thread| thread.role == ThreadRole::TokioBlockOn && !rests(thread))
}

#[cfg(test)]
mod tests;
