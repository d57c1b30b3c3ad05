//! What delouse says on stderr: through a thread of its own, so that a stderr that nobody reads, or that
//! the program holds locked for ever, delays neither the server nor the program. What does not fit into
//! the queue is dropped.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use slog::{Drain, FilterLevel, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, info, o};

/// The two voices: ours, always heard, and dropshot's, from the level on that the user sets.
#[derive(Clone)]
pub(crate) struct Log {
    ours: Logger,
    dropshot: Logger,
}

impl Log {
    pub(crate) fn new(level: FilterLevel) -> Self {
        let queue = slog_async::Async::new(Stderr)
            .chan_size(256)
            .overflow_strategy(slog_async::OverflowStrategy::Drop)
            .thread_name("delouse-log".to_owned())
            .build();
        let ours = Logger::root(queue.fuse(), o!());
        let filtered = ours.clone().filter(move |record| level.accepts(record.level())).fuse();
        Self { dropshot: Logger::root(filtered, o!()), ours }
    }

    /// One line for the person at the terminal.
    pub(crate) fn say(&self, line: &str) {
        info!(self.ours, #OURS, "{line}");
    }

    pub(crate) fn dropshot(&self) -> &Logger {
        &self.dropshot
    }
}

/// Marks lines that are printed without a level.
const OURS: &str = "delouse";

/// Prints `delouse: warning: message (key: value, …)`.
struct Stderr;

impl Drain for Stderr {
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
        let _nobody_reads = std::io::stderr().write_all(line.as_bytes());
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
