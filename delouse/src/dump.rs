//! The dump that the program requests by a call.

use std::sync::mpsc;
use std::time::Duration;

use crate::dump_error::DumpError;
use crate::stderr_dump::Content;
use crate::{runtime, stderr_dump};

/// How long [`dump`](dump()) blocks its caller at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints what every task and every thread of this program is doing to stderr: the text of `/stacktrace/tokio`, then that
/// of `/stacktrace/rust`. If the debug information has to be read first, also prints the threads before, with names of
/// functions only.
///
/// Can be called from any thread, inside and outside of runtimes, with or without a server. The calling thread waits until
/// the dump is written: about 10 ms, a second or more for the first dump, which reads the debug information, and at most
/// half a minute. The program is stopped as for `/stacktrace/tokio`. In an async function, use
/// `tokio::task::spawn_blocking(delouse::dump)`, so that the worker is not blocked.
///
/// Does nothing with the features `dump` and `debug` off, or with `DELOUSE=off`.
///
/// # Errors
/// Returns why the dump was not printed. The program is not affected.
pub fn dump() -> Result<(), DumpError> {
    let Some(inspector) = runtime::inspector() else { return Ok(()) };
    let (done, outcome) = mpsc::sync_channel(1);
    stderr_dump::start(inspector, Content::Stacks, move |result| drop(done.try_send(result)))?;
    match outcome.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(DumpError::Late),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(DumpError::Failed),
    }
}
