//! A runtime's pool for blocking calls of which all threads are busy, while calls of `spawn_blocking`, of tokio's file
//! I/O and of name resolution wait in its queue.
//!
//! A pool that works through a long queue looks the same at one moment. So it is reported only if all its threads are in
//! the same calls in all samples, and all of these wait for something inside of the program: a call that computes, sleeps
//! or reads will end.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::sample::{Sample, interval, millis};
use super::{
    CodeLocation, Doubt, Edge, Evidence, Finding, FindingKind, Severity, TaskIds, TaskWait, ThreadAt,
    location,
};
use crate::debuginfo::symbols::shorten;
use crate::tasks::{ResourceKind, Task, TaskKind, TaskState};
use crate::threads::{Activity, ThreadStack};

/// A pool that is busy for a shorter time may just have much to do.
const LONG: Duration = Duration::from_millis(400);
/// The most groups of threads, of queued calls, and of tasks that wait for these, that are listed.
const MAX_GROUPS: usize = 4;

/// A full pool, as all samples show it.
struct Full<'s> {
    runtime: &'s str,
    /// The calls that its threads are in.
    busy: Vec<(&'s Task, &'s ThreadStack)>,
    queued: Vec<&'s Task>,
}

/// Whether a pool has been full in all samples, and another sample could show that it is not.
pub(crate) fn is_undecided(samples: &[Sample]) -> bool {
    (samples.len() < 2 || interval(samples) < LONG) && full(samples).iter().any(|full| full.waits_inside())
}

/// One finding for each full pool.
pub(crate) fn check(samples: &[Sample]) -> Vec<Finding> {
    if interval(samples) < LONG {
        return Vec::new();
    }
    full(samples).iter().filter(|full| full.waits_inside()).map(|full| full.finding(samples)).collect()
}

/// The pools that are full in all samples, with the same calls on their threads and calls that all samples show in their
/// queues.
fn full(samples: &[Sample]) -> Vec<Full<'_>> {
    let Some((last, before)) = samples.split_last() else { return Vec::new() };
    let mut pools = Vec::new();
    for pool in &last.listing.pools {
        let runtime: &str = &pool.runtime;
        let is_full = |sample: &Sample| {
            sample.listing.pools.iter().any(|of| of.runtime == pool.runtime && of.is_full && of.queued > 0)
        };
        if !is_full(last) || !before.iter().all(is_full) {
            continue;
        }
        let busy = busy(last, runtime);
        let ids =
            |sample| calls(sample, runtime, TaskState::Running).map(|task| task.id).collect::<Vec<u64>>();
        let same = before.iter().all(|sample| ids(sample) == ids(last));
        // A call whose thread is not known may be doing anything.
        if busy.is_empty() || busy.len() != ids(last).len() || !same {
            continue;
        }
        let waits = |sample: &Sample, id: u64| {
            sample.task(id).is_some_and(|task| task.state == Some(TaskState::Scheduled))
        };
        let queued = calls(last, runtime, TaskState::Scheduled);
        let queued: Vec<&Task> =
            queued.filter(|task| before.iter().all(|sample| waits(sample, task.id))).collect();
        if !queued.is_empty() {
            pools.push(Full { runtime, busy, queued });
        }
    }
    pools
}

/// The blocking calls of a runtime in that state.
fn calls<'s>(sample: &'s Sample, runtime: &str, state: TaskState) -> impl Iterator<Item = &'s Task> {
    sample.listing.tasks.iter().filter(move |task| {
        task.kind == TaskKind::Blocking
            && task.state == Some(state)
            && task.runtime.as_deref() == Some(runtime)
    })
}

/// What was given to `spawn_blocking`, and the line that did, where tokio recorded it.
pub(super) fn call(task: &Task) -> Option<Arc<CodeLocation>> {
    let call = location::of_task(&task.stack)?;
    let spawned = task.spawned_at.as_deref().and_then(|place| place.rsplit_once(':')?.0.rsplit_once(':'));
    let Some((file, line)) = spawned.filter(|_| call.file.is_none()) else { return Some(call) };
    let file = Some(shorten(file, None).0);
    Some(Arc::new(CodeLocation { file, line: line.parse().ok(), ..CodeLocation::clone(&call) }))
}

/// The blocking calls that threads of a runtime are in, with their threads.
fn busy<'s>(sample: &'s Sample, runtime: &str) -> Vec<(&'s Task, &'s ThreadStack)> {
    let running = calls(sample, runtime, TaskState::Running);
    running
        .filter_map(|task| {
            let (tid, _) = sample.listing.running.iter().find(|(_, id)| *id == task.id)?;
            Some((task, sample.thread(*tid)?))
        })
        .collect()
}

