//! Locks of state that is valid at any time.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it. A panic of another thread that had it locked does not matter: each change is made as a whole.
pub(crate) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
