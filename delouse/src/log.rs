//! Prints delouse's messages to stderr.
//!
//! A separate thread writes them, so that a full pipe, or a lock of stderr that the program holds, delays neither the server
//! nor the program. A line that does not fit into the queue is dropped.

use std::io::{self, Write as _};
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use crate::snapshot::OwnThread;
use crate::targets;

/// The most lines in the queue.
const QUEUED: usize = 256;

/// How long [`Log::flush`] waits.
const FLUSH: Duration = Duration::from_millis(200);

/// The queue of lines. The thread ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Log(SyncSender<Message>);

enum Message {
    Line(String),
    /// Answered when all lines before it are written.
    Flush(SyncSender<()>),
}

impl Log {
    /// Starts the thread.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn new() -> io::Result<Self> {
        let (queue, messages) = mpsc::sync_channel(QUEUED);
        let body = move || {
            for message in messages {
                match message {
                    Message::Line(line) => write(&line),
                    Message::Flush(done) => drop(done.send(())),
                }
            }
        };
        targets::with_signals_blocked(|| OwnThread::Log.builder().spawn(body))?;
        Ok(Self(queue))
    }

    /// Prints `line`, with the name of delouse before it.
    pub(crate) fn say(&self, line: &str) {
        let _full = self.0.try_send(Message::Line(format!("delouse: {line}\n")));
    }

    /// Waits until all earlier lines are written, at most [`FLUSH`].
    pub(crate) fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.0.try_send(Message::Flush(done)).is_ok() {
            let _late = written.recv_timeout(FLUSH);
        }
    }
}

/// Prints one line without a [`Log`].
///
/// Does not panic. (`eprintln!` panics if stderr is a pipe without a reader.)
pub(crate) fn say_once(line: &str) {
    match Log::new() {
        Ok(log) => {
            log.say(line);
            log.flush();
        }
        // If no thread can be started, write directly, which may block.
        Err(_) => write(&format!("delouse: {line}\n")),
    }
}

fn write(line: &str) {
    let _no_reader = io::stderr().write_all(line.as_bytes());
}