/// Whether a thread waits for something that only other threads or tasks of the program can do.
fn waits_inside(activity: Activity) -> bool {
    matches!(
        activity,
        Activity::Lock
            | Activity::AsyncLock
            | Activity::Condvar
            | Activity::Channel
            | Activity::Barrier
            | Activity::Once
            | Activity::Pool
            | Activity::PoolObject
            | Activity::BlockOn
            | Activity::Join
            | Activity::Park
            | Activity::Futex
    )
}

impl Full<'_> {
    fn waits_inside(&self) -> bool {
        self.busy.iter().all(|(_, thread)| waits_inside(thread.activity))
    }

    fn finding(&self, samples: &[Sample]) -> Finding {
        let mut evidence = vec![Evidence::PoolFull {
            runtime: self.runtime.to_owned(),
            threads: self.busy.len(),
            queued: self.queued.len(),
            samples: samples.len(),
            lasted_ms: millis(interval(samples)),
        }];
        let mut places: BTreeMap<_, Vec<(&Task, &ThreadStack)>> = BTreeMap::new();
        for (task, thread) in &self.busy {
            let place = location::own_line(thread).map(|(place, _)| place);
            places.entry((place, thread.activity)).or_default().push((task, thread));
        }
        let mut places: Vec<Vec<(&Task, &ThreadStack)>> = places.into_values().collect();
        places.sort_by_key(|alike| std::cmp::Reverse(alike.len()));
        for alike in places.iter().take(MAX_GROUPS) {
            let Some((task, thread)) = alike.first() else { continue };
            evidence.push(Evidence::BusyThreads {
                thread: ThreadAt::of(thread),
                threads: alike.len(),
                called: location::own_line(thread).and_then(|(_, called)| called).map(str::to_owned),
                call: call(task),
                tasks: TaskIds::of(alike.iter().map(|(task, _)| task.id)),
            });
        }
        let mut kinds: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for task in &self.queued {
            kinds.entry(call(task)).or_default().push(task.id);
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, ids)| std::cmp::Reverse(ids.len()));
        for (call, ids) in kinds.into_iter().take(MAX_GROUPS) {
            evidence.push(Evidence::QueuedCalls { call, tasks: TaskIds::of(ids) });
        }
        evidence.extend(samples.last().into_iter().flat_map(|last| self.behind(last)));
        let joining = evidence.iter().filter_map(|fact| match fact {
            Evidence::Waits(wait) if wait.task != 0 => Some(wait.task),
            _ => None,
        });
        let own = self.busy.iter().map(|(task, _)| task).chain(&self.queued).map(|task| task.id);
        let mut tasks: Vec<u64> = own.chain(joining).collect();
        let mut seen = HashSet::new();
        tasks.retain(|task| seen.insert(*task));
        let kind = FindingKind::BlockingPool;
        let mut finding = Finding { kind, severity: Severity::Certain, tasks, evidence };
        if samples.last().is_some_and(|last| self.is_deadlock(last)) {
            finding.evidence.insert(1, Evidence::WaitForQueue);
        } else {
            finding.doubt(Doubt::MayBeWoken);
        }
        finding
    }

    /// Whether every thread of the pool waits for nothing but the ends of calls in its queue.
    fn is_deadlock(&self, last: &Sample) -> bool {
        let names: HashSet<String> = self.queued.iter().map(|task| format!("task-{}", task.id)).collect();
        self.busy.iter().all(|(task, _)| {
            let mut own = last.graph.edges.iter().filter(|edge| edge.waiter == Some(task.id)).peekable();
            let is_queued =
                |edge: &Edge| edge.resource.kind == ResourceKind::Join && names.contains(&edge.resource.id);
            own.peek().is_some() && own.all(is_queued)
        })
    }

    /// The tasks that wait for the ends of queued calls.
    fn behind(&self, last: &Sample) -> Vec<Evidence> {
        let names: Vec<String> = self.queued.iter().map(|task| format!("task-{}", task.id)).collect();
        let joins =
            |edge: &&Edge| edge.resource.kind == ResourceKind::Join && names.contains(&edge.resource.id);
        let mut edges = last.graph.edges.iter().filter(joins);
        let mut facts: Vec<Evidence> = edges
            .by_ref()
            .take(MAX_GROUPS)
            .map(|edge| Evidence::Waits(TaskWait::new(edge, edge.holders.iter())))
            .collect();
        let count = edges.count();
        facts.extend((count > 0).then_some(Evidence::MoreWaiters { count }));
        facts
    }
}

#[cfg(test)]
mod tests;
