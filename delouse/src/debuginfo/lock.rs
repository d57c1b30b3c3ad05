//! Caches behind a shared reference.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a cache. A panic leaves it as good as it was: each entry is added whole.
pub(crate) fn lock<T>(cache: &Mutex<T>) -> MutexGuard<'_, T> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
