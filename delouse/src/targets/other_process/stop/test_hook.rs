//! Ends or stops the helper before one of its steps, in tests.

use std::cell::Cell;

use super::sys;

thread_local! {
    /// Number of the step, from 1, and signal.
    static AT: Cell<(u32, i32)> = const { Cell::new((0, 0)) };
}

/// Has the helpers of this thread's later captures send themselves `signal` before the step with this number; 0 is none.
pub(crate) fn signal_at(step: u32, signal: i32) {
    AT.set((step, signal));
}

pub(super) fn at_step(before: u32) {
    let (step, signal) = AT.get();
    if before.wrapping_add(1) == step {
        sys::kill(sys::own_pid(), signal);
    }
}
