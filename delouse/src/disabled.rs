//! The face with the feature `debug` off: the same names, no effect.

use crate::DumpError;

/// Shows the tasks of one more runtime. Does nothing where the feature `debug` is off.
pub fn register(_runtime: &tokio::runtime::Handle) {}

/// Prints what every task and every thread is doing to stderr. Does nothing where the feature `debug` is off.
///
/// # Errors
/// None with the feature off.
pub fn dump() -> Result<(), DumpError> {
    Ok(())
}
