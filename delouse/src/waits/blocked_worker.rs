//! A thread that is inside one poll for too long, by two samples or more.
//!
//! The scheduler counts the tasks that it takes: where that count stays the same between samples, and the thread polls
//! the same task in each, it has been inside that poll all the time. Without the count it may have been several polls
//! in a row, and the finding is only suspected.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::sample::{LONG, Sample, millis, queued};
use super::{Evidence, Finding, FindingKind, Party, Severity, TaskIds, TaskWait, ThreadAt, location};
use crate::tasks::{ResourceKind, Task, TaskKind, TaskState, WaitsOn};
use crate::threads::classify::rests;
use crate::threads::{Activity, ThreadRole, ThreadStack};

/// One thread in one poll.
struct Poll<'l> {
    task: &'l Task,
    thread: &'l ThreadStack,
    /// From the first sample that shows it to the last.
    lasted: Duration,
    /// How many samples show it.
    samples: usize,
    /// Processor time that the thread has used meanwhile.
    used: Option<Duration>,
    /// The scheduler's count says that it is one poll.
    counted: bool,
    /// tokio has given the worker's other tasks to another thread.
    in_place: bool,
    /// The runtime that the thread works for.
    runtime: Option<Arc<str>>,
}

impl Poll<'_> {
    /// Whether the poll is long. A thread that computes may have had no processor; a waiting thread needs none.
    fn is_long(&self) -> bool {
        match (self.thread.activity, self.used) {
            // Tasks of a LocalSet that take turns inside of one poll of the set look like this, too.
            (Activity::Running, _) if !self.counted => false,
            (Activity::Running, Some(used)) => used >= LONG,
            _ => self.lasted >= LONG,
        }
    }
}

/// Whether another sample could show that a poll is long.
pub(crate) fn is_undecided(samples: &[Sample]) -> bool {
    match samples {
        [first] => running(first).any(|(tid, task)| polls(first, tid, task).is_some()),
        samples => standing(samples).iter().any(|poll| poll.counted && !poll.is_long()),
    }
}

/// The findings: one for each place in the program at which threads are stuck.
pub(crate) fn check(samples: &[Sample]) -> Vec<Finding> {
    let mut places: BTreeMap<_, Vec<Poll<'_>>> = BTreeMap::new();
    for poll in standing(samples).into_iter().filter(Poll::is_long) {
        let place = location::own_line(poll.thread).map(|(place, _)| place);
        places.entry((place, poll.thread.activity)).or_default().push(poll);
    }
    places.values().filter_map(|polls| finding(samples, polls)).collect()
}

/// The polls that all samples since some earlier one agree on.
fn standing(samples: &[Sample]) -> Vec<Poll<'_>> {
    let Some((last, before)) = samples.split_last() else { return Vec::new() };
    let poll = |(tid, task): (i32, u64)| {
        let (task, thread) = polls(last, tid, task)?;
        let rounds = last.rounds(tid);
        let same = |sample: &&Sample| sample.rounds(tid) == rounds && polls(sample, tid, task.id).is_some();
        let agreeing = before.iter().rev().take_while(same).count();
        let since = before.get(before.len().checked_sub(agreeing)?)?;
        let used = |sample: &Sample| sample.thread(tid)?.cpu_us;
        Some(Poll {
            task,
            thread,
            lasted: last.at.saturating_sub(since.at),
            samples: agreeing + 1,
            used: used(last)
                .zip(used(since))
                .map(|(now, then)| Duration::from_micros(now.saturating_sub(then))),
            // A LocalSet polls many tasks in what its scheduler counts as one, and polls of a main future do not
            // count.
            counted: rounds.is_some() && !matches!(task.kind, TaskKind::Local | TaskKind::Main),
            runtime: task.runtime.clone().or_else(|| runtime_of(last, tid)),
            in_place: thread.frames.iter().any(|frame| {
                frame
                    .function
                    .as_deref()
                    .is_some_and(|f| f.starts_with("tokio::task::blocking::block_in_place"))
            }),
        })
    };
    running(last).filter_map(poll).collect()
}

