//! Tasks that are being polled, and the threads that do it.

use std::collections::HashMap;
use std::sync::Once;
use std::thread;

use super::process::Program;
use super::{Examination, Listing, Task, TaskState, contexts};
use crate::debuginfo::image::Image;
use crate::debuginfo::types::Types;
use crate::snapshot::own_object::OwnObject;
use crate::snapshot::room::{self, Question};
use crate::snapshot::{self, Thread};
use crate::threads::polled;

/// Tells every running task its thread.
pub(super) fn join(listing: &mut Listing) {
    let threads: HashMap<u64, i32> = listing.running.iter().map(|(tid, id)| (*id, *tid)).collect();
    // A main future has no id; its thread is known by its stack.
    let runs = |task: &&mut Task| task.state == Some(TaskState::Running) && task.id != 0;
    for task in listing.tasks.iter_mut().filter(runs) {
        task.thread = threads.get(&task.id).copied();
    }
}

/// The threads that run tasks, in a capture of our own process. A thread's stack is copied some milliseconds
/// before memory is: one that has gone on to another task meanwhile is left out.
pub(super) fn threads(examination: &Examination<'_, '_, '_>) -> Vec<Thread> {
    let Examination { process, listing, .. } = examination;
    if !polled::is_learned() {
        polled::learned(contexts::Routes::learn(process).and_then(|routes| routes.task_id_below()));
    }
    let ids: HashMap<i32, u64> =
        listing.tasks.iter().filter_map(|task| Some((task.thread?, task.id))).collect();
    let snapshot = process.memory.snapshot();
    let runs = |thread: &&Thread| {
        let id = ids.get(&thread.tid);
        id == Some(&0) || id.is_some() && polled::task_of(thread, snapshot).as_ref() == id
    };
    snapshot.threads().iter().filter(runs).cloned().collect()
}

/// Has somebody learn by which thread local threads tell what they poll, unless that is known: a thread of
/// its own, which nobody waits for. What is read for it is given back at once.
pub(crate) fn learn() {
    static BEGUN: Once = Once::new();
    const STACK: usize = 2 << 20;
    let body = || {
        let _question = Question::begin();
        if let Ok(own) = OwnObject::find()
            && let Ok(image) = Image::open(&own.opened)
        {
            let program = Program { types: &Types::open(&image), bias: 0 };
            polled::learned(contexts::Routes::learn(&program).and_then(|routes| routes.task_id_below()));
        }
    };
    if !polled::is_learned() && !room::is_narrow() && room::thread(STACK as u64).is_ok() {
        BEGUN.call_once(|| {
            let thread = thread::Builder::new().name("delouse-types".to_owned()).stack_size(STACK);
            // Without a thread, threads are told without their tasks.
            drop(snapshot::shielded(|| thread.spawn(body)));
        });
    }
}
