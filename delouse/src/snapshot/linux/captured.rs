//! What a capture has come to.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::arch::Context;
use super::examine::thread;
use super::kernel_wait;
use super::round::Round;
use super::slots::{Content, Slot};
use crate::snapshot::{StackCopy, Thread, Unavailable, micros};

/// All threads as they were captured.
#[derive(Default)]
pub(super) struct Captured {
    pub(super) threads: Vec<Thread>,
    /// Full registers of those that answered and were held, for a core file.
    pub(super) contexts: Vec<(i32, Context)>,
    pub(super) pause: Pause,
    /// Nobody was missed and nobody went on too early.
    pub(super) complete: bool,
    pub(super) notes: Vec<String>,
    /// What each handler took.
    #[cfg(test)]
    pub(super) in_handlers: Vec<Duration>,
}

/// What a capture kept the program from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pause {
    /// Held: from the first signal to a thread that may go on by itself, to the last of their handlers' return. Not
    /// held: the longest that one thread was in its handler.
    pub(super) program: Duration,
    /// The same of all threads, of which sleepers are held for longer.
    pub(super) longest: Duration,
}

impl Pause {
    /// All stood still for `more`, too.
    pub(super) fn and(self, more: Duration) -> Self {
        let Self { program, longest } = self;
        Self { program: program.saturating_add(more), longest: longest.saturating_add(more) }
    }

    pub(super) fn program_us(self) -> u64 {
        micros(self.program)
    }

    pub(super) fn longest_us(self) -> u64 {
        micros(self.longest)
    }
}

impl Round<'_> {
    /// Makes threads of the entries. After the window.
    pub(super) fn collect(&self, pause: Pause, is_held: bool) -> Captured {
        let mut threads = Vec::with_capacity(self.known.len());
        let mut contexts = Vec::with_capacity(if is_held { self.known.len() } else { 0 });
        let mut notes = Vec::new();
        let mut complete = true;
        for entry in self.known.iter() {
            // SAFETY: the capture that is collected is the table's last.
            let content_of = |slot: &'static Slot| unsafe { slot.content(self.generation) };
            let content: Result<&Content, Unavailable> =
                entry.slot.and_then(|slot| content_of(slot).ok_or(Unavailable::NoAnswer));
            if content.is_err_and(|reason| reason == Unavailable::Exited) && entry.stat.is_none() {
                // Gone before anything was known of it.
                continue;
            }
            complete &= content.is_ok() || content.is_err_and(|reason| reason == Unavailable::Exited);
            let mut stack = None;
            if let Ok(content) = content {
                if is_held {
                    contexts.push((entry.tid, content.context));
                }
                if content.stack_len > 0 {
                    let (base, _) = content.context.stack();
                    // SAFETY: of this capture, and copied before it is zeroed.
                    let bytes = unsafe { self.table.stack(content).to_vec() };
                    // SAFETY: as above.
                    unsafe { self.table.forget_stack(content) };
                    stack = Some(StackCopy { base, bytes });
                    if content.stack_cut {
                        notes.push(format!(
                            "the stack of thread {} is cut after {} KB",
                            entry.tid,
                            content.stack_len >> 10
                        ));
                    }
                }
            }
            let registers = content.map(|content| content.context.registers());
            let kernel = registers.is_err().then(|| kernel_wait::describe(entry.tid)).flatten();
            let alternate_stack = content.ok().and_then(|content| content.alternate.range());
            threads.push(Thread {
                registers,
                stack,
                kernel,
                alternate_stack,
                ..thread(entry.tid, entry.stat)
            });
        }
        threads.sort_unstable_by_key(|thread: &Thread| thread.tid);
        contexts.sort_unstable_by_key(|&(tid, _)| tid);
        if !self.all_seen {
            complete = false;
            notes.push(
                "threads may be missing: they are started faster than they can be asked, or cannot be listed"
                    .to_owned(),
            );
        }
        let overslept = self.table.overslept.load(Ordering::Acquire);
        if overslept > 0 {
            complete = false;
            notes.push(format!("{overslept} threads went on before the capture was over"));
        }
        Captured {
            threads,
            contexts,
            pause,
            complete,
            notes,
            #[cfg(test)]
            in_handlers: self
                .times()
                .map(|(_, entered, left)| Duration::from_nanos(left.saturating_sub(entered)))
                .collect(),
        }
    }
}
