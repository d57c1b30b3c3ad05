//! What delouse says on stderr: through a thread of its own, so that a stderr that nobody reads, or that
//! the program holds locked for ever, delays neither the server nor the program. What does not fit into
//! the queue is dropped.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use slog::{Drain, FilterLevel, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, info, o};

use crate::snapshot;

/// Lines that wait for stderr.
const QUEUED: usize = 256;

/// How long anybody waits for stderr to take what was said.
const FLUSH: Duration = Duration::from_millis(200);

/// The two voices: ours, always heard, and dropshot's, from the level on that the user sets.
#[derive(Clone)]
pub(crate) struct Log {
    ours: Logger,
    dropshot: Logger,
    queue: Queue,
}

/// What the thread is told.
enum Message {
    Line(String),
    /// All lines before this one have been written.
    Flush(SyncSender<()>),
}

impl Log {
    /// Fails where there is no thread to be had.
    pub(crate) fn new(level: FilterLevel) -> io::Result<Self> {
        let (queue, messages) = mpsc::sync_channel(QUEUED);
        // Ends with the last `Log`.
        let body = move || {
            for message in messages {
                match message {
                    Message::Line(line) => write(&line),
                    Message::Flush(done) => drop(done.send(())),
                }
            }
        };
        snapshot::shielded(|| thread::Builder::new().name("delouse-log".to_owned()).spawn(body))?;
        let queue = Queue(queue);
        let ours = Logger::root(queue.clone(), o!());
        let filtered = queue.clone().filter(move |record| level.accepts(record.level())).fuse();
        Ok(Self { ours, dropshot: Logger::root(filtered, o!()), queue })
    }

    /// One line for the person at the terminal.
    pub(crate) fn say(&self, line: &str) {
        info!(self.ours, #OURS, "{line}");
    }

    pub(crate) fn dropshot(&self) -> &Logger {
        &self.dropshot
    }

    /// Waits until all that was said is written, but not for long.
    pub(crate) fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.queue.0.try_send(Message::Flush(done)).is_ok() {
            let _late = written.recv_timeout(FLUSH);
        }
    }
}

/// One line from the program's own thread, where no server runs.
///
/// Never panics, as `eprintln!` does where stderr is a pipe that nobody reads any more.
pub(crate) fn say_once(line: &str) {
    match Log::new(FilterLevel::Off) {
        Ok(log) => {
            log.say(line);
            log.flush();
        }
        // No thread to be had: rather wait for stderr than say nothing.
        Err(_) => write(&format!("delouse: {line}\n")),
    }
}

fn write(line: &str) {
    let _nobody_reads = io::stderr().write_all(line.as_bytes());
}

/// Marks lines that are printed without a level.
const OURS: &str = "delouse";

/// Makes a line `delouse: warning: message (key: value, …)` of each record.
#[derive(Clone)]
struct Queue(SyncSender<Message>);

impl Drain for Queue {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let mut line = String::from("delouse: ");
        if record.tag() != OURS {
            line.push_str(match record.level() {
                Level::Critical | Level::Error => "error: ",
                Level::Warning => "warning: ",
                Level::Info => "info: ",
                Level::Debug | Level::Trace => "debug: ",
            });
        }
        let mut pairs = Pairs(String::new());
        {
            use slog::KV as _;
            let _infallible = record.kv().serialize(record, &mut pairs);
            let _infallible = values.serialize(record, &mut pairs);
        }
        let _infallible = write!(line, "{}", record.msg());
        if !pairs.0.is_empty() {
            let _infallible = write!(line, " ({})", pairs.0);
        }
        line.push('\n');
        let _full = self.0.try_send(Message::Line(line));
        Ok(())
    }
}

/// Collects `key: value` pairs.
struct Pairs(String);

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        let separator = if self.0.is_empty() { "" } else { ", " };
        write!(self.0, "{separator}{key}: {value}")?;
        Ok(())
    }
}
