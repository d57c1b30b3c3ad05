//! `delouse serve`: the server of `#[delouse::main]`, for another process or a core file.

use std::io::{self, Write as _};
use std::time::Duration;

use super::arguments::Subject;
use super::error::CliError;
use super::subject::{self, Place};
use crate::host::signals::AwaitedSignals;
use crate::server;

/// How long one wait for a signal lasts; it is repeated.
const LONG: Duration = Duration::from_secs(3600);

/// Serves until a signal ends the command. Returns its exit status.
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
    // Before the server's threads start, which inherit it.
    let ends = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
    let awaited = AwaitedSignals::block(&ends)
        .map_err(|error| CliError::Usage(format!("cannot wait for signals: {error}")))?;
    let server = server::start_for(inspector, bind)?;
    let _closed = writeln!(io::stderr(), "delouse: answers are about {name}; Ctrl-C ends this server only");
    while awaited.wait(LONG).is_none() {}
    drop(server);
    Ok(super::NOTHING)
}
