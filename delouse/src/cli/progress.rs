//! Says on a terminal what takes long.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What takes less time is not mentioned.
const PATIENCE: Duration = Duration::from_secs(1);

/// Until it is dropped, something goes on that the terminal names if it takes longer than a second.
pub(super) struct Progress {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Begins to measure. Does nothing if stderr is no terminal.
    pub(super) fn start(what: String) -> Self {
        if !io::stderr().is_terminal() {
            return Self { running: None };
        }
        let (done, is_done) = mpsc::channel();
        let body = move || {
            if is_done.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let _closed = write!(io::stderr(), "delouse: {what} …");
            let _ended = is_done.recv();
            // Back to the start of the line, which is cleared.
            let _closed = write!(io::stderr(), "\r\x1b[K");
        };
        let thread = thread::Builder::new().name("delouse-progress".to_owned()).spawn(body);
        Self { running: thread.ok().map(|thread| (done, thread)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.running.take() {
            drop(done);
            let _panicked = thread.join();
        }
    }
}
