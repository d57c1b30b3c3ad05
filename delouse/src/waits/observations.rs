//! What is true of the program and may be wrong: a person who knows the program has to judge it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::growing::Counts;
use super::observation::{Held, Observation, ObservationKind, Observed};
use super::sample::Sample;
use super::{
    CodeLocation, Edge, Evidence, Finding, Holder, UnjudgedList, blocked_threads, busy_loop, closed_sockets,
    finished, graceful, growing, http2, location, permits,
};
use crate::tasks::{Direction, ResourceKind, Task, TaskState, Waiting};

/// A timer that is overdue by this is not only late, in milliseconds.
const OVERDUE: i64 = 1000;
/// A wait for something that other tasks are meant to give back soon, in milliseconds.
const LONG_WAIT: u64 = 10_000;
/// So many tasks that wait for one lock are worth a look.
const CONTENDED: usize = 10;
/// The time for which the other end of a connection has not read anything, in milliseconds.
const UNREAD: u64 = 1000;
/// The shortest time over which growth is measured without a request for it.
const GROWTH: Duration = Duration::from_secs(10);

/// Whether another sample could confirm an observation.
pub(super) fn is_undecided(samples: &[Sample]) -> bool {
    matches!(samples, [only] if !only.half_closed.is_empty() || !only.blocked_children.is_empty())
        || blocked_threads::is_undecided(samples)
        || graceful::is_undecided(samples)
        || http2::is_undecided(samples)
}

/// The tasks and threads that the findings are about.
struct Known {
    tasks: HashSet<u64>,
    threads: HashSet<i32>,
}

impl Known {
    fn of(findings: &[Finding]) -> Self {
        let facts = findings.iter().flat_map(|finding| &finding.evidence);
        let threads = facts.filter_map(|fact| match fact {
            Evidence::Waits(wait) => wait.thread,
            _ => None,
        });
        let tasks = findings.iter().flat_map(|finding| &finding.tasks).copied().collect();
        Self { tasks, threads: threads.collect() }
    }
}

/// The observations of `samples` about tasks that the findings do not mention. Growth is measured against `earlier`, if that
/// was long enough ago.
pub(super) fn check(
    samples: &[Sample],
    (findings, not_judged): (&[Finding], &UnjudgedList),
    earlier: Option<&Counts>,
) -> Vec<Observation> {
    let Some(last) = samples.last() else { return Vec::new() };
    let known = Known::of(findings);
    let grown = earlier.filter(|earlier| last.at.saturating_sub(earlier.at()) >= GROWTH);
    let grown = grown.into_iter().flat_map(|earlier| growing::check(earlier, last));
    let grown = grown.filter(|grown| !grown.tasks.iter().all(|task| known.tasks.contains(task)));
    let mut observations = Vec::new();
    observations.extend(graceful::check(samples, &known.tasks));
    observations.extend(blocked_threads::check(samples, &known.tasks, &known.threads));
    observations.extend(overdue_timers(samples, &known));
    observations.extend(long_wait(last, &known));
    observations.extend(permits::check(last, &known.tasks));
    observations.extend(busy_loop::observe(samples, &known.tasks));
    observations.extend(blocked_child(samples, &known));
    if observations.last().is_none_or(|last: &Observation| last.fact.kind() != ObservationKind::LongWait) {
        observations.extend(contention(last, &known));
    }
    // It is the cause of a deadlock, where the program has both ends of the connection.
    observations.extend(http2::check(samples, &HashSet::new()));
    observations.extend(unread_data(last, &known));
    observations.extend(closed_sockets::closed_by_peer(samples));
    observations.extend(finished::check(last, &known.tasks));
    observations.extend(grown.take(1).filter_map(growth));
    observations.extend(unjudged(not_judged));
    observations
}

/// The edges of tasks that no finding is about, with their tasks.
fn waits<'s>(sample: &'s Sample, known: &Known) -> impl Iterator<Item = (&'s Edge, &'s Task)> {
    let mut mains = sample.listing.tasks.iter().take_while(|task| task.id == 0);
    let main = mains.next().filter(|_| mains.next().is_none());
    let driven = |thread: i32| {
        let mut mains = sample.listing.tasks.iter().take_while(|task| task.id == 0);
        mains.find(|task| task.found_in.as_ref().is_some_and(|call| call.thread == thread))
    };
    let mut near = 0;
    sample.graph.edges.iter().filter_map(move |edge| {
        let Some(id) = edge.waiter.filter(|id| !known.tasks.contains(id)) else {
            // One of several main futures.
            let thread =
                edge.thread.filter(|thread| edge.waiter.is_none() && !known.threads.contains(thread));
            return Some((edge, driven(thread?)?));
        };
        Some((edge, if id == 0 { main? } else { sample.next_task(&mut near, id)? }))
    })
}

