//! In place of `runtime`, with the features `dump` and `debug` off: functions without effect.

use crate::Config;
use crate::dump_error::DumpError;
use crate::started::Started;

/// Lists the tasks of another runtime. Does nothing with the features `dump` and `debug` off.
pub fn register(_runtime: &tokio::runtime::Handle) {}

/// Undoes one [`register`]. Does nothing with the features `dump` and `debug` off.
pub fn unregister(_runtime: &tokio::runtime::Handle) {}

/// Prints what every task and every thread is doing to stderr. Does nothing with the features `dump` and `debug` off.
///
/// # Errors
/// None with the features off.
pub fn dump() -> Result<(), DumpError> {
    Ok(())
}

impl Config {
    /// Starts the debug server, and registers the given runtimes and the current one. With the feature `dump` alone, handles
    /// SIGQUIT instead.
    ///
    /// Does not panic, and blocks for at most a second. Failures are also printed to stderr. If a server is running already,
    /// adds the runtimes to that server.
    pub fn init(self) -> Started {
        Started::Off
    }
}
