//! Tasks that are being polled, and the threads that poll them.

use std::collections::{HashMap, HashSet};

use super::contexts::Routes;
use super::process::Program;
use super::{Examination, Listing, Task, TaskState};
use crate::snapshot::Thread;
use crate::snapshot::arch::Arch;
use crate::threads::polled;

/// Sets the thread of every running task.
pub(super) fn join(listing: &mut Listing) {
    let threads: HashMap<u64, i32> = listing.running.iter().map(|(tid, id)| (*id, *tid)).collect();
    // A main future has no id; its thread is known by its stack.
    let runs = |task: &&mut Task| task.state == Some(TaskState::Running) && task.id != 0;
    for task in listing.tasks.iter_mut().filter(runs) {
        task.thread = threads.get(&task.id).copied();
    }
}

/// Finds the thread local in which threads of this process keep the task that they poll, unless that is known.
pub(crate) fn learn_current_task(program: &Program<'_>, arch: &dyn Arch) {
    if !polled::is_offset_set() {
        polled::set_offset(current_task_offset(program, arch));
    }
}

/// The offset from its thread pointer at which each thread of a program keeps the id of the task that it polls; `None` if
/// there are no types or no tokio, or if tokio is in a shared library.
pub(crate) fn current_task_offset(program: &Program<'_>, arch: &dyn Arch) -> Option<i64> {
    Routes::learn(program, arch).and_then(|routes| routes.task_id_offset())
}

/// The threads that run tasks, in a capture whose threads and memory are of the same moment.
pub(crate) fn threads_of_one_moment(examination: &Examination<'_, '_, '_>) -> Vec<Thread> {
    let runs: HashSet<i32> = examination.listing.tasks.iter().filter_map(|task| task.thread).collect();
    let threads = examination.process.memory.snapshot().threads();
    threads.iter().filter(|thread| runs.contains(&thread.tid)).cloned().collect()
}

/// The threads that run tasks, in a capture of our own process. A thread's stack is copied some milliseconds before
/// memory is: a thread that polls another task by then is left out.
pub(crate) fn threads(examination: &Examination<'_, '_, '_>) -> Vec<Thread> {
    let Examination { process, listing, .. } = examination;
    let snapshot = process.memory.snapshot();
    learn_current_task(process, snapshot.arch());
    let ids: HashMap<i32, u64> =
        listing.tasks.iter().filter_map(|task| Some((task.thread?, task.id))).collect();
    let runs = |thread: &&Thread| {
        let id = ids.get(&thread.tid);
        id == Some(&0) || id.is_some() && polled::task_of(thread, snapshot).as_ref() == id
    };
    snapshot.threads().iter().filter(runs).cloned().collect()
}
