//! The answer of `/huge-pages`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::format::{duration, size};
use super::formats::Renders;

/// The result of joining memory into huge pages.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HugePages {
    /// Anonymous memory of the program in bytes. A fork copies its page tables.
    pub(crate) anonymous_bytes: u64,
    /// How much of it is in huge pages now, in bytes; null if the kernel does not report it (before Linux 6.7).
    pub(crate) huge_bytes: Option<u64>,
    /// How long joining took, in microseconds. The program was running meanwhile.
    pub(crate) total_us: u64,
    /// Approximately how long `/core` would stop the program now, in microseconds. A capture of tasks is somewhat shorter.
    pub(crate) pause_us: u64,
    /// How long a capture may stop the program, in microseconds. Set by `DELOUSE_PAUSE_BUDGET_MS`.
    pub(crate) budget_us: u64,
    /// Why some memory was not joined.
    pub(crate) notes: Vec<String>,
}

impl Renders for HugePages {
    fn text(&self) -> String {
        let (anonymous, micros) = (size(self.anonymous_bytes), |us| duration(Duration::from_micros(us)));
        let mut text = match self.huge_bytes {
            Some(huge) => format!("{} of {anonymous} are in huge pages now", size(huge)),
            None => format!("{anonymous} were scanned for memory that can be joined"),
        };
        text += &format!(
            "; that took {}\na capture of threads and memory would stop the program for about {} of {} allowed\n",
            micros(self.total_us),
            micros(self.pause_us),
            micros(self.budget_us)
        );
        text.extend(self.notes.iter().map(|note| format!("note: {note}\n")));
        text
    }
}
