//! What hangs in a test: the diagnosis, the tasks and the threads, on stderr and in files.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use tokio::runtime::Handle;

use super::test::{Test, print};
use crate::inspector::Inspector;
use crate::own_threads::{self, ThreadError};
pub(super) use crate::registry::Registered;
use crate::report::{DiagnosisAnswer, Filter, FindingReport, TasksAnswer, ThreadsAnswer};
use crate::runtime;
use crate::snapshot::OwnThread;
use crate::targets;
use crate::tasks::{Task, TaskKind};
use crate::waits::diagnosis::{Earlier, diagnose};
use crate::waits::location;

/// The tasks that are named in a message.
const NAMED: usize = 8;

/// Starts a thread that makes reports. It belongs to delouse: captures leave its stack out.
pub(super) fn spawn(body: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    targets::with_signals_blocked(|| own_threads::spawn(OwnThread::Test, body))
}

/// Starts the watchdog's thread, which makes a report of few tests: it is started for each.
pub(super) fn spawn_waiting(body: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    targets::with_signals_blocked(|| own_threads::spawn_waiting(OwnThread::Test, body))
}

/// [`make`] on a thread of [`spawn_waiting`].
pub(super) fn make_late(test: &Test, late: &str, handle: &Handle) -> String {
    let made = own_threads::work(|| make(test, late, handle));
    made.unwrap_or_else(|why| format!("{late}\nThere is no report: {why}"))
}

/// The report of one test, as in the file.
#[derive(Serialize)]
struct Report<'r> {
    test: &'r str,
    /// What the test's panic says.
    verdict: &'r str,
    diagnosis: Option<DiagnosisAnswer>,
    tasks: Option<TasksAnswer>,
    threads: ThreadsAnswer,
}

/// Writes the report about a test that is late, or that is to end, as the sentence `late` says. Returns the verdict: what is
/// wrong in its first line.
pub(super) fn make(test: &Test, late: &str, handle: &Handle) -> String {
    let Some(inspector) = runtime::inspector() else {
        return format!("{late}\nDELOUSE=off: what hangs was not looked for");
    };
    let tasks = inspector.tasks(None).map(|list| {
        TasksAnswer::new(list, |threads| inspector.stacks_of(threads), &Filter::default(), false)
    });
    let own = tasks.as_ref().map(|tasks| of_test(&tasks.tasks, test, handle)).unwrap_or_default();
    let diagnosis = diagnosis(&inspector);
    let finding = diagnosis.as_ref().ok().and_then(|answer| of_own(&answer.findings, &own, test));
    let first = match (finding, &diagnosis) {
        (Some(finding), _) => finding.headline(),
        (None, Ok(answer)) => waits(&own, &answer.summary),
        (None, Err(why)) => format!("no diagnosis: {why}"),
    };
    let threads = ThreadsAnswer::new(inspector.threads(false), false);
    let mut text = format!("=== delouse: {late} ===\n");
    let _infallible = match &diagnosis {
        Ok(answer) => writeln!(text, "{}", answer.diagnosis),
        Err(why) => writeln!(text, "no diagnosis: {why}"),
    };
    let _infallible = match &tasks {
        Ok(tasks) => writeln!(text, "=== delouse: every task ===\n{}", tasks.stacktrace),
        Err(why) => writeln!(text, "no tasks: {why}"),
    };
    let _infallible =
        writeln!(text, "=== delouse: every thread ===\n{}=== delouse: end ===", threads.stacktrace);
    print(&text);
    let verdict = format!("{first}\n{late}");
    let report =
        Report { test: &test.name, verdict: &verdict, diagnosis: diagnosis.ok(), tasks: tasks.ok(), threads };
    match write(&report, &text) {
        Ok(path) => {
            let here = std::env::current_dir().unwrap_or_default();
            let path = path.strip_prefix(here).unwrap_or(&path);
            format!("{verdict}; the report is in {}", path.display())
        }
        Err(why) => format!("{verdict}; the report is on stderr, and could not be written to a file: {why}"),
    }
}

/// A sentence about the tasks that are left, `count` by tokio's count.
pub(super) fn left_over(test: &Test, handle: &Handle, count: usize) -> String {
    let (noun, are) = if count == 1 { ("task", "is") } else { ("tasks", "are") };
    let mut text = format!("{count} {noun} {are} left after the body of test `{}`", test.name);
    let tasks = runtime::inspector().and_then(|inspector| inspector.tasks(None).ok());
    let Some((_, list)) = tasks else { return text };
    let own = list.tasks.iter().filter(|task| is_of(task, handle));
    for task in own.take(NAMED) {
        let place = location::of_task(&task.stack).map(|place| format!(" in {place}")).unwrap_or_default();
        let spawned =
            task.spawned_at.as_ref().map(|place| format!(", spawned at {place}")).unwrap_or_default();
        let _infallible = write!(text, "\n  task {}{place}{spawned}", task.id);
    }
    text
}

