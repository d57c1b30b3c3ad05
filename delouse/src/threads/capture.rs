//! The stacks of our own threads: from the signal engine, or else what can be had everywhere.

use std::time::Instant;

use super::{ThreadStack, portable, stacks};
use crate::debuginfo::symbols::Symbols;
use crate::snapshot::{self, Capture, Snapshot};

/// The stack of every thread of this process.
///
/// `consistent` holds all threads for one moment; without it, each is copied at a moment of its own and
/// nobody waits for anybody.
pub(crate) fn capture(consistent: bool, symbols: &Symbols) -> (Vec<ThreadStack>, Capture) {
    let begun = Instant::now();
    let taken = if consistent { snapshot::freeze() } else { snapshot::rolling() };
    let (threads, mut capture) = match taken {
        Ok(live) => {
            let (threads, notes) = stacks::stacks(&live, symbols);
            let mut capture = live.capture().clone();
            capture.notes.extend(notes);
            (threads, capture)
        }
        Err(error) => portable::stacks(&error.to_string()),
    };
    capture.total_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    (threads, capture)
}
