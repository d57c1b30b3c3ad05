//! `delouse serve`: runs the server that `#[delouse::main]` starts in a program, for another process or a core file.

use std::io::{self, Write as _};
use std::time::Duration;

use super::arguments::Subject;
use super::error::CliError;
use super::subject::{self, Place};
use crate::host::signals::AwaitedSignals;
use crate::server;

/// The timeout of one wait for a signal. Its length has no effect: the wait is repeated until a signal arrives.
const WAIT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Serves until SIGINT, SIGTERM or SIGHUP arrives, and returns the exit status.
pub(super) fn serve(subject: Subject, bind: Option<&str>) -> Result<u8, CliError> {
    if subject.targets.is_empty() {
        return Err(CliError::Usage("name a process or a core file: delouse serve 1234".to_owned()));
    }
    let local = match subject::parse(subject)? {
        Place::Local(local) => local,
        Place::Remote(_) => {
            let why = "this is the address of a server already: open it, or name a process or a core file";
            return Err(CliError::Usage(why.to_owned()));
        }
    };
    let name = local.name();
    let inspector = local.into_inspector()?;
    // The threads of the server inherit the mask, so that no handler runs and this thread receives the signals.
    let stop_signals = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
    let awaited = AwaitedSignals::block(&stop_signals)
        .map_err(|error| CliError::Usage(format!("cannot wait for signals: {error}")))?;
    let server = server::start_for(inspector, bind)?;
    let _closed = writeln!(io::stderr(), "delouse: answers are about {name}; Ctrl-C ends this server only");
    while awaited.wait(WAIT_TIMEOUT).is_none() {}
    drop(server);
    Ok(super::SUCCESS)
}