fn diagnosis(inspector: &Inspector) -> Result<DiagnosisAnswer, String> {
    let (samples, capture) = inspector.samples().map_err(|error| error.to_string())?;
    let last = samples.last().ok_or("there is no sample")?;
    let found = diagnose(&samples, None, Earlier::default());
    Ok(DiagnosisAnswer::new(found, last, capture, None))
}

/// The tasks of a test's runtime, and its body. Other tests may run at the same time.
fn of_test<'t>(tasks: &'t [Task], test: &Test, handle: &Handle) -> Vec<&'t Task> {
    tasks.iter().filter(|task| is_body(task, test) || is_of(task, handle)).collect()
}

/// Whether a task is of that runtime. Its name ends with tokio's number of the runtime.
fn is_of(task: &Task, handle: &Handle) -> bool {
    let number = handle.id().to_string();
    task.runtime.as_ref().is_some_and(|runtime| {
        let last = runtime.trim_end_matches(')').rsplit(' ').next();
        last == Some(number.as_str())
    })
}

/// Whether a task is the body of the test: an async block in the function with the test's name.
fn is_body(task: &Task, test: &Test) -> bool {
    task.kind == TaskKind::Main && task.stack.first().is_some_and(|frame| is_in(&frame.function, &test.name))
}

fn is_in(function: &str, test: &str) -> bool {
    function.strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The first finding that is about a task of the test.
fn of_own<'f>(findings: &'f [FindingReport], own: &[&Task], test: &Test) -> Option<&'f FindingReport> {
    let is_own = |finding: &&FindingReport| {
        finding.tasks.iter().any(|id| match id {
            // The bodies of all tests have this number.
            0 => finding.summary.contains(&format!("`{}", test.name)) || own.iter().any(|task| task.id == 0),
            id => own.iter().any(|task| task.id == *id),
        })
    };
    findings.iter().find(is_own)
}

/// What the test waits for, where nothing is known to be wrong: its body, or a task that is left when the body has ended. On a
/// busy machine, the shutdown of the runtime may be over when the threads are sampled, so that no finding says it.
fn waits(own: &[&Task], summary: &str) -> String {
    let body = own.iter().find(|task| task.kind == TaskKind::Main);
    let place = |task: &Task| location::of_task(&task.stack);
    match (body, own.first()) {
        (Some(body), _) => {
            let Some(place) = place(body) else { return summary.to_owned() };
            let kind = body.waits_on.first().map(|on| format!(" ({})", on.kind.name())).unwrap_or_default();
            format!("the body waits in `{place}`{kind}; {summary}")
        }
        (None, Some(task)) => {
            let place = place(task).map(|place| format!(" in `{place}`")).unwrap_or_default();
            format!("task {}{place} has not ended; {summary}", task.id)
        }
        (None, None) => summary.to_owned(),
    }
}

/// Writes the report next to what Cargo builds, and returns the path of the text.
fn write(report: &Report<'_>, text: &str) -> std::io::Result<PathBuf> {
    let directory = directory();
    fs::create_dir_all(&directory)?;
    let is_plain = |of: char| of.is_alphanumeric() || matches!(of, '_' | '-');
    let name: String = report
        .test
        .replace("::", ".")
        .chars()
        .map(|of| if is_plain(of) || of == '.' { of } else { '_' })
        .collect();
    fs::write(directory.join(format!("{name}.json")), serde_json::to_vec(report)?)?;
    let path = directory.join(format!("{name}.txt"));
    fs::write(&path, format!("{}\n\n{text}", report.verdict))?;
    Ok(path)
}

/// `target/delouse`, by the path of the test's program, `target/debug/deps/name`; else in the current directory.
fn directory() -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    let mut folders = executable.ancestors().skip(1);
    let is_deps = folders.next().is_some_and(|folder| folder.ends_with("deps"));
    match folders.nth(1) {
        Some(target) if is_deps => target.join("delouse"),
        _ => PathBuf::from("target/delouse"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(kind: &str, function: &str) -> Task {
        let task = serde_json::json!({
            "id": 2, "kind": kind, "runtime": null, "state": "running", "spawned_at": null, "waits_on": [],
            "stack": [{ "function": function, "file": "src/lib.rs", "line": 7, "children": [] }],
        });
        serde_json::from_value(task).unwrap()
    }

    #[test]
    fn without_a_finding_the_task_that_is_left_is_named() {
        let (left, body) = (task("blocking", "app::reads"), task("main", "app::test"));
        let summary = "nothing wrong found";
        assert_eq!(waits(&[], summary), summary);
        assert_eq!(
            waits(&[&left], summary),
            "task 2 in `app::reads at src/lib.rs:7` has not ended; nothing wrong found"
        );
        assert_eq!(
            waits(&[&left, &body], summary),
            "the body waits in `app::test at src/lib.rs:7`; nothing wrong found"
        );
    }
}
