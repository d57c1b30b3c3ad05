//! The stacks of our own threads: from the signal engine, or else what can be had everywhere.

use std::time::Instant;

use super::{ThreadRole, ThreadStack, polled, portable, stacks};
use crate::debuginfo::symbols::Symbols;
use crate::snapshot::{self, Capture, Live, Snapshot, Thread, micros};

/// The stack of every thread of this process.
///
/// `consistent` holds all threads for one moment; without it, each is copied at a moment of its own and
/// nobody waits for anybody.
pub(crate) fn capture(consistent: bool, symbols: &Symbols) -> (Vec<ThreadStack>, Capture) {
    let begun = Instant::now();
    let taken = if consistent { snapshot::freeze() } else { snapshot::rolling() };
    let (threads, mut capture) = match taken {
        Ok(live) => {
            let (mut threads, notes) = stacks::stacks(&live, symbols);
            let others =
                threads.iter_mut().zip(live.threads()).filter(|(t, _)| t.role != ThreadRole::Delouse);
            for (stack, thread) in others {
                stack.runs_task = polled::of_task(&stack.frames).and_then(|_| polled::task_of(thread, &live));
            }
            let mut capture = live.capture().clone();
            capture.notes.extend(notes);
            (threads, capture)
        }
        Err(error) => portable::stacks(&error.to_string()),
    };
    if let Some(shortage) = symbols.settle() {
        capture.notes.push(format!("lines, inlined functions and some names are missing: {shortage}"));
    }
    capture.total_us = micros(begun.elapsed());
    (threads, capture)
}

/// The stacks of threads of ours that were captured with copies of theirs; none where that is not possible.
pub(crate) fn stacks_of(threads: Vec<Thread>, symbols: &Symbols) -> Vec<ThreadStack> {
    if threads.is_empty() {
        return Vec::new();
    }
    Live::of(threads).map(|live| stacks::stacks(&live, symbols).0).unwrap_or_default()
}
