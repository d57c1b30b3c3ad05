//! The task that a thread polls, by a thread local of tokio's.
//!
//! Where it lies is learned from types, by the layer that knows tasks; what it says is read here, of the very
//! moment that the thread's stack was copied at.

use std::sync::OnceLock;

use super::StackFrame;
use crate::snapshot::{Snapshot, Thread};

/// How far below the thread pointer our own threads keep the id of the task that they poll. `None` where
/// that cannot be known: there are no types, or no tokio in it.
static OWN: OnceLock<Option<u64>> = OnceLock::new();

/// Says where it lies, once and for all: a process has one executable.
pub(crate) fn learned(below: Option<u64>) {
    // Told again, it is the same.
    let _known = OWN.set(below);
}

/// Whether anybody has tried to learn it.
pub(crate) fn is_learned() -> bool {
    OWN.get().is_some()
}

/// The task that a thread of ours polls; `None` where it polls none, or that is not known.
pub(crate) fn task_of(thread: &Thread, snapshot: &dyn Snapshot) -> Option<u64> {
    task_below(thread, snapshot, (*OWN.get()?)?)
}

/// The same for any process, with what [`learned`] is told.
pub(crate) fn task_below(thread: &Thread, snapshot: &dyn Snapshot, below: u64) -> Option<u64> {
    let tls = thread.registers.ok()?.tls;
    let at = tls.checked_sub(below).filter(|_| tls != 0)?;
    // glibc keeps the executable's thread locals on top of the stack of every thread but the first.
    let copied = thread.stack.as_ref().and_then(|stack| stack.word(at));
    // `Option<Id>`: ids are never 0 (tokio's `runtime/task/id.rs`).
    copied.or_else(|| snapshot.read_u64(at)).filter(|id| *id != 0)
}

/// The part of a stack that is the polled task's; `None` where tokio polls none in it.
///
/// A worker is a task of the blocking pool itself (`Launch::launch` in tokio's
/// `scheduler/multi_thread/worker.rs`), and is no task to anybody else.
pub(crate) fn of_task(frames: &[StackFrame]) -> Option<&[StackFrame]> {
    let around = |frame: &StackFrame| {
        let path = frame.function.as_deref().and_then(|name| name.strip_prefix("tokio::runtime::"))?;
        let polls = ["task::raw::", "task::harness::", "task::core::"];
        if path.starts_with("scheduler::multi_thread::worker::") {
            Some(false)
        } else {
            (polls.iter().any(|module| path.starts_with(module)) && path.contains("::poll")).then_some(true)
        }
    };
    let (end, polls) = frames.iter().enumerate().find_map(|(at, frame)| Some((at, around(frame)?)))?;
    frames.get(..end).filter(|_| polls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Capture, Mapping, Registers, StackCopy};

    /// Memory that is the word 9 everywhere.
    struct Nines;

    impl Snapshot for Nines {
        fn read(&self, _: u64, buf: &mut [u8]) -> usize {
            buf.fill(0);
            if let Some(first) = buf.first_mut() {
                *first = 9;
            }
            buf.len()
        }
        fn mappings(&self) -> &[Mapping] {
            &[]
        }
        fn threads(&self) -> &[Thread] {
            &[]
        }
        fn capture(&self) -> &Capture {
            unreachable!("nobody asks")
        }
    }

    #[test]
    fn the_copied_stack_goes_before_memory_that_has_moved_on() {
        let thread = |tls, stack| Thread {
            tid: 1,
            name: String::new(),
            state: None,
            cpu: None,
            registers: Ok(Registers { tls, ..Registers::default() }),
            stack,
            alternate_stack: None,
            kernel: None,
        };
        let copy = |words: &[u64]| StackCopy {
            base: 0x1000,
            bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        };
        let below = 8;
        let of = |tls, stack| task_below(&thread(tls, stack), &Nines, below);
        assert_eq!(of(0x1010, Some(copy(&[1, 2]))), Some(2));
        assert_eq!(of(0x1010, Some(copy(&[1, 0]))), None, "it polls nothing");
        assert_eq!(of(0x1010, Some(copy(&[1]))), Some(9), "not copied so far");
        assert_eq!(of(0x1010, None), Some(9));
        assert_eq!(of(0, None), None);
        assert_eq!(of(4, None), None);
    }
}
