//! Caches behind a shared reference.

pub(crate) use crate::host::lock::lock;
