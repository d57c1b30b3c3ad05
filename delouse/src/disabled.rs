//! The face with the feature `debug` off: the same names, no effect.

/// Shows the tasks of one more runtime. Does nothing where the feature `debug` is off.
pub fn register(_runtime: &tokio::runtime::Handle) {}
