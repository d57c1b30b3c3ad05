//! Starts a scenario as a process, and asks it how it fared.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::{AttachOptions, OtherProcess, attach};
use crate::snapshot::{Address, Snapshot as _};

/// The scenario that a child runs.
pub(super) const SCENARIO: &str = "DELOUSE_ATTACH_SCENARIO";
/// Captures that measure time or need processors do not run beside each other.
static ALONE: Mutex<()> = Mutex::new(());

/// Keeps other tests of this kind from running.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often a test repeats what it does: as the environment says, or `usual`.
pub(super) fn times(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |number| number.parse().unwrap())
}

/// Long enough for a machine with other work.
pub(super) const PATIENT: AttachOptions = AttachOptions { pause: true, max_pause: Duration::from_secs(2) };

/// A child that runs a scenario. Killed on drop.
pub(super) struct Target {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// What it printed when it was ready.
    ready: HashMap<String, String>,
}

impl Target {
    pub(super) fn start(scenario: &str) -> Self {
        Self::spawn(&mut Self::command(scenario))
    }

    pub(super) fn command(scenario: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "targets::other_process::tests::scenarios::scenario";
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(SCENARIO, scenario);
        command
    }

    pub(super) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut target = Self { child, stdin, stdout, ready: HashMap::new() };
        target.ready = target.answer("ready");
        // The first thread belongs to libtest: it may still start the thread that runs the scenario.
        let sleeps = |stat: &str| stat.contains(") S ") || stat.contains(") Z ");
        while !std::fs::read_to_string(format!("/proc/{}/stat", target.pid())).is_ok_and(|stat| sleeps(&stat))
        {
            std::thread::yield_now();
        }
        target
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads lines `key value` until the line `last`.
    fn answer(&mut self, last: &str) -> HashMap<String, String> {
        let mut found = HashMap::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "the scenario ended before `{last}`");
            // libtest writes the test's name before the first line.
            let line = line.rsplit(" ... ").next().unwrap().trim();
            if line == last {
                return found;
            }
            if let Some((key, value)) = line.split_once(' ') {
                found.insert(key.to_owned(), value.to_owned());
            }
        }
    }

    /// A value that it printed when it was ready.
    pub(super) fn value(&self, key: &str) -> u64 {
        self.ready.get(key).unwrap_or_else(|| panic!("no {key}")).parse().unwrap()
    }

    pub(super) fn address(&self, key: &str) -> Address {
        Address::new(self.value(key))
    }

    /// Has it report how it fared: what was wrong, and what it counted.
    pub(super) fn report(&mut self) -> HashMap<String, String> {
        self.stdin.as_mut().unwrap().write_all(b"report\n").unwrap();
        self.answer("reported")
    }

    /// Fails if anything in it went wrong. Returns what it counted.
    pub(super) fn check(&mut self) -> HashMap<String, String> {
        let report = self.report();
        let wrong = report.get("wrong").map(String::as_str);
        assert_eq!(wrong, Some("0"), "{report:?}");
        report
    }

    /// Ends it, and fails if it ended otherwise than it should.
    pub(super) fn finish(mut self) {
        self.check();
        drop(self.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// A number of things that a capture must not change.
    pub(super) fn inventory(&self) -> Inventory {
        let proc = format!("/proc/{}", self.pid());
        let count = |what: &str| std::fs::read_dir(format!("{proc}/{what}")).unwrap().count();
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
        let field = |key: &str| status.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        Inventory {
            files: count("fd"),
            threads: count("task"),
            mappings: std::fs::read_to_string(format!("{proc}/maps")).unwrap().lines().count(),
            children: self.children(),
            signals: ["SigBlk:", "SigIgn:", "SigCgt:", "TracerPid:"].map(field),
        }
    }

    /// Its children, including those that have ended.
    pub(super) fn children(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// Waits until a thread of it that has this name sleeps.
    pub(super) fn wait_until_asleep(&self, name: &str) {
        let sleeps = || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
            tasks.filter_map(Result::ok).any(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.contains(&format!("({name}) S"))
            })
        };
        while !sleeps() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// See [`Target::inventory`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inventory {
    files: usize,
    threads: usize,
    mappings: usize,
    children: Vec<String>,
    signals: [String; 4],
}

/// Captures, and expects an image: on a machine with much other work not at once.
pub(super) fn image_of(target: &Target) -> OtherProcess {
    const ATTEMPTS: usize = 5;
    let mut captures = (0..ATTEMPTS).map(|_| attach(target.pid(), &PATIENT).unwrap());
    let mut notes = Vec::new();
    let image = captures.find(|captured| {
        notes.push(captured.capture().notes.clone());
        captured.capture().consistent
    });
    image.unwrap_or_else(|| panic!("{notes:?}"))
}
