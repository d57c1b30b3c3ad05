//! The list of all tasks, as it is returned.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blocking_calls::OwnFrames;
use super::history::History;
use super::place::TaskPlace;
use super::thread_waits::ThreadWait;
use super::{BlockingPool, Task};
use crate::debuginfo::address::LoadBias;

/// How tasks are listed.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The bias of the executable.
    pub(crate) bias: LoadBias,
    /// How many bytes of memory may be scanned for tasks that are on no list: 0 for none. A gigabyte costs about a
    /// tenth of a second in an image, and half a second elsewhere.
    pub(crate) scan: u64,
    /// The monotonic clock at the moment of capture, in nanoseconds, where it is known.
    pub(crate) now: Option<u64>,
    /// What an earlier capture has seen of the tasks, if these are those of a running program.
    pub(crate) history: Option<Arc<History>>,
    /// Whether to return where tasks are stored, too.
    pub(crate) places: bool,
    /// Whether to search for the runtimes that threads have entered, and for the futures that they drive.
    pub(crate) entered: bool,
}

/// Every task that was found, and what is missing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Listing {
    /// Ordered by id.
    pub tasks: Vec<Task>,
    /// Which thread polls which task: thread id, task id.
    pub running: Vec<(i32, u64)>,
    /// How many tasks each thread's scheduler has taken from its queues: thread id, count. While it stays the
    /// same, the thread is inside one poll, or it is idle.
    #[serde(default)]
    pub rounds: Vec<(i32, u64)>,
    /// The pools for blocking calls.
    #[serde(skip)]
    pub(crate) pools: Vec<BlockingPool>,
    /// The runtime that each thread works for, by its name.
    #[serde(skip)]
    pub(crate) entered: Vec<(i32, Arc<str>)>,
    /// What the program's own functions have on the stacks of sleeping threads that poll tasks.
    #[serde(skip)]
    pub(crate) own_frames: Vec<(i32, OwnFrames)>,
    /// The threads that wait in channels, for conditions, at barriers and for other threads.
    #[serde(skip)]
    pub(crate) thread_waits: Vec<ThreadWait>,
    /// The threads that wait for a future that was not found, for the task that they poll.
    #[serde(skip)]
    pub(crate) without_future: Vec<i32>,
    /// What is missing or doubtful.
    pub notes: Vec<String>,
    /// Nothing could be listed, for the debug information has no types.
    pub without_types: bool,
    /// Why debug information or tasks were not read that are there: for want of memory.
    #[serde(skip)]
    pub shortage: Option<String>,
}

/// Sorts tasks, and their places with them where there are any. Of two with the same id the first stays: the other is
/// a stale copy. Few bytes are moved: tasks are large.
pub(super) fn sort_by_id(tasks: &mut Vec<Task>, places: &mut Vec<TaskPlace>) {
    let mut order = order(tasks);
    if order.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other && *one != 0)) {
        let mut seen = FxHashSet::default();
        let stays: Vec<bool> = tasks.iter().map(|task| task.id == 0 || seen.insert(task.id)).collect();
        let mut of_task = stays.iter();
        tasks.retain(|_| of_task.next().is_none_or(|stays| *stays));
        let mut of_place = stays.iter();
        places.retain(|_| of_place.next().is_none_or(|stays| *stays));
        order = self::order(tasks);
    }
    for at in 0..order.len() {
        // The element for this place may have been swapped to another one already.
        let mut from = order[at].1;
        while from < at {
            from = order[from].1;
        }
        order[at].1 = from;
        tasks.swap(at, from);
        if !places.is_empty() {
            places.swap(at, from);
        }
    }
}

/// The ids in ascending order, each with the index of its task.
fn order(tasks: &[Task]) -> Vec<(u64, usize)> {
    let mut order: Vec<(u64, usize)> = tasks.iter().map(|task| task.id).zip(0..).collect();
    order.sort_unstable();
    order
}
