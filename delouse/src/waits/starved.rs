//! Tasks that were woken and that nobody polls, by two looks or more.
//!
//! A task that wants to run again and again looks the same as one that waits all the time. So this tells only of
//! runtimes in which nothing runs at all, and of more tasks at once than a worker can have by bad luck.

use std::collections::BTreeMap;

use super::blocked_worker::LONG;
use super::look::Look;
use super::{Finding, FindingKind, Severity, words};
use crate::tasks::{Task, TaskKind, TaskState};
use crate::threads::classify::rests;
use crate::threads::{Activity, ThreadRole, ThreadStack};

/// So many tasks of one runtime that wait for a worker at both looks are too many for its workers.
const MANY: usize = 1000;

/// Whether another look would tell more.
pub(crate) fn is_undecided(looks: &[Look]) -> bool {
    let [only] = looks else { return false };
    only.listing.tasks.iter().any(|task| task.state == Some(TaskState::Scheduled))
}

/// The tasks that wait for a worker in each look, at the same place.
pub(super) fn waiting(looks: &[Look]) -> impl Iterator<Item = &Task> {
    let waits = |task: &&Task| task.state == Some(TaskState::Scheduled) && task.kind != TaskKind::Blocking;
    let (last, before) = match looks.split_last() {
        Some((last, before)) => (last.listing.tasks.as_slice(), before),
        None => (Default::default(), looks),
    };
    last.iter().filter(waits).filter(move |task| {
        before.iter().all(|look| {
            let then = look.task(task.id).filter(waits);
            then.is_some_and(|then| then.stack == task.stack && then.waits_on == task.waits_on)
        })
    })
}

/// Whether the schedulers took that many tasks from the first look to the last: then each may have had its turn,
/// and have been woken again.
fn had_turns(first: &Look, last: &Look, tasks: usize) -> bool {
    let rounds = last.listing.rounds.iter();
    let taken = rounds.map(|(tid, now)| now.saturating_sub(first.rounds(*tid).unwrap_or(*now)));
    taken.fold(0, u64::saturating_add) >= tasks as u64
}

/// One finding for each runtime. Those behind a blocked worker are told there.
pub(crate) fn check(looks: &[Look], blocked: &[Finding]) -> Vec<Finding> {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else { return Vec::new() };
    if last.at.saturating_sub(first.at) < LONG {
        return Vec::new();
    }
    let mut runtimes: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
    for task in waiting(looks) {
        runtimes.entry(task.runtime.as_deref().unwrap_or_default()).or_default().push(task);
    }
    let told = |runtime: &str| {
        let of = |id: &u64| last.task(*id).and_then(|task| task.runtime.as_deref());
        blocked.iter().flat_map(|finding| &finding.tasks).any(|id| of(id) == Some(runtime))
    };
    let runtimes = runtimes.into_iter().filter(|(runtime, _)| !told(runtime));
    runtimes.filter_map(|(runtime, tasks)| finding(looks, runtime, &tasks)).collect()
}

fn finding(looks: &[Look], runtime: &str, tasks: &[&Task]) -> Option<Finding> {
    let (first, last) = (looks.first()?, looks.last()?);
    let ids: Vec<u64> = tasks.iter().map(|task| task.id).collect();
    let apart = words::span(last.at.saturating_sub(first.at));
    let example = tasks.first().map(|task| words::task(task))?;
    let woken = match tasks.len() {
        1 => format!("{example} was woken and waits to be polled"),
        n => format!("{n} tasks were woken and wait to be polled ({example} is one)"),
    };
    let polled = |look: &Look| {
        let of = |task: &Task| task.runtime.as_deref() == Some(runtime);
        look.listing.tasks.iter().any(|task| of(task) && task.state == Some(TaskState::Running))
    };
    let one_thread = !runtime.starts_with("multi_thread");
    let seen = format!("{}: the same tasks at the same places each time", words::looked(looks.len(), &apart));
    if one_thread && !looks.iter().any(polled) {
        let drivers: Vec<&ThreadStack> = drivers(looks);
        let (cause, remedy) = match drivers.as_slice() {
            [] if looks.iter().any(busy_driver) => return None,
            [] => (
                "no thread was found that polls their runtime".to_owned(),
                "run the runtime: its tasks move only inside block_on (of a LocalSet: while it is polled)",
            ),
            [thread, ..] => {
                let place = words::own_line(thread).map(|(place, _)| place).unwrap_or_default();
                (
                    format!("thread {} does not come back from {place}", thread.tid),
                    "block_on's own future must not block: use .await, or tokio::task::spawn_blocking",
                )
            }
        };
        return Some(Finding {
            kind: FindingKind::StarvedTasks,
            // Which thread drives a runtime is a conclusion from what is left.
            severity: Severity::Suspected,
            summary: format!("{woken} for {apart} or more: {cause}"),
            tasks: ids,
            evidence: vec![seen, format!("no task of the runtime {runtime} was being polled")],
            remedy: Some(remedy.to_owned()),
        });
    }
    (tasks.len() >= MANY && !had_turns(first, last, tasks.len())).then(|| Finding {
        kind: FindingKind::StarvedTasks,
        severity: Severity::Suspected,
        summary: format!("{woken} for {apart}: the workers may have more to do than they can"),
        tasks: ids,
        evidence: vec![seen, format!("they are of the runtime {runtime}")],
        remedy: Some(
            "look at what the workers do in /stacktrace/rust; do less, or have more of them".to_owned(),
        ),
    })
}

/// Threads in `block_on` that polled no task, took no task, and were not idle, all the time.
fn drivers(looks: &[Look]) -> Vec<&ThreadStack> {
    let Some((last, before)) = looks.split_last() else { return Vec::new() };
    let stuck = |look: &Look, thread: &ThreadStack| {
        thread.role == ThreadRole::TokioBlockOn
            && thread.activity != Activity::Unknown
            && !rests(thread)
            && !look.listing.running.iter().any(|(tid, _)| *tid == thread.tid)
            && look.rounds(thread.tid) == last.rounds(thread.tid)
    };
    let always = |thread: &&ThreadStack| {
        stuck(last, thread)
            && thread.frames.iter().any(|frame| frame.own)
            && before.iter().all(|look| look.thread(thread.tid).is_some_and(|then| stuck(look, then)))
    };
    last.threads.iter().filter(always).collect()
}

/// Whether some thread in `block_on` is awake, which may be the one that drives the runtime. One that sleeps is
/// not: a task that is woken wakes its driver.
fn busy_driver(look: &Look) -> bool {
    look.threads.iter().any(|thread| thread.role == ThreadRole::TokioBlockOn && !rests(thread))
}

#[cfg(test)]
mod tests;
