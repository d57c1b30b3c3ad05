//! Whether a server that comes up is waited for: the program and the server's thread agree on one answer.

use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const LISTENS: u8 = 1;
const GIVEN_UP: u8 = 2;

/// What both know.
#[derive(Debug, Default)]
pub(super) struct Startup(AtomicU8);

impl Startup {
    /// The server listens. Returns whether it may say so and serve: otherwise the program has gone on without it.
    pub(super) fn listens(&self) -> bool {
        self.decide(LISTENS)
    }

    /// The program waits no longer. Returns whether it goes on without a server: otherwise the server listens, and its
    /// address follows at once.
    pub(super) fn give_up(&self) -> bool {
        self.decide(GIVEN_UP)
    }

    fn decide(&self, answer: u8) -> bool {
        self.0.compare_exchange(WAITING, answer, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
