//! Converts the slots of a capture to threads.

use std::sync::atomic::Ordering;
#[cfg(test)]
use std::time::Duration;

use super::capture_session::CaptureSession;
use super::captured::{Captured, Pause};
use super::examine::thread;
use super::kernel_wait;
use super::slots::{Content, Slot};
use crate::snapshot::{Address, StackCopy, Thread, Unavailable};

impl CaptureSession<'_> {
    /// Converts all entries. Call this after the window.
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
                // The thread ended before anything was read about it.
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
                    // SAFETY: the content is of this capture, and is copied before it is zeroed.
                    let bytes = unsafe { self.table.stack(content).to_vec() };
                    // SAFETY: as above.
                    unsafe { self.table.forget_stack(content) };
                    stack = Some(StackCopy { base: Address::new(base), bytes });
                    if content.stack_cut {
                        notes.push(format!(
                            "the copied stack of thread {} ends after {} KB",
                            entry.tid,
                            content.stack_len >> 10
                        ));
                    }
                }
            }
            let registers = content.map(|content| content.context.registers());
            let kernel = registers.is_err().then(|| kernel_wait::describe(entry.tid)).flatten();
            let alternate_stack =
                content.ok().and_then(|content| content.alternate.range()).map(Address::range);
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
                "threads may be missing: the program starts them faster than they can be captured, or they cannot be listed"
                    .to_owned(),
            );
        }
        let overslept = self.table.overslept.load(Ordering::Acquire);
        if overslept > 0 {
            complete = false;
            notes.push(format!("{overslept} threads resumed before the capture was complete"));
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
