//! Captures the stacks of this process's threads, or at least that of the calling thread.

use std::time::Instant;

use super::calling_thread;
use crate::debuginfo::symbols::Symbols;
use crate::snapshot::{Capture, Snapshot, Thread, micros};
use crate::targets;
use crate::targets::Live;
use crate::threads::{ThreadRole, ThreadStack, polled, stacks};

/// The stacks of all threads of this process.
///
/// If `consistent`, all threads are held until the last is copied. Otherwise each thread resumes as soon as it is copied.
pub(super) fn capture(consistent: bool, symbols: &Symbols) -> (Vec<ThreadStack>, Capture) {
    let begun = Instant::now();
    let taken = if consistent { targets::freeze() } else { targets::rolling() };
    let (threads, mut capture) = match taken {
        Ok(live) => {
            let (mut threads, notes) = stacks::stacks(&live, symbols);
            let others =
                threads.iter_mut().zip(live.threads()).filter(|(t, _)| t.role != ThreadRole::Delouse);
            for (stack, thread) in others {
                stack.runs_task =
                    polled::task_frames(&stack.frames).and_then(|_| polled::task_of(thread, &live));
            }
            let mut capture = live.capture().clone();
            capture.notes.extend(notes);
            (threads, capture)
        }
        Err(error) => calling_thread::stacks(&error.to_string()),
    };
    if let Some(shortage) = symbols.settle() {
        capture.notes.push(format!("lines, inlined functions and some names are missing: {shortage}"));
    }
    capture.total_us = micros(begun.elapsed());
    (threads, capture)
}

/// The stacks of threads that were captured before with copies of their stacks; empty if memory cannot be read.
pub(super) fn stacks_of(threads: Vec<Thread>, symbols: &Symbols) -> Vec<ThreadStack> {
    if threads.is_empty() {
        return Vec::new();
    }
    Live::with_threads(threads).map(|live| stacks::stacks(&live, symbols).0).unwrap_or_default()
}
