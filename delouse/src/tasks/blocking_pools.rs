//! The pools of threads for blocking calls, by runtime.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::contexts::ThreadContext;
use super::pools::Counters;
use super::process::Process;
use super::runtimes::{Runtime, Runtimes};
use super::{Task, TaskKind, TaskState};
use crate::snapshot::Address;

/// The pool of one runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockingPool {
    pub(crate) runtime: Arc<str>,
    /// All threads that it may start are busy.
    pub(crate) is_full: bool,
    /// Calls that no thread has taken yet.
    pub(crate) queued: u64,
}

/// The names of the runtimes that threads have entered: each worker, and each thread of a pool, its own.
pub(super) fn entered(
    process: &Process<'_, '_>,
    runtimes: &Runtimes<'_, '_, '_, '_>,
    contexts: &[ThreadContext],
) -> Vec<(i32, Arc<str>)> {
    let runtime = |handle: Address| runtimes.found.get(&process.memory.address(handle.checked_add(8)?)?);
    let of = |context: &ThreadContext| Some((context.tid, runtime(context.handle?)?.name.clone()));
    contexts.iter().filter_map(of).collect()
}

/// The pools of the runtimes that were found. Sets the runtimes of their blocking tasks, as far as these are known.
pub(super) fn of_runtimes(
    runtimes: &Runtimes<'_, '_, '_, '_>,
    contexts: &[ThreadContext],
    entered: &[(i32, Arc<str>)],
    tasks: &mut [Task],
) -> Vec<BlockingPool> {
    let pool = |runtime: &Runtime| {
        let Counters { is_full, queued } = runtime.pool?;
        Some(BlockingPool { runtime: runtime.name.clone(), is_full, queued })
    };
    let pools: Vec<BlockingPool> = runtimes.found.values().filter_map(pool).collect();
    let of_thread = |tid: i32| entered.iter().find(|(of, _)| *of == tid).map(|(_, runtime)| runtime.clone());
    let of_tasks = contexts.iter().filter_map(|context| Some((context.task?, of_thread(context.tid)?)));
    let running: FxHashMap<u64, Arc<str>> = of_tasks.collect();
    // Which pool's queue a task is in is known only if no other pool has one.
    let mut with_queue = pools.iter().filter(|pool| pool.queued > 0);
    let queue = with_queue.next().filter(|_| with_queue.next().is_none());
    for task in tasks.iter_mut().filter(|task| task.kind == TaskKind::Blocking) {
        task.runtime = match task.state {
            Some(TaskState::Scheduled) => queue.map(|pool| pool.runtime.clone()),
            _ => running.get(&task.id).cloned(),
        };
    }
    pools
}
