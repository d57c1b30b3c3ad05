//! Prints tasks and threads to stderr, for programs that `curl` cannot reach.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::dump_error::DumpError;
use crate::host::memory_budget::ActiveRequest;
use crate::inspector::Inspector;
use crate::inspector::inspect::Inspect as _;
use crate::inspector::sampling::Diagnosed;
use crate::own_threads::{ThreadError, capture_permit, spawn};
use crate::report::format::duration;
use crate::report::unfinished::unfinished;
use crate::report::{DiagnosisAnswer, Filter, TasksAnswer, ThreadsAnswer};
use crate::shutdown::Cause;
use crate::snapshot::OwnThread;
use crate::targets;
use crate::waits::diagnosis::Earlier;
use crate::waits::sample::Sample;

/// How long writing to a terminal that accepts nothing is retried.
const WRITE: Duration = Duration::from_secs(5);

/// The last line of a dump.
const END: &str = "=== delouse: end ===\n";

/// Whether a dump is being written.
static DUMPING: AtomicBool = AtomicBool::new(false);

/// What a dump contains.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content {
    /// Tasks and threads.
    Stacks,
    /// Tasks, threads, and what is wrong.
    All,
    /// What keeps the program from ending.
    Shutdown(Cause),
    /// A task that panics, while its thread waits.
    Panic { task: u64 },
}

/// Writes a dump on a separate thread, and calls `done` with the result.
pub(crate) fn start(
    inspector: Arc<Inspector>,
    content: Content,
    done: impl FnOnce(Result<(), DumpError>) + Send + 'static,
) -> Result<(), DumpError> {
    let question = ActiveRequest::begin();
    let turn = Turn::take().ok_or(DumpError::Busy)?;
    let files = capture_permit()?;
    let body = move || {
        let written = match content {
            Content::Stacks => write_stacks(&inspector).and_then(|()| print(END)),
            Content::All => write_stacks(&inspector).and_then(|()| {
                let pid = std::process::id();
                let (wrong, _) = diagnosis(&inspector);
                print(&format!("\n=== delouse: what is wrong in process {pid} ===\n{wrong}{END}"))
            }),
            Content::Shutdown(cause) => write_shutdown(&inspector, cause),
            Content::Panic { task } => write_panic(&inspector, task),
        };
        if question.should_release() {
            inspector.release().release_freed();
        }
        // Before the caller gets the result, so that it can request the next dump at once.
        drop((files, turn));
        done(written.map_err(|error| DumpError::Stderr(error.kind())));
    };
    targets::with_signals_blocked(|| spawn(OwnThread::Dump, body)).map_err(|_| DumpError::NoThread)
}

/// The permission to write a dump.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        (!DUMPING.swap(true, Ordering::AcqRel)).then_some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        DUMPING.store(false, Ordering::Release);
    }
}

/// Prints the tasks before it captures the threads, so that an incomplete dump contains the tasks.
fn write_stacks(inspector: &Inspector) -> io::Result<()> {
    let pid = std::process::id();
    if inspector.symbols().loaded() == 0 {
        write_names(pid, inspector)?;
    }
    let tasks = match inspector.tasks(None) {
        Ok(list) => {
            TasksAnswer::new(list, |threads| inspector.stacks_of(threads), &Filter::default(), false)
                .stacktrace
        }
        Err(error) => format!("no tasks: {error}\n"),
    };
    print(&format!("=== delouse: every task of process {pid} ===\n{tasks}"))?;
    let captured = inspector.threads(false);
    let threads = ThreadsAnswer::new(captured, false).stacktrace;
    print(&format!("\n=== delouse: every thread of process {pid} ===\n{threads}"))
}

/// The task that panics: where it was spawned, its async stack, and the stack of its thread.
fn write_panic(inspector: &Inspector, task: u64) -> io::Result<()> {
    let text = match inspector.tasks_answer(None, &Filter::of_task(task), false) {
        Ok(answer) => answer.stacktrace,
        Err(error) => format!("not available: {error}\n"),
    };
    print(&format!("=== delouse: task {task} panics ===\n{text}{END}"))
}

/// What is wrong, as text, and the last sample that shows it.
fn diagnosis(inspector: &Inspector) -> (String, Option<Sample>) {
    match inspector.diagnose(Earlier::default()) {
        Ok(Diagnosed { mut samples, capture, found }) => {
            let last = samples.pop();
            let answer = last.as_ref().map(|last| DiagnosisAnswer::new(found, last, capture, None).diagnosis);
            (answer.unwrap_or_default(), last)
        }
        Err(error) => (format!("no diagnosis: {error}\n"), None),
    }
}

/// What keeps the program from ending: what is wrong, what the main future waits for, and all tasks that are left.
fn write_shutdown(inspector: &Inspector, cause: Cause) -> io::Result<()> {
    let pid = std::process::id();
    let why = match cause {
        Cause::Again(count) => format!("SIGTERM has arrived {count} times"),
        Cause::LongAfterSignal(limit) => format!("SIGTERM arrived more than {} ago", duration(limit)),
        Cause::LongAfterMain(limit) => {
            format!("the main future returned more than {} ago", duration(limit))
        }
    };
    let head = format!("=== delouse: {why}, and process {pid} has not ended ===\n");
    let (wrong, last) = diagnosis(inspector);
    let left = last.as_ref().map(unfinished).unwrap_or_default();
    print(&format!("{head}{left}\n{wrong}{END}"))
}

/// Prints the threads with names of functions only, before the debug information is read, which may take seconds.
fn write_names(pid: u32, inspector: &Inspector) -> io::Result<()> {
    print(&format!(
        "=== delouse: reads the debug information of process {pid}: that may take seconds ===\n"
    ))?;
    let captured = inspector.threads_by_name();
    let threads = ThreadsAnswer::new(captured, false).stacktrace;
    print(&format!("=== delouse: meanwhile its threads, by the names of functions ===\n{threads}\n"))
}

/// Writes without std's lock of stderr, which a blocked thread may hold.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else {
        // No descriptor is free.
        return io::stderr().write_all(text.as_bytes());
    };
    let mut stderr = File::from(stderr);
    let mut left = text.as_bytes();
    let begun = Instant::now();
    while !left.is_empty() {
        match stderr.write(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => left = left.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process that shares the terminal may have made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < WRITE => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl From<ThreadError> for DumpError {
    /// Converts the reason why a capture cannot begin.
    fn from(error: ThreadError) -> Self {
        match error {
            ThreadError::Files { .. } => Self::NoFiles,
            _ => Self::NoRoom,
        }
    }
}
