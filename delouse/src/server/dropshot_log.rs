//! dropshot's messages, among the lines that delouse prints.

use std::fmt::{self, Write as _};

use slog::{Drain, FilterLevel, KV as _, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

use crate::log::Log;

/// A logger for dropshot that prints records of `level` and above.
pub(super) fn logger(log: &Log, level: FilterLevel) -> Logger {
    let lines = Lines(log.clone());
    Logger::root(lines.filter(move |record| level.accepts(record.level())).fuse(), o!())
}

/// Makes a line `warning: message (key: value, …)` of each record.
struct Lines(Log);

impl Drain for Lines {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let level = match record.level() {
            Level::Critical | Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
            Level::Debug | Level::Trace => "debug",
        };
        let mut pairs = Pairs(String::new());
        let _infallible = record.kv().serialize(record, &mut pairs);
        let _infallible = values.serialize(record, &mut pairs);
        let mut line = format!("{level}: {}", record.msg());
        if !pairs.0.is_empty() {
            let _infallible = write!(line, " ({})", pairs.0);
        }
        self.0.say(&line);
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
