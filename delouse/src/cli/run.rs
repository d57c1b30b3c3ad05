//! Starts a program as a child, and prints its diagnosis when it is asked to, or when the child hangs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::arguments::Capturing;
use super::error::CliError;
use super::subject::{self, Place};
use crate::host::signals::{self, AwaitedSignals, Received};
use crate::inspector::foreign::ForeignError;
use crate::targets::other_process::permit_tracing;

/// How often the child's activity is read, at most.
const OFTEN: Duration = Duration::from_millis(500);
/// Descendants of the child that are looked at: a build tool starts a compiler for each processor.
const MOST: usize = 64;

/// Runs `program` until it ends. Returns its exit status, as shells do: 128 and the signal's number if a signal ended it.
pub(super) fn run(
    program: &[OsString],
    hang_after: Option<Duration>,
    capture: &Capturing,
) -> Result<u8, CliError> {
    let Some((name, arguments)) = program.split_first() else {
        return Err(CliError::Usage("no program is given: delouse run -- CMD".to_owned()));
    };
    let failed = |what: &str, error: io::Error| CliError::Usage(format!("{what}: {error}"));
    // The terminal sends SIGQUIT to the child, too, which it would end.
    signals::ignore(libc::SIGQUIT);
    // Before signals are blocked: a child inherits that.
    let mut command = Command::new(name);
    command.args(arguments);
    permit_tracing(&mut command);
    let spawned = command.spawn();
    let awaited = [libc::SIGQUIT, libc::SIGCHLD, libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
    let awaited =
        AwaitedSignals::block(&awaited).map_err(|error| failed("cannot wait for signals", error))?;
    signals::restore(libc::SIGQUIT);
    let child = spawned.map_err(|error| failed(&name.to_string_lossy(), error))?;
    let status = Watch { child, capture, hang: hang_after.map(Hang::new) }.until_end(&awaited);
    status.map(exit_code).map_err(|error| failed("cannot wait for the child", error))
}

fn exit_code(status: ExitStatus) -> u8 {
    let signal = || status.signal().map_or(1, |signal| 128 + signal);
    u8::try_from(status.code().unwrap_or_else(signal)).unwrap_or(1)
}

struct Watch<'c> {
    child: Child,
    capture: &'c Capturing,
    hang: Option<Hang>,
}

impl Watch<'_> {
    fn until_end(mut self, awaited: &AwaitedSignals) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            let often = self.hang.as_ref().map_or(OFTEN, |hang| OFTEN.min(hang.after / 4));
            match awaited.wait(often) {
                Some(Received { signal: libc::SIGQUIT, .. }) => self.print("as requested by SIGQUIT"),
                // The child has those of the terminal already.
                Some(Received { signal, is_addressed: true }) if signal != libc::SIGCHLD => {
                    self.forward(signal);
                }
                Some(_) => {}
                None => self.check_hang(),
            }
        }
    }

    fn forward(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some((pid, signal)) = pid.zip(Signal::from_named_raw(signal)) {
            let _ended = kill_process(pid, signal);
        }
    }

    fn check_hang(&mut self) {
        let pid = self.child.id();
        let Some(hang) = &mut self.hang else { return };
        if hang.begins(activity(pid)) {
            let why = format!("no processor time for {} s", hang.after.as_secs_f32());
            self.print(&why);
            if let Some(hang) = &mut self.hang {
                // To look at the child has made it run.
                hang.last = activity(pid);
            }
        }
    }

    /// Prints the diagnosis of each process among the child and its descendants that has tasks.
    fn print(&self, why: &str) {
        let mut failures = Vec::new();
        let mut printed = false;
        for pid in family(self.child.id()) {
            match self.diagnosis(pid) {
                Ok(text) => {
                    printed = true;
                    let _closed = writeln!(
                        io::stderr(),
                        "=== delouse: process {pid}, {why} ===\n{text}=== delouse: end ==="
                    );
                }
                Err(error) => failures.push(error),
            }
        }
        // Of a shell or a build tool, nothing else can be expected.
        let is_expected = |error: &&CliError| {
            matches!(error, CliError::Foreign(ForeignError::NotRust(_) | ForeignError::NoTokio(_)))
        };
        for error in failures.iter().filter(|error| !printed || !is_expected(error)) {
            let _closed = writeln!(io::stderr(), "delouse: {error}");
        }
    }

    fn diagnosis(&self, pid: u32) -> Result<String, CliError> {
        match subject::process(pid, None, self.capture)? {
            Place::Local(local) => Ok(local.diagnosis(None)?.diagnosis),
            Place::Remote(_) => Ok(String::new()),
        }
    }
}

/// Recognises that the child makes no progress.
struct Hang {
    after: Duration,
    last: Activity,
    since: Instant,
    is_reported: bool,
}

/// Of each thread: the processor time that it has used, and how often it has run.
type Activity = BTreeMap<String, String>;

impl Hang {
    fn new(after: Duration) -> Self {
        Self { after, last: Activity::new(), since: Instant::now(), is_reported: false }
    }

    /// Whether the child begins to hang: it is reported once.
    fn begins(&mut self, now: Activity) -> bool {
        if now != self.last {
            (self.last, self.since, self.is_reported) = (now, Instant::now(), false);
        }
        let begins = !self.is_reported && self.since.elapsed() >= self.after;
        self.is_reported |= begins;
        begins
    }
}

/// What the child and its descendants have done so far.
fn activity(child: u32) -> Activity {
    let mut activity = Activity::new();
    for pid in family(child) {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            // `schedstat`: processor time, time in the queue, number of runs.
            let runs = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            activity.insert(thread.file_name().to_string_lossy().into_owned(), runs);
        }
    }
    activity
}

/// A process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut parents: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name, in parentheses, may contain anything; state and parent follow it.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parents.entry(parent.unwrap_or(0)).or_default().push(child);
    }
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(of) = family.get(at).copied().filter(|_| family.len() < MOST) {
        family.extend(parents.get(&of).into_iter().flatten());
        at += 1;
    }
    family.truncate(MOST);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_is_reported_once_until_something_runs() {
        let of = |runs: &str| Activity::from([("1".to_owned(), runs.to_owned())]);
        let mut hang = Hang::new(Duration::ZERO);
        assert!(hang.begins(of("1 0 1")));
        assert!(!hang.begins(of("1 0 1")), "reported already");
        assert!(hang.begins(of("2 0 2")), "it ran, and hangs again");
        let mut patient = Hang::new(Duration::from_secs(3600));
        assert!(!patient.begins(of("1 0 1")) && !patient.begins(of("1 0 1")));
    }

    #[test]
    fn a_family_has_children_and_their_children() {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "sleep 60 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let found = family(std::process::id());
        let all = family(shell.id());
        assert!(found.contains(&shell.id()), "{found:?}");
        assert_eq!(all.len(), 2, "{all:?}");
        for pid in all.iter().skip(1) {
            kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        }
        shell.wait().unwrap();
    }
}
