//! The answer of `/history`: what watching the program has found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::findings::FindingReport;
use super::formats::Renders;
use super::{format, json};
use crate::finding_change::FindingChange;

/// What watching the program has found.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HistoryAnswer {
    /// All of it as text for people.
    pub history: String,
    /// How the program is watched; `null` if it is not.
    pub watch: Option<WatchReport>,
    /// What has come, changed and gone, the newest first.
    pub events: Vec<HistoryEvent>,
    /// How many older events were dropped.
    pub dropped: u64,
}

/// How a program is watched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct WatchReport {
    /// The time between looks that was asked for, in milliseconds.
    pub interval_ms: u64,
    /// How long after the last look the next one begins, in milliseconds: more than `interval_ms` if looks take long.
    pub pace_ms: u64,
    /// How many looks there were.
    pub looks: u64,
    /// How many of them gave no diagnosis.
    pub failed: u64,
    /// When the last one began, in milliseconds since 1970.
    pub last_ms: Option<u64>,
    /// How long all looks took, in milliseconds.
    pub took_ms: u64,
    /// For how long they have stopped the program at most, in microseconds: the longest stop of each look, times its samples.
    pub pause_us: u64,
    /// The longest stop.
    pub longest_pause_us: u64,
    /// Why the last look gave no diagnosis; `null` if it did.
    pub suspended: Option<String>,
    /// What is wrong at present, as far as it was reported: how many findings there are of each kind.
    #[serde(default)]
    pub findings: BTreeMap<String, usize>,
    /// Where reports are written.
    pub directory: Option<String>,
}

/// Something that has come, changed or gone.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HistoryEvent {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The number of the look that saw it.
    pub look: u64,
    /// What has changed.
    pub change: FindingChange,
    /// The finding.
    pub finding: FindingReport,
    /// The finding as text, with its tasks.
    pub text: String,
    /// The report on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

impl Renders for HistoryAnswer {
    fn text(&self) -> String {
        self.history.clone()
    }
}

impl HistoryAnswer {
    /// `now`: in milliseconds since 1970.
    pub(crate) fn new(watch: Option<WatchReport>, events: Vec<HistoryEvent>, dropped: u64, now: u64) -> Self {
        let mut history = match &watch {
            Some(watch) => watch_text(watch, now),
            None => "Not watched. DELOUSE_WATCH=30s in the program's environment, or Config::watch, has delouse look for \
                     findings every 30 seconds.\n"
                .to_owned(),
        };
        if watch.is_some() && events.is_empty() {
            history.push_str("\nNothing wrong found so far.\n");
        }
        for event in &events {
            let ago = ago(now, event.at_ms);
            let _infallible = writeln!(history, "\n{}, {ago} ago", format::upper(&json::name(&event.change)));
            history.push_str(&event.text);
            if let Some(path) = &event.report {
                let _infallible = writeln!(history, "  Report: {path}");
            }
        }
        if dropped > 0 {
            let _infallible = writeln!(history, "\nand {dropped} older events");
        }
        Self { history, watch, events, dropped }
    }
}

fn ago(now: u64, then: u64) -> String {
    format::duration(Duration::from_millis(now.saturating_sub(then)))
}

fn watch_text(watch: &WatchReport, now: u64) -> String {
    let every = |ms| format::duration(Duration::from_millis(ms));
    let mut text = format!("Watched every {}", every(watch.interval_ms));
    if watch.pace_ms > watch.interval_ms {
        let _infallible = write!(text, ", at present every {} because looks take long", every(watch.pace_ms));
    }
    let _infallible = match watch.last_ms {
        None => write!(text, "; no look yet"),
        Some(last) => write!(
            text,
            ": {} looks, the last one {} ago; they took {} in all, and stopped the program for {} in all, {} at most",
            watch.looks,
            ago(now, last),
            every(watch.took_ms),
            format::duration(Duration::from_micros(watch.pause_us)),
            format::duration(Duration::from_micros(watch.longest_pause_us)),
        ),
    };
    text.push_str(".\n");
    if let Some(why) = &watch.suspended {
        let _infallible = writeln!(text, "The last look gave no diagnosis: {why}");
    }
    text
}