/// The most common place of some edges, and how many places there are.
fn places(edges: &[(&Edge, &Task)]) -> (Option<Arc<CodeLocation>>, usize) {
    let mut places: FxHashMap<&Option<Arc<CodeLocation>>, usize> = FxHashMap::default();
    edges.iter().for_each(|(edge, _)| *places.entry(&edge.place).or_default() += 1);
    let first = places.iter().max_by_key(|(place, count)| (**count, std::cmp::Reverse(*place)));
    (first.and_then(|(place, _)| (*place).clone()), places.len())
}

fn longest<'t>(tasks: impl Iterator<Item = &'t Task>) -> Option<Waiting> {
    tasks.filter_map(|task| task.waiting).max_by_key(|waiting| waiting.at_least_ms)
}

fn ids(edges: &[(&Edge, &Task)]) -> Vec<u64> {
    let mut ids: Vec<u64> = edges.iter().map(|(_, task)| task.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Timers that are overdue in every sample, of tasks that were not woken.
fn overdue_timers(samples: &[Sample], known: &Known) -> Option<Observation> {
    let overdue = |sample| -> Vec<(&Edge, &Task)> {
        let is_overdue = |(edge, task): &(&Edge, &Task)| {
            let timer = edge.outside.as_ref().filter(|_| edge.resource.kind == ResourceKind::Timer);
            timer.and_then(|timer| timer.in_ms).is_some_and(|ms| ms < -OVERDUE)
                && matches!(task.state, Some(TaskState::Idle) | None)
        };
        waits(sample, known).filter(is_overdue).collect()
    };
    let (last, before) = samples.split_last()?;
    let mut edges = overdue(last);
    for sample in before {
        let then: HashSet<u64> = overdue(sample).iter().map(|(_, task)| task.id).collect();
        edges.retain(|(_, task)| then.contains(&task.id));
    }
    let late = edges.iter().filter_map(|(edge, _)| edge.outside.as_ref()?.in_ms).min()?;
    let (place, places) = places(&edges);
    let fact = Observed::OverdueTimers { place, places, by_ms: late.unsigned_abs() };
    Some(Observation {
        tasks: ids(&edges),
        count: edges.len(),
        waiting: longest(edges.iter().map(|(_, task)| *task)),
        fact,
    })
}

/// The longest wait for something that other tasks are meant to give back, and the tasks that wait for the same.
fn long_wait(last: &Sample, known: &Known) -> Option<Observation> {
    let is_short_by_nature = |kind| {
        matches!(
            kind,
            ResourceKind::Mutex
                | ResourceKind::Rwlock
                | ResourceKind::Semaphore
                | ResourceKind::ChannelSend
                | ResourceKind::OnceCell
                | ResourceKind::Barrier
        )
    };
    let time = |task: &Task| task.waiting.map_or(0, |waiting| waiting.at_least_ms);
    let is_meant_to_end = |edge: &Edge| is_short_by_nature(edge.resource.kind) || is_request(edge);
    let long = |(edge, task): &(&Edge, &Task)| is_meant_to_end(edge) && time(task) >= LONG_WAIT;
    let all: Vec<(&Edge, &Task)> = waits(last, known).filter(long).collect();
    let (worst, _) = all.iter().max_by_key(|(_, task)| (time(task), std::cmp::Reverse(task.id)))?;
    let (place, resource) = (worst.place.clone(), worst.resource.clone());
    let alike: Vec<(&Edge, &Task)> = all
        .iter()
        .copied()
        .filter(|(edge, _)| edge.place == place && edge.resource.kind == resource.kind)
        .collect();
    Some(Observation {
        tasks: ids(&alike),
        count: alike.len(),
        waiting: longest(alike.iter().map(|(_, task)| *task)),
        fact: Observed::LongWait { place, resource, held: held(last, worst) },
    })
}

/// Whether an edge waits for the answer to a request: the oneshot's sender is one of several in a queue or a collection.
/// Otherwise the oneshot may be a signal that is meant to come late, as that for a graceful shutdown.
fn is_request(edge: &Edge) -> bool {
    let is_element = |holder: &Holder| holder.variable.contains("[…]");
    edge.resource.kind == ResourceKind::Oneshot && edge.holders.iter().any(is_element)
}

/// The holder of what an edge waits for, if it waits itself.
fn held(sample: &Sample, edge: &Edge) -> Option<Held> {
    let mut holders = edge.holders.iter().filter(|holder| !holder.is_access() && !holder.shared);
    let holder = holders.next()?;
    let by = holder.task.filter(|_| Some(holder.task) != Some(edge.waiter))?;
    let own = sample.graph.edges.iter().find(|edge| edge.waiter == Some(by))?;
    Some(Held { by, certain: holder.certain, place: own.place.clone(), waits_for: own.resource.kind })
}

/// The lock or semaphore that most tasks wait for, if these are many.
fn contention(last: &Sample, known: &Known) -> Option<Observation> {
    let is_lock = |kind| matches!(kind, ResourceKind::Mutex | ResourceKind::Rwlock | ResourceKind::Semaphore);
    let mut waiting: FxHashMap<&str, Vec<(&Edge, &Task)>> = FxHashMap::default();
    for (edge, task) in waits(last, known).filter(|(edge, _)| is_lock(edge.resource.kind)) {
        waiting.entry(edge.resource.id.as_str()).or_default().push((edge, task));
    }
    let (_, worst) = waiting.into_iter().max_by(|(one, of_one), (other, of_other)| {
        of_one.len().cmp(&of_other.len()).then_with(|| other.cmp(one))
    })?;
    let ((first, _), (place, _)) = (worst.first().filter(|_| worst.len() >= CONTENDED)?, places(&worst));
    Some(Observation {
        tasks: ids(&worst),
        count: worst.len(),
        waiting: longest(worst.iter().map(|(_, task)| *task)),
        fact: Observed::Contention { place, resource: first.resource.clone(), held: held(last, first) },
    })
}

/// Tasks that wait to send to an end that does not read.
fn unread_data(last: &Sample, known: &Known) -> Option<Observation> {
    let unread = |task: &Task| -> Option<u64> {
        task.waiting.filter(|waiting| waiting.at_least_ms >= UNREAD)?;
        let io = task.waits_on.iter().filter_map(|waits| waits.io.as_deref());
        let blocked = io.filter(|io| io.direction == Some(Direction::Write) && !io.ready);
        blocked.filter_map(|io| io.send_queue).filter(|bytes| *bytes > 0).max()
    };
    let tasks = last.listing.tasks.iter().filter(|task| !known.tasks.contains(&task.id));
    let blocked: Vec<(&Task, u64)> = tasks.filter_map(|task| Some((task, unread(task)?))).collect();
    let (first, _) = blocked.first()?;
    Some(Observation {
        tasks: blocked.iter().map(|(task, _)| task.id).collect(),
        count: blocked.len(),
        waiting: longest(blocked.iter().map(|(task, _)| *task)),
        fact: Observed::UnreadData {
            place: location::of_task(&first.stack),
            bytes: blocked.iter().map(|(_, bytes)| bytes).sum(),
        },
    })
}

/// A child process that the program waits for, and that waits in every sample until something reads from its pipe.
fn blocked_child(samples: &[Sample], known: &Known) -> Option<Observation> {
    let (last, before) = samples.split_last()?;
    let is_blocked =
        |pid: &i32| !before.is_empty() && samples.iter().all(|sample| sample.blocked_children.contains(pid));
    let pid = *last.blocked_children.iter().find(|pid| is_blocked(pid))?;
    let (edge, task) =
        waits(last, known).find(|(edge, _)| edge.outside.as_ref().is_some_and(|on| on.pid == Some(pid)))?;
    let fact = Observed::BlockedChild { pid, place: edge.place.clone() };
    Some(Observation { tasks: vec![task.id], count: 1, waiting: task.waiting, fact })
}

fn growth(grown: Finding) -> Option<Observation> {
    let fact = grown.evidence.into_iter().find_map(|fact| match fact {
        Evidence::Growth { place, new, over_ms, .. } => Some(Observed::Growth { place, new, over_ms }),
        _ => None,
    })?;
    Some(Observation { count: grown.tasks.len(), tasks: grown.tasks, waiting: None, fact })
}

fn unjudged(list: &UnjudgedList) -> Option<Observation> {
    let places = &list.places;
    let count = places.iter().map(|place| place.count).sum::<usize>() + list.more;
    let tasks = places.iter().flat_map(|place| place.tasks.iter().copied()).collect();
    (count > 0).then_some(Observation { tasks, count, waiting: None, fact: Observed::NotJudged })
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::{Earlier, diagnose};
    use super::super::{Resource, fixtures};
    use super::*;
    use crate::snapshot::HalfClosed;
    use crate::tasks::{Io, WaitsOn};

    /// A task, and its wait.
    fn waiting(id: u64, kind: ResourceKind, at_least_ms: u64, outside: Option<WaitsOn>) -> (Task, Edge) {
        let mut task = fixtures::task(id, "app::one", id as u32);
        task.waiting = (at_least_ms > 0).then_some(Waiting { at_least_ms, exact: false });
        task.waits_on.extend(outside.clone());
        let edge = Edge {
            waiter: Some(id),
            place: location::of_task(&task.stack),
            resource: Resource { kind, ..Resource::default() }.into(),
            outside: outside.map(Arc::new),
            ..Edge::default()
        };
        (task, edge)
    }

    fn timer(in_ms: i64) -> Option<WaitsOn> {
        Some(WaitsOn { kind: ResourceKind::Timer, in_ms: Some(in_ms), ..WaitsOn::default() })
    }

    fn observed(samples: &[Sample]) -> Vec<(ObservationKind, Vec<u64>)> {
        let found = diagnose(samples, None, Earlier::default());
        found.observations.into_iter().map(|of| (of.fact.kind(), of.tasks)).collect()
    }

    fn sample(ms: u64, of: impl IntoIterator<Item = (Task, Edge)>) -> Sample {
        let (tasks, edges): (Vec<Task>, Vec<Edge>) = of.into_iter().unzip();
        let mut sample = fixtures::sample(ms, tasks, Vec::new());
        sample.graph.edges = edges;
        sample
    }

    #[test]
    fn timers_that_are_overdue_in_every_sample() {
        let both = |ms| {
            sample(
                ms,
                [(1, -7800), (2, -400), (3, 100)]
                    .map(|(id, in_ms)| waiting(id, ResourceKind::Timer, 0, timer(in_ms))),
            )
        };
        assert_eq!(observed(&[both(0)]), [(ObservationKind::OverdueTimers, vec![1])]);
        let woken = sample(150, [waiting(1, ResourceKind::Timer, 0, timer(900))]);
        assert_eq!(observed(&[both(0), woken]), []);
        let mut scheduled = both(0);
        scheduled.listing.tasks[0].state = Some(TaskState::Scheduled);
        assert_eq!(observed(&[scheduled]), []);
    }

    #[test]
    fn the_longest_wait_for_what_is_given_back() {
        let lock = ResourceKind::Mutex;
        let tasks = [
            waiting(1, lock, 9_999, None),
            waiting(2, ResourceKind::ChannelRecv, 99_000, None),
            waiting(3, lock, 12_000, None),
            waiting(4, ResourceKind::Semaphore, 11_000, None),
        ];
        assert_eq!(observed(&[sample(0, tasks)]), [(ObservationKind::LongWait, vec![3])]);
    }

    #[test]
    fn an_end_that_does_not_read() {
        let io = |direction, send_queue| {
            let io = Io { direction: Some(direction), send_queue: Some(send_queue), ..Io::default() };
            Some(WaitsOn { kind: ResourceKind::Io, io: Some(io.into()), ..WaitsOn::default() })
        };
        let tasks = [
            waiting(1, ResourceKind::Io, 500, io(Direction::Write, 9)),
            waiting(2, ResourceKind::Io, 5000, io(Direction::Read, 9)),
            waiting(3, ResourceKind::Io, 5000, io(Direction::Write, 0)),
            waiting(4, ResourceKind::Io, 5000, io(Direction::Write, 9)),
        ];
        assert_eq!(observed(&[sample(0, tasks)]), [(ObservationKind::UnreadData, vec![4])]);
    }

    #[test]
    fn connections_that_stay_half_closed() {
        let of = |ms, ports: &[u16]| Sample {
            half_closed: ports
                .iter()
                .map(|port| HalfClosed {
                    fd: i32::from(*port),
                    local: format!("127.0.0.1:{port}"),
                    peer: "127.0.0.1:9".to_owned(),
                })
                .collect(),
            ..sample(ms, [])
        };
        assert!(is_undecided(&[of(0, &[5])]) && !is_undecided(&[of(0, &[])]));
        assert_eq!(observed(&[of(0, &[5])]), [], "each connection passes through this state");
        assert_eq!(observed(&[of(0, &[5, 6]), of(150, &[6])]), [(ObservationKind::ClosedByPeer, vec![])]);
    }
}
