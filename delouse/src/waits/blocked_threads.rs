//! Threads that wait for what other threads are meant to give back soon.

use std::collections::{BTreeMap, HashSet};

use super::observation::{Observation, Observed};
use super::sample::{LONG, Sample, interval, millis};
use super::{ThreadAt, location};
use crate::tasks::{ResourceKind, TaskKind};
use crate::threads::{Activity, ThreadRole, ThreadStack};

/// Calls are awaited for shorter times, in milliseconds.
const LONG_JOIN: u64 = 10_000;

/// Whether another sample could show that a thread waits for long.
pub(super) fn is_undecided(samples: &[Sample]) -> bool {
    let joins = || joined(samples, &HashSet::new()).is_some();
    matches!(samples, [only] if only.threads.iter().any(waits) || joins())
}

/// The observation: see [`locked`] and [`joined`].
/// Tasks of `known`, and `threads`, are part of a finding.
pub(super) fn check(samples: &[Sample], known: &HashSet<u64>, threads: &HashSet<i32>) -> Option<Observation> {
    let is_one = samples.len() < 2;
    locked(samples, known, threads).or_else(|| joined(samples, known).filter(|_| !is_one))
}

/// A call of `spawn_blocking` whose end was awaited for long, while its thread waits for other threads.
fn joined(samples: &[Sample], known: &HashSet<u64>) -> Option<Observation> {
    let last = samples.last()?;
    // The thread may have been woken before, and have waited again.
    let lasted = interval(samples);
    let mut joins = last.graph.edges.iter().filter(|edge| edge.resource.kind == ResourceKind::Join);
    joins.find_map(|edge| {
        let waiter = edge.waiter.filter(|id| !known.contains(id))?;
        let awaited = last.listing.tasks.iter().find(|task| task.id == waiter)?.waiting?.at_least_ms;
        let mut holders = edge.holders.iter().filter_map(|holder| last.task(holder.task?));
        let call = holders.find(|task| task.kind == TaskKind::Blocking && !known.contains(&task.id))?;
        let thread =
            last.thread(call.thread?).filter(|thread| awaited >= LONG_JOIN && stayed(samples, thread))?;
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

/// Whether a thread does the same in all samples, and has used no processor time meanwhile: a thread that gets a lock and
/// waits again has.
fn stayed(samples: &[Sample], thread: &ThreadStack) -> bool {
    samples
        .iter()
        .map(|sample| sample.thread(thread.tid))
        .all(|then| then.is_some_and(|then| then.activity == thread.activity && then.cpu_us == thread.cpu_us))
}

/// The threads that have waited at one line since the first sample without running meanwhile; the line with most of them.
/// `threads`, and threads that poll a task of `known`, are part of a finding.
fn locked(samples: &[Sample], known: &HashSet<u64>, threads: &HashSet<i32>) -> Option<Observation> {
    let [_, .., last] = samples else { return None };
    let lasted = interval(samples);
    let is_known = |thread: &ThreadStack| {
        let mut tasks = last.listing.tasks.iter().filter(|task| task.thread == Some(thread.tid));
        threads.contains(&thread.tid) || tasks.any(|task| known.contains(&task.id))
    };
    let mut places: BTreeMap<_, Vec<&ThreadStack>> = BTreeMap::new();
    for thread in last.threads.iter().filter(|thread| waits(thread) && stayed(samples, thread)) {
        if !is_known(thread) {
            let place = location::own_line(thread).map(|(place, _)| place);
            places.entry((place, thread.activity)).or_default().push(thread);
        }
    }
    let most = places.into_values().max_by_key(Vec::len).filter(|_| lasted >= LONG)?;
    let fact = Observed::BlockedThreads { thread: ThreadAt::of(most.first()?), lasted_ms: millis(lasted) };
    let of = |thread: &ThreadStack| last.listing.running.iter().find(|(tid, _)| *tid == thread.tid);
    let tasks = most.iter().filter_map(|thread| of(thread)).map(|(_, id)| *id).collect();
    Some(Observation { tasks, count: most.len(), waiting: None, fact })
}

/// Whether a thread waits in the program's own code for something that is meant to be given back soon.
fn waits(thread: &ThreadStack) -> bool {
    let is_short = matches!(
        thread.activity,
        Activity::Lock | Activity::AsyncLock | Activity::Once | Activity::Barrier | Activity::PoolObject
    );
    is_short
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
    fn a_thread_that_does_not_get_its_lock() {
        let samples = [0, 150].map(|ms| sample(ms, 40, Activity::Lock));
        assert!(is_undecided(&samples[..1]) && !is_undecided(&samples));
        let found = check(&samples, &HashSet::new(), &HashSet::new()).unwrap();
        assert!(matches!(found.fact, Observed::BlockedThreads { lasted_ms: 150, .. }), "{found:?}");
    }

    #[test]
    fn threads_that_go_on_or_wait_for_work() {
        let ran = [sample(0, 40, Activity::Lock), sample(150, 60, Activity::Lock)];
        assert_eq!(check(&ran, &HashSet::new(), &HashSet::new()), None);
        assert_eq!(
            check(&[0, 150].map(|ms| sample(ms, 40, Activity::Channel)), &HashSet::new(), &HashSet::new()),
            None
        );
        assert_eq!(check(&[sample(0, 40, Activity::Lock)], &HashSet::new(), &HashSet::new()), None);
    }
}
