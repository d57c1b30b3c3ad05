//! The answer of `/core?estimate=true`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::format::{duration, size};
use super::formats::Renders;

/// The size of a core file taken now, and its cost for the program.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CoreEstimate {
    /// Approximate size of the file in bytes, uncompressed.
    pub(crate) bytes: u64,
    /// Approximately how long the program would be stopped, in microseconds.
    pub(crate) pause_us: u64,
    /// How long the program may be stopped, in microseconds. A longer pause requires `?force=true`. Set by
    /// `DELOUSE_PAUSE_BUDGET_MS`.
    pub(crate) budget_us: u64,
    /// Why a core file would be refused.
    pub(crate) refused: Option<String>,
}

impl Renders for CoreEstimate {
    fn text(&self) -> String {
        let micros = |us| duration(Duration::from_micros(us));
        let mut text = format!(
            "a core file of about {}, uncompressed\nthe program would be stopped for about {} of {} allowed\n",
            size(self.bytes),
            micros(self.pause_us),
            micros(self.budget_us)
        );
        text.extend(self.refused.iter().map(|reason| format!("refused without ?force=true: {reason}\n")));
        text
    }
}
