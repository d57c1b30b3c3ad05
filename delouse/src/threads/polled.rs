//! Reads which task a thread polls, from a thread local of tokio.
//!
//! The module `tasks` finds the offset of the thread local in debug information. Its value is read here, from the copy of
//! the thread's stack if possible, so that it is of the same moment as the stack.

use std::sync::OnceLock;

use super::StackFrame;
use crate::snapshot::{Address, Snapshot, Thread};

/// In this process, the offset from the thread pointer of the id of the task that a thread polls. `None` if there are no
/// types or no tokio.
static OWN: OnceLock<Option<i64>> = OnceLock::new();

/// Sets the offset for this process. Later calls have no effect.
pub(crate) fn set_offset(offset: Option<i64>) {
    let _already_set = OWN.set(offset);
}

/// Whether the offset has been set.
pub(crate) fn is_offset_set() -> bool {
    OWN.get().is_some()
}

/// The task that a thread of this process polls; `None` if it polls none, or the offset is not known.
pub(crate) fn task_of(thread: &Thread, snapshot: &dyn Snapshot) -> Option<u64> {
    task_at(thread, snapshot, (*OWN.get()?)?)
}

/// The same for any process, with the offset.
pub(crate) fn task_at(thread: &Thread, snapshot: &dyn Snapshot, offset: i64) -> Option<u64> {
    let tls = thread.registers.ok()?.tls;
    let at = tls.checked_add_signed(offset).filter(|_| tls != Address::default())?;
    // glibc stores the executable's thread locals directly above the stack, for every thread but the first.
    let copied = thread.stack.as_ref().and_then(|stack| stack.word(at));
    // The type is `Option<Id>`, and ids are not 0 (tokio's `runtime/task/id.rs`).
    copied.or_else(|| snapshot.read_u64(at)).filter(|id| *id != 0)
}

/// The frames of the task that is polled on a stack; `None` if none is polled.
///
/// A worker itself runs as a task of the blocking pool (`Launch::launch` in tokio's
/// `scheduler/multi_thread/worker.rs`), which does not count.
pub(crate) fn task_frames(frames: &[StackFrame]) -> Option<&[StackFrame]> {
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

    /// Memory in which every word is 9.
    struct Nines;

    impl Snapshot for Nines {
        fn read(&self, _: Address, buf: &mut [u8]) -> usize {
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
            unreachable!("not used by the test")
        }
    }

    #[test]
    fn the_copied_stack_is_preferred_to_live_memory() {
        let thread = |tls, stack| Thread {
            tid: 1,
            name: String::new(),
            state: None,
            cpu: None,
            queued: None,
            registers: Ok(Registers { tls, ..Registers::default() }),
            stack,
            alternate_stack: None,
            kernel: None,
        };
        let copy = |words: &[u64]| StackCopy {
            base: Address::new(0x1000),
            bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        };
        let task = |tls, stack| task_at(&thread(Address::new(tls), stack), &Nines, -8);
        assert_eq!(task(0x1010, Some(copy(&[1, 2]))), Some(2));
        assert_eq!(task(0x1010, Some(copy(&[1, 0]))), None, "the thread polls no task");
        assert_eq!(task(0x1010, Some(copy(&[1]))), Some(9), "the copy ends before the word");
        assert_eq!(task(0x1010, None), Some(9));
        assert_eq!(task(0, None), None);
        assert_eq!(task(4, None), None);
    }
}