/// The tasks that threads poll, by thread. A main future counts if its runtime has no other thread: otherwise the other
/// tasks continue, and it may be meant to block.
fn running(sample: &Sample) -> impl Iterator<Item = (i32, u64)> {
    let mains = sample.listing.tasks.iter().take_while(|task| task.id == 0).filter_map(|task| {
        let tid = task.thread.filter(|_| task.state == Some(TaskState::Running))?;
        let is_only_thread = runtime_of(sample, tid).is_some_and(|runtime| !runtime.contains("multi_thread"));
        let polls_task = sample.listing.running.iter().any(|(of, _)| *of == tid);
        (is_only_thread && !polls_task).then_some((tid, 0))
    });
    sample.listing.running.iter().copied().chain(mains)
}

fn runtime_of(sample: &Sample, tid: i32) -> Option<Arc<str>> {
    sample.listing.entered.iter().find(|(of, _)| *of == tid).map(|(_, runtime)| runtime.clone())
}

/// The task and the thread, where the thread is busy with a poll of it.
fn polls(sample: &Sample, tid: i32, task: u64) -> Option<(&Task, &ThreadStack)> {
    running(sample).any(|of| of == (tid, task)).then_some(())?;
    let main = || sample.listing.tasks.iter().find(|of| of.id == 0 && of.thread == Some(tid));
    let task = if task == 0 { main() } else { sample.task(task) }?;
    let thread = sample.thread(tid)?;
    let polled = task.kind != TaskKind::Blocking && task.state == Some(TaskState::Running);
    let is_busy = match task.kind {
        TaskKind::Main => !rests(thread),
        _ => thread.activity != Activity::Idle,
    };
    (polled && is_busy && thread.role != ThreadRole::Delouse).then_some((task, thread))
}

