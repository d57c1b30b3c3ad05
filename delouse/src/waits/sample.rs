//! What one sample of the program shows: tasks, threads, what waits for what. Findings compare two or more of them.

use std::time::Duration;

use rustc_hash::FxHashSet;

use super::kept::{ClosedSocket, Keeper, UnreadBody};
use super::{Finding, NotCovered, UnjudgedList, WaitGraph};
use crate::snapshot::HalfClosed;
use crate::tasks::inputs::Input;
use crate::tasks::{Listing, Task, TaskKind, TaskState};
use crate::threads::ThreadStack;

/// A poll that takes longer keeps other tasks waiting: tokio recommends 10 to 100 µs between awaits, and users of a
/// service notice a hundred milliseconds.
pub(super) const LONG: Duration = Duration::from_millis(100);

/// One sample.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// When, on a clock that all samples share.
    pub(crate) at: Duration,
    /// Every task.
    pub(crate) listing: Listing,
    /// Every thread: captured between this sample's tasks and those of the samples next to it.
    pub(crate) threads: Vec<ThreadStack>,
    /// What waits for what.
    pub(crate) graph: WaitGraph,
    /// What is wrong by this sample alone.
    pub(crate) findings: Vec<Finding>,
    /// Tasks of which it is not known whether they will continue.
    pub(crate) not_judged: UnjudgedList,
    /// Child processes that wait until something reads from a pipe of theirs.
    pub(crate) blocked_children: Vec<i32>,
    /// TCP connections that the other end has closed for its part.
    pub(crate) half_closed: Vec<HalfClosed>,
    /// The variables with such connections, if they were searched for.
    pub(crate) closed_sockets: Vec<ClosedSocket>,
    /// What tasks take from that seem to be polled without pause.
    pub(crate) inputs: Vec<TaskInputs>,
    /// What keeps the results of finished tasks.
    pub(crate) keeper: Option<Keeper>,
    /// Bodies of HTTP/2 connections whose window is used up.
    pub(crate) unread_bodies: Vec<UnreadBody>,
    /// What its analysis does not cover.
    pub(crate) not_covered: Vec<NotCovered>,
}

/// What a task takes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskInputs {
    /// Its id; 0 for a `main` future.
    pub(crate) task: u64,
    pub(crate) inputs: Vec<Input>,
}

impl Sample {
    /// The task with that id; none for 0, which several `main` futures share.
    pub(crate) fn task(&self, id: u64) -> Option<&Task> {
        let at = self.listing.tasks.binary_search_by_key(&id, |task| task.id).ok()?;
        self.listing.tasks.get(at).filter(|_| id != 0)
    }

    /// The same for ids that come in the order of the tasks, as those of edges do: most searches are left out. `near` is where
    /// the last one was.
    pub(super) fn next_task(&self, near: &mut usize, id: u64) -> Option<&Task> {
        let tasks = &self.listing.tasks;
        let is_it = |at: &usize| tasks.get(*at).is_some_and(|task| task.id == id);
        let at = [*near, *near + 1].into_iter().find(is_it);
        *near = at.or_else(|| tasks.binary_search_by_key(&id, |task| task.id).ok())?;
        tasks.get(*near).filter(|_| id != 0)
    }

    pub(crate) fn thread(&self, tid: i32) -> Option<&ThreadStack> {
        self.threads.iter().find(|thread| thread.tid == tid)
    }

    /// How many tasks the scheduler of a thread has taken so far.
    pub(crate) fn rounds(&self, tid: i32) -> Option<u64> {
        self.listing.rounds.iter().find(|(of, _)| *of == tid).map(|(_, rounds)| *rounds)
    }

    /// How many distinct resources have waiters.
    pub(crate) fn resources(&self) -> usize {
        let ids: FxHashSet<&str> = self.graph.edges.iter().map(|edge| edge.resource.id.as_str()).collect();
        ids.len()
    }
}

/// The tasks that wait for a worker in each sample, at the same place.
pub(super) fn queued(samples: &[Sample]) -> impl Iterator<Item = &Task> {
    let waits = |task: &&Task| task.state == Some(TaskState::Scheduled) && task.kind != TaskKind::Blocking;
    let (last, before) = match samples.split_last() {
        Some((last, before)) => (last.listing.tasks.as_slice(), before),
        None => (Default::default(), samples),
    };
    last.iter().filter(waits).filter(move |task| {
        before.iter().all(|sample| {
            let then = sample.task(task.id).filter(waits);
            then.is_some_and(|then| then.stack == task.stack && then.waits_on == task.waits_on)
        })
    })
}

/// The time from the first sample to the last.
pub(super) fn interval(samples: &[Sample]) -> Duration {
    let ends = samples.first().zip(samples.last());
    ends.map_or(Duration::ZERO, |(first, last)| last.at.saturating_sub(first.at))
}

/// A time in milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
