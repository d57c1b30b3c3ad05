//! What the endpoints tell, on stderr: for the days when no `curl` reaches the program.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::debuginfo::symbols::Symbols;
use crate::dump_error::DumpError;
use crate::report::{Filter, TasksAnswer, ThreadsAnswer};
use crate::snapshot::room::Question;
use crate::tasks::engine::Engines;
use crate::{runtime, server, snapshot, threads};

/// How long [`dump`] lets its caller wait.
const WAIT: Duration = Duration::from_secs(30);
/// How long a terminal that takes nothing is tried.
const WRITE: Duration = Duration::from_secs(5);

/// One dump at a time.
static DUMPING: AtomicBool = AtomicBool::new(false);

/// What a dump is read by: the server's own where one runs, so that nothing is read twice.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) engines: Arc<Engines>,
    pub(crate) symbols: Arc<Symbols>,
    /// The server's runtime, whose tasks are left out.
    pub(crate) own: Option<Handle>,
}

/// Prints what every task and every thread of this program is doing to stderr: the text of
/// `/stacktrace/tokio`, then that of `/stacktrace/rust`. Where the debug information has to be read first, the threads are
/// printed before that, too, by the names of their functions.
///
/// Can be called from any thread, inside and outside of runtimes, with or without a server, whatever the
/// other threads are doing. The calling thread waits until all is written: some 10 ms, but a second or more
/// the first time, when the debug information is read, and at most half a minute. The program stands still as for
/// `/stacktrace/tokio`. Inside of an async function, `tokio::task::spawn_blocking(delouse::dump)` spares the
/// worker.
///
/// Does nothing where the feature `debug` is off, or `DELOUSE=off`.
///
/// # Errors
/// Says why there is no dump; the program goes on.
pub fn dump() -> Result<(), DumpError> {
    let Some(sources) = runtime::sources() else { return Ok(()) };
    let (done, outcome) = mpsc::sync_channel(1);
    start(sources, move |result| drop(done.try_send(result)))?;
    match outcome.recv_timeout(WAIT) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(DumpError::Late),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(DumpError::Failed),
    }
}

/// Dumps on a thread of our own, and tells `done` how it went.
pub(crate) fn start(
    sources: Sources,
    done: impl FnOnce(Result<(), DumpError>) + Send + 'static,
) -> Result<(), DumpError> {
    let question = Question::begin();
    server::room()?;
    let turn = Turn::take().ok_or(DumpError::Busy)?;
    let body = move || {
        let written = write(&sources);
        if question.should_give_back() {
            sources.engines.release();
            sources.symbols.trim(Duration::ZERO).give_back();
        }
        // Before the caller hears of it, who may want the next one.
        drop(turn);
        done(written.map_err(|error| DumpError::Stderr(error.kind())));
    };
    snapshot::shielded(|| server::spawn("delouse-dump", body)).map_err(|_| DumpError::NoThread)
}

/// The right to write a dump.
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

/// Tasks first, written out before threads are captured: a dump that is cut short has them.
fn write(sources: &Sources) -> io::Result<()> {
    let pid = std::process::id();
    if sources.symbols.loaded() == 0 {
        write_names(pid)?;
    }
    let mut roots = runtime::roots();
    if let Some(own) = &sources.own {
        roots = roots.without(own);
    }
    let tasks = match sources.engines.list(None, &roots) {
        Ok(list) => TasksAnswer::new(list, &sources.symbols, &Filter::default(), false).stacktrace,
        Err(error) => format!("no tasks: {error}\n"),
    };
    print(&format!("=== delouse: every task of process {pid} ===\n{tasks}"))?;
    let captured = threads::capture::capture(false, &sources.symbols);
    let threads = ThreadsAnswer::new(captured, false).stacktrace;
    print(&format!("\n=== delouse: every thread of process {pid} ===\n{threads}=== delouse: end ===\n"))
}

/// What is known before the debug information is read, which may take seconds.
fn write_names(pid: u32) -> io::Result<()> {
    print(&format!(
        "=== delouse: reads the debug information of process {pid}: that may take seconds ===\n"
    ))?;
    let captured = threads::capture::capture(false, &Symbols::names_only());
    let threads = ThreadsAnswer::new(captured, false).stacktrace;
    print(&format!("=== delouse: meanwhile its threads, by the names of functions ===\n{threads}\n"))
}

/// Past std's lock of stderr, which a thread that stands still may hold.
fn print(text: &str) -> io::Result<()> {
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else {
        // No file can be opened any more.
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
            // Whoever shares the terminal can have made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < WRITE => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