fn finding(samples: &[Sample], polls: &[Poll<'_>]) -> Option<Finding> {
    let last = samples.last()?;
    // The shortest time is valid for all of them.
    let example = polls.iter().min_by_key(|poll| poll.lasted)?;
    let thread = example.thread;
    let mut tasks: Vec<u64> = polls.iter().map(|poll| poll.task.id).collect();
    tasks.sort_unstable();
    let one_poll = polls.iter().all(|poll| poll.counted);
    let mut evidence = vec![Evidence::InPoll {
        thread: ThreadAt::of(thread),
        threads: polls.len(),
        samples: example.samples,
        lasted_ms: millis(example.lasted),
        one_poll,
    }];
    if let Some((place, Some(called))) = location::own_line(thread) {
        evidence.push(Evidence::Called { place, function: called.to_owned() });
    }
    let places = location::own_path(thread);
    evidence.extend((places.len() > 1).then_some(Evidence::CallPath { places }));
    let no_stack = |reason: &String| Evidence::NoStack { thread: thread.tid, reason: reason.clone() };
    evidence.extend(thread.unavailable.as_ref().map(no_stack));
    if let (Activity::Running, Some(used)) = (thread.activity, example.used) {
        evidence.push(Evidence::ProcessorTime { used_ms: millis(used) });
    }
    evidence.extend(example.in_place.then_some(Evidence::BlockInPlace));
    evidence.extend(event_loop(samples, polls));
    evidence.extend(locks(last, polls));
    evidence.extend(behind(samples, last, polls));
    let severity = if one_poll && !example.in_place { Severity::Certain } else { Severity::Suspected };
    Some(Finding { kind: FindingKind::BlockedWorker, severity, tasks, evidence })
}

/// That no thread waits for the I/O and the timers of the runtime, if tasks of it wait for any: a worker that blocks may
/// have had that duty, and the others do not take it.
fn event_loop(samples: &[Sample], polls: &[Poll<'_>]) -> Option<Evidence> {
    let (first, last) = (samples.first()?, samples.last()?);
    let runtime = polls.iter().find_map(|poll| poll.runtime.as_ref())?;
    let watches = |thread: &ThreadStack| {
        let is_event = |path: &str| path.contains("epoll_wait") || path.contains("epoll_pwait");
        thread.frames.is_empty()
            || thread.frames.iter().filter_map(|frame| frame.function.as_deref()).any(is_event)
    };
    let is_watched = |sample: &Sample| {
        let of = sample.listing.entered.iter().filter(|(_, of)| of == runtime);
        of.filter_map(|(tid, _)| sample.thread(*tid)).any(watches)
    };
    if samples.iter().any(is_watched) {
        return None;
    }
    let is_event = |on: &&WaitsOn| matches!(on.kind, ResourceKind::Timer | ResourceKind::Io);
    let of = |task: &&Task| task.runtime.as_ref() == Some(runtime) && task.state == Some(TaskState::Idle);
    let tasks: Vec<&Task> = last.listing.tasks.iter().filter(of).collect();
    let waiting = tasks.iter().filter(|task| task.waits_on.iter().any(|on| is_event(&on))).count();
    // A timer that was due in the first sample already.
    let late = |task: &&Task| {
        let before = &first.task(task.id)?.waits_on;
        let due = |on: &&WaitsOn| {
            on.deadline.is_some()
                && before
                    .iter()
                    .any(|then| then.deadline == on.deadline && then.in_ms.is_some_and(|ms| ms < 0))
        };
        task.waits_on.iter().filter(due).filter_map(|on| on.in_ms).min()
    };
    let late: Vec<u64> = tasks
        .iter()
        .filter_map(late)
        .map(i64::unsigned_abs)
        .filter(|ms| u128::from(*ms) >= LONG.as_millis())
        .collect();
    (waiting > 0).then(|| Evidence::NoEventLoop {
        runtime: runtime.to_string(),
        waiting,
        overdue: late.len(),
        overdue_ms: late.iter().copied().max().unwrap_or(0),
    })
}

/// The locks that these threads wait for, and what may hold them.
fn locks(last: &Sample, polls: &[Poll<'_>]) -> Vec<Evidence> {
    let mut locks = Vec::new();
    let mut known = HashSet::new();
    for poll in polls.iter().filter(|poll| poll.thread.activity == Activity::Lock).take(MAX_BEHIND) {
        let edges = last.graph.edges.iter();
        let Some(edge) = edges.clone().find(|edge| edge.thread == Some(poll.thread.tid)) else { continue };
        if known.insert(&edge.resource.id) {
            locks.push(Evidence::Lock {
                resource: edge.resource.clone(),
                waiters: edges.filter(|other| other.resource == edge.resource).count(),
                holders: edge.holders.iter().take(MAX_HOLDERS).map(|of| Party::in_sample(of, last)).collect(),
            });
        }
    }
    locks
}

/// What cannot continue meanwhile: woken tasks of the same runtime, and tasks that wait for what a blocked task holds.
fn behind(samples: &[Sample], last: &Sample, polls: &[Poll<'_>]) -> Vec<Evidence> {
    let mut facts = Vec::new();
    let runtimes: Vec<_> = polls.iter().map(|poll| &poll.runtime).collect();
    let queued = queued(samples).filter(|task| runtimes.contains(&&task.runtime));
    let queued = TaskIds::of(queued.map(|task| task.id));
    facts.extend((queued.count > 0).then_some(Evidence::Queued(queued)));
    for poll in polls {
        if facts.len() > MAX_BEHIND {
            break;
        }
        // A task that waits for a notification itself is not the one that will notify the others.
        let edges = last.graph.edges.iter();
        let own: HashSet<&str> = edges
            .clone()
            .filter(|edge| edge.waiter == Some(poll.task.id))
            .map(|edge| edge.resource.id.as_str())
            .collect();
        // Tasks that wait for the thread are queued.
        for edge in edges.filter(|edge| edge.resource.kind != ResourceKind::Thread) {
            let shares = own.contains(edge.resource.id.as_str());
            let mut holders = edge.holders.iter().filter(|holder| !(shares && holder.is_access()));
            let held = holders.find(|holder| holder.task == Some(poll.task.id));
            if let Some(holder) = held
                && edge.waiter.is_some_and(|waiter| waiter != poll.task.id)
            {
                facts.push(Evidence::Waits(TaskWait::new(edge, std::iter::once(holder))));
            }
        }
    }
    let count = facts.len().saturating_sub(MAX_BEHIND);
    facts.truncate(MAX_BEHIND);
    facts.extend((count > 0).then_some(Evidence::MoreWaiters { count }));
    facts
}

/// Facts about tasks behind blocked threads.
const MAX_BEHIND: usize = 8;
/// Holders of one lock that are listed.
const MAX_HOLDERS: usize = 4;

#[cfg(test)]
mod tests;
