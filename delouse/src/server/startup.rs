//! Synchronises the start of the server with the program, which waits only for a limited time: both agree on whether the
//! server runs.

use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const LISTENS: u8 = 1;
const GIVEN_UP: u8 = 2;

/// The state that both threads share.
#[derive(Debug, Default)]
pub(super) struct Startup(AtomicU8);

impl Startup {
    /// Called when the server listens. Returns false if the program has stopped waiting; then the server must not run.
    pub(super) fn listens(&self) -> bool {
        self.decide(LISTENS)
    }

    /// Called when the program stops waiting. Returns false if the server listens already; then its address follows at
    /// once.
    pub(super) fn give_up(&self) -> bool {
        self.decide(GIVEN_UP)
    }

    fn decide(&self, answer: u8) -> bool {
        self.0.compare_exchange(WAITING, answer, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
