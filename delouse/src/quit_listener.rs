//! Prints a dump for each SIGQUIT (Ctrl-\\ at the terminal), for programs that `curl` cannot reach.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::inspector::Inspector;
use crate::targets::{self, QuitSignals};
use crate::{log, stderr_dump};

/// Stack size of the thread that waits for the signal. Dumps run on another thread.
const STACK: usize = 128 << 10;

/// Listens for SIGQUIT until dropped.
#[derive(Debug)]
pub(crate) struct QuitListener {
    is_stopped: Arc<AtomicBool>,
    _signals: QuitSignals,
}

impl QuitListener {
    /// Starts to listen. `inspector` is called for each dump. `None` if the program handles or ignores SIGQUIT.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(inspector: fn() -> Option<Arc<Inspector>>) -> io::Result<Option<Self>> {
        let seen = QuitSignals::count();
        let Some(signals) = targets::listen_for_quit() else { return Ok(None) };
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        let thread = thread::Builder::new().name("delouse-quit".to_owned()).stack_size(STACK);
        targets::with_signals_blocked(|| thread.spawn(move || listen(inspector, &stopped, seen)))?;
        Ok(Some(Self { is_stopped, _signals: signals }))
    }
}

impl Drop for QuitListener {
    /// Afterwards `_signals` is dropped, which wakes the thread.
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Release);
    }
}

fn listen(inspector: fn() -> Option<Arc<Inspector>>, stopped: &AtomicBool, mut seen: u32) {
    loop {
        seen = QuitSignals::wait(seen);
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let failed = |error| log::say_once(&format!("no dump at SIGQUIT: {error}"));
        let done = move |result: Result<(), _>| {
            let _written = result.map_err(failed);
        };
        if let Some(Err(error)) = inspector().map(|inspector| stderr_dump::start(inspector, done)) {
            failed(error);
        }
    }
}
