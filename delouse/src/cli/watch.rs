//! `delouse watch`: what `DELOUSE_WATCH` does, from outside of the program.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::arguments::Subject;
use super::error::CliError;
use super::remote::Server;
use super::subject::{self, Place};
use crate::host::signals::AwaitedSignals;
use crate::inspector::foreign_inspector::ForeignInspector;
use crate::inspector::inspect::InspectError;
use crate::report::DiagnosisAnswer;
use crate::watch::{self, Watcher, until_next};

/// The program that is watched.
enum Source {
    Process(Box<ForeignInspector>),
    Server(Server),
}

/// A look that gave no diagnosis.
struct Failure {
    /// There is nothing left to look at.
    has_ended: bool,
    why: String,
}

/// Watches until a signal ends the command, or the program has ended. Returns the exit status.
pub(super) fn watch(subject: Subject, interval: Duration, directory: Option<&Path>) -> Result<u8, CliError> {
    let (source, name) = open(subject)?;
    let stop_signals = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
    let awaited = AwaitedSignals::block(&stop_signals)
        .map_err(|error| CliError::Usage(format!("cannot wait for signals: {error}")))?;
    let mut watcher = Watcher::new(name.clone(), directory);
    let mut status = super::SUCCESS;
    let mut failure: Option<String> = None;
    let say = |line: &str| {
        let _closed = writeln!(io::stderr(), "delouse: {line}");
    };
    say(&format!("watches {name}; Ctrl-C ends this command only"));
    loop {
        let begun = Instant::now();
        let result = source.look();
        let took = begun.elapsed();
        let mut paused = Duration::ZERO;
        match result {
            Ok(answer) => {
                failure = None;
                paused = Duration::from_micros(answer.capture.pause_us * answer.scope.samples as u64);
                let events = watcher.look(answer);
                if !events.is_empty() {
                    status = super::FINDINGS;
                    print(&watcher.block(&events))?;
                }
            }
            Err(Failure { has_ended: true, why }) => {
                say(&why);
                return Ok(status);
            }
            Err(Failure { why, .. }) => {
                if failure.as_ref() != Some(&why) {
                    say(&format!("no diagnosis, until this ends: {why}"));
                }
                failure = Some(why);
            }
        }
        let wait = until_next(interval, took, paused).saturating_sub(begun.elapsed());
        if awaited.wait(wait).is_some() {
            return Ok(status);
        }
    }
}

/// Opens what is to be watched, and looks at it once, so that the reason why that is not possible ends the command.
fn open(subject: Subject) -> Result<(Source, String), CliError> {
    match subject::parse(subject)? {
        Place::Local(local) if local.is_core() => {
            Err(CliError::Usage("a core file does not change: use `delouse diagnose`".to_owned()))
        }
        Place::Local(local) => {
            let name = local.name();
            let inspector = local.into_inspector()?;
            inspector.check_tokio()?;
            Ok((Source::Process(Box::new(inspector)), name))
        }
        Place::Remote(server) => {
            server.get::<DiagnosisAnswer>("/diagnosis", &[])?;
            let name = format!("the program at {}", server.url());
            Ok((Source::Server(server), name))
        }
    }
}

impl Source {
    fn look(&self) -> Result<DiagnosisAnswer, Failure> {
        match self {
            Self::Process(inspector) => {
                let result = watch::diagnosis(&**inspector);
                result.map_err(|error| Failure { has_ended: has_ended(&error), why: error.to_string() })
            }
            // One that does not answer may be restarted.
            Self::Server(server) => server
                .get("/diagnosis", &[])
                .map_err(|error| Failure { has_ended: false, why: error.to_string() }),
        }
    }
}

fn has_ended(error: &InspectError) -> bool {
    matches!(error, InspectError::Foreign(error) if error.has_ended())
}

fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(super::output::safe(text).as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)
}
