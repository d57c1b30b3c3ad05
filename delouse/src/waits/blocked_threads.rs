//! Threads that are blocked on something that other threads should release soon, such as a lock, and calls of
//! `spawn_blocking` that a task has awaited for long while their thread waits for another thread.

use std::collections::{BTreeMap, HashSet};

use super::observation::{Observation, Observed};
use super::sample::{LONG, Sample, interval, millis};
use super::{ThreadAt, location};
use crate::tasks::{ResourceKind, TaskKind};
use crate::threads::{Activity, ThreadRole, ThreadStack};

/// A blocking call that is awaited for at least this long, in milliseconds, is reported.
const LONG_JOIN: u64 = 10_000;

/// Whether one sample shows a thread that may have blocked for long, so that a second sample is needed.
pub(super) fn is_undecided(samples: &[Sample]) -> bool {
    let has_call = || awaited_call(samples, &HashSet::new()).is_some();
    matches!(samples, [only] if only.threads.iter().any(is_blocked) || has_call())
}

/// Returns the observation of [`largest_group`] or, if there is none, of [`awaited_call`]. The tasks `known` and the
/// `threads` are part of a finding, and are not reported again.
pub(super) fn check(samples: &[Sample], known: &HashSet<u64>, threads: &HashSet<i32>) -> Option<Observation> {
    let call = || awaited_call(samples, known).filter(|_| samples.len() > 1);
    largest_group(samples, known, threads).or_else(call)
}

/// A call of `spawn_blocking` that a task has awaited for [`LONG_JOIN`], and whose thread waits for another thread.
fn awaited_call(samples: &[Sample], known: &HashSet<u64>) -> Option<Observation> {
    let last = samples.last()?;
    // The thread may have run before the first sample: only the time between the samples is certain.
    let lasted = interval(samples);
    let mut joins = last.graph.edges.iter().filter(|edge| edge.resource.kind == ResourceKind::Join);
    joins.find_map(|edge| {
        let waiter = edge.waiter.filter(|id| !known.contains(id))?;
        let awaited = last.listing.tasks.iter().find(|task| task.id == waiter)?.waiting?.at_least_ms;
        let mut holders = edge.holders.iter().filter_map(|holder| last.task(holder.task?));
        let call = holders.find(|task| task.kind == TaskKind::Blocking && !known.contains(&task.id))?;
        let thread = last
            .thread(call.thread?)
            .filter(|thread| awaited >= LONG_JOIN && did_not_run(samples, thread))?;
        let waits = matches!(thread.activity, Activity::Condvar | Activity::Park | Activity::Join);
        let fact = Observed::BlockedThreads { thread: ThreadAt::of(thread), lasted_ms: millis(lasted) };
        (waits && location::own_line(thread).is_some()).then(|| Observation {
            tasks: vec![call.id, waiter],
            count: 1,
            waiting: None,
            fact,
        })
    })
}

/// Whether a thread has the same activity in all samples and is known to have used no processor time between them. A thread
/// that gets a lock and then blocks again does use some.
fn did_not_run(samples: &[Sample], thread: &ThreadStack) -> bool {
    let is_same = |seen: &ThreadStack| seen.activity == thread.activity && seen.cpu_us == thread.cpu_us;
    let mut seen = samples.iter().map(|sample| sample.thread(thread.tid));
    thread.cpu_us.is_some() && seen.all(|seen| seen.is_some_and(is_same))
}

/// The threads that are blocked at the same line in all samples and did not run between them. If there are several such
/// lines, the line with the most threads. Threads of `threads`, and threads that poll a task of `known`, do not count.
fn largest_group(samples: &[Sample], known: &HashSet<u64>, threads: &HashSet<i32>) -> Option<Observation> {
    let [_, .., last] = samples else { return None };
    let lasted = interval(samples);
    let is_known = |thread: &ThreadStack| {
        let mut tasks = last.listing.tasks.iter().filter(|task| task.thread == Some(thread.tid));
        threads.contains(&thread.tid) || tasks.any(|task| known.contains(&task.id))
    };
    let mut groups: BTreeMap<_, Vec<&ThreadStack>> = BTreeMap::new();
    for thread in last.threads.iter().filter(|thread| is_blocked(thread) && did_not_run(samples, thread)) {
        if !is_known(thread) {
            let place = location::own_line(thread).map(|(place, _)| place);
            groups.entry((place, thread.activity)).or_default().push(thread);
        }
    }
    let largest = groups.into_values().max_by_key(Vec::len).filter(|_| lasted >= LONG)?;
    let fact = Observed::BlockedThreads { thread: ThreadAt::of(largest.first()?), lasted_ms: millis(lasted) };
    let polled_task = |thread: &ThreadStack| last.listing.running.iter().find(|(tid, _)| *tid == thread.tid);
    let tasks = largest.iter().filter_map(|thread| polled_task(thread)).map(|(_, id)| *id).collect();
    Some(Observation { tasks, count: largest.len(), waiting: None, fact })
}

/// Whether a thread is blocked, in the program's own code, on something that another thread should release soon. A thread
/// that waits for a message or on a condition variable may simply have nothing to do.
fn is_blocked(thread: &ThreadStack) -> bool {
    let should_be_short = matches!(
        thread.activity,
        Activity::Lock | Activity::AsyncLock | Activity::Once | Activity::Barrier | Activity::PoolObject
    );
    should_be_short
        && thread.role != ThreadRole::Delouse
        && thread.cpu_us.is_some()
        && location::own_line(thread).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    fn sample(ms: u64, cpu_us: u64, activity: Activity) -> Sample {
        let mut thread = fixtures::thread(7, ThreadRole::Other, activity, "std::sync::Mutex::lock");
        thread.cpu_us = Some(cpu_us);
        fixtures::sample(ms, Vec::new(), vec![(thread, None, None)])
    }

    #[test]
    fn a_thread_blocked_on_a_lock_in_both_samples_is_reported() {
        let samples = [0, 150].map(|ms| sample(ms, 40, Activity::Lock));
        assert!(is_undecided(&samples[..1]) && !is_undecided(&samples));
        let found = check(&samples, &HashSet::new(), &HashSet::new()).unwrap();
        assert!(matches!(found.fact, Observed::BlockedThreads { lasted_ms: 150, .. }), "{found:?}");
    }

    #[test]
    fn threads_that_run_or_wait_for_work_are_not_reported() {
        let ran = [sample(0, 40, Activity::Lock), sample(150, 60, Activity::Lock)];
        assert_eq!(check(&ran, &HashSet::new(), &HashSet::new()), None);
        assert_eq!(
            check(&[0, 150].map(|ms| sample(ms, 40, Activity::Channel)), &HashSet::new(), &HashSet::new()),
            None
        );
        assert_eq!(check(&[sample(0, 40, Activity::Lock)], &HashSet::new(), &HashSet::new()), None);
    }
}
