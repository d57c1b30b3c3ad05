//! Prints a dump for each SIGQUIT (Ctrl-\\ at the terminal), for programs that `curl` cannot reach, and what a program waits
//! for that does not end: at the second SIGTERM, or when its end takes too long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::inspector::Inspector;
use crate::shutdown;
use crate::snapshot::OwnThread;
use crate::stderr_dump::Content;
use crate::targets::{self, QuitSignals, SignalWakes, TermSignals};
use crate::{log, stderr_dump};

/// Stack size of the thread that waits for the signal. Dumps run on another thread.
const STACK: usize = 128 << 10;

/// How long one wait lasts; it is repeated.
const LONG: Duration = Duration::from_secs(3600);

/// Listens for signals until dropped.
#[derive(Debug)]
pub(crate) struct SignalListener {
    is_stopped: Arc<AtomicBool>,
    _quits: Option<QuitSignals>,
    _terms: Option<TermSignals>,
}

/// What is listened for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signals {
    pub(crate) quit: bool,
    pub(crate) term: bool,
    /// How long the end of the program may take.
    pub(crate) shutdown: Option<Duration>,
}

impl SignalListener {
    /// Starts to listen. `inspector` is called for each dump. `None` if there is nothing to listen for: the program handles
    /// or ignores the signals.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(
        inspector: fn() -> Option<Arc<Inspector>>,
        signals: Signals,
    ) -> io::Result<Option<Self>> {
        let seen = Seen { wakes: SignalWakes::count(), quits: QuitSignals::count() };
        let quits = if signals.quit { targets::listen_for_quit() } else { None };
        let terms = if signals.term { targets::listen_for_term() } else { None };
        shutdown::limit(signals.shutdown);
        if quits.is_none() && terms.is_none() && signals.shutdown.is_none() {
            return Ok(None);
        }
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        let thread = OwnThread::Signals.builder().stack_size(STACK);
        targets::with_signals_blocked(|| thread.spawn(move || listen(inspector, &stopped, seen)))?;
        Ok(Some(Self { is_stopped, _quits: quits, _terms: terms }))
    }
}

impl Drop for SignalListener {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Release);
        SignalWakes::wake();
    }
}

struct Seen {
    wakes: u32,
    quits: u32,
}

fn listen(inspector: fn() -> Option<Arc<Inspector>>, stopped: &AtomicBool, mut seen: Seen) {
    loop {
        seen.wakes = SignalWakes::wait(seen.wakes, shutdown::until_due().unwrap_or(LONG));
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let quits = QuitSignals::count();
        if quits != seen.quits {
            seen.quits = quits;
            print(inspector, Content::All, "SIGQUIT");
        }
        if let Some(cause) = shutdown::check(TermSignals::count()) {
            print(inspector, Content::Shutdown(cause), "the end of the program");
        }
    }
}

fn print(inspector: fn() -> Option<Arc<Inspector>>, content: Content, at: &'static str) {
    let failed = move |error| log::say_once(&format!("no dump at {at}: {error}"));
    let done = move |result: Result<(), _>| {
        let _written = result.map_err(failed);
    };
    if let Some(Err(error)) = inspector().map(|inspector| stderr_dump::start(inspector, content, done)) {
        failed(error);
    }
}
