//! The result of a capture.

use std::time::Duration;

use super::arch::SignalContext;
use crate::snapshot::{Thread, micros};

/// All threads of a capture.
#[derive(Default)]
pub(super) struct Captured {
    pub(super) threads: Vec<Thread>,
    /// Full registers by thread id, for a core file. Only of threads that were held.
    pub(super) contexts: Vec<(i32, SignalContext)>,
    pub(super) pause: Pause,
    /// Whether every thread was captured, and none resumed too early.
    pub(super) complete: bool,
    pub(super) notes: Vec<String>,
    /// How long each handler ran.
    #[cfg(test)]
    pub(super) in_handlers: Vec<Duration>,
}

/// How long a capture stopped the program.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pause {
    /// If threads were held: from the first signal to an active thread until the last handler of an active thread has
    /// returned. Otherwise: the longest time that one thread was in its handler.
    pub(super) program: Duration,
    /// The same for all threads. Sleepers are held for longer than active threads.
    pub(super) longest: Duration,
}

impl Pause {
    /// Adds a time during which all threads were stopped.
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
