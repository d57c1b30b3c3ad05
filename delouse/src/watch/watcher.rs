//! From the answer of a look to what is printed and written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::folder::{Folder, MOST};
use super::tracker::{Found, Tracker};
use crate::finding_change::FindingChange;
use crate::finding_event::FindingEvent;
use crate::report::json::name;
use crate::report::{DiagnosisAnswer, FindingReport};
use crate::waits::Severity;

/// Ids of one finding that are kept: a hundred thousand leaked tasks are a megabyte of ids.
const IDS: usize = 256;

/// Compares the looks at one program, and writes what they find to the directory for reports.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// The program, as in `process 12`.
    name: String,
    tracker: Tracker,
    folder: Option<Folder>,
}

/// Something to report.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) change: FindingChange,
    pub(crate) finding: FindingReport,
    /// The finding with its tasks, and what else belongs to it.
    pub(crate) text: String,
    /// The report on disk.
    pub(crate) report: Option<PathBuf>,
}

impl Watcher {
    pub(crate) fn new(name: String, directory: Option<&Path>) -> Self {
        let folder = directory.map(|path| Folder::new(path.to_owned()));
        Self { name, tracker: Tracker::default(), folder }
    }

    /// What a look has to report. New findings are on disk when this returns.
    pub(crate) fn look(&mut self, mut answer: DiagnosisAnswer) -> Vec<Event> {
        let found = self.tracker.look(&answer);
        answer.limit_ids(IDS);
        found.into_iter().map(|found| self.event(found, &answer)).collect()
    }

    /// How many findings of each kind were reported and are not gone.
    pub(crate) fn present(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for finding in self.tracker.present() {
            *counts.entry(finding.kind_name()).or_default() += 1;
        }
        counts
    }

    fn event(&mut self, found: Found, answer: &DiagnosisAnswer) -> Event {
        let Found { change, mut finding, mut text, alike } = found;
        finding.tasks.truncate(IDS);
        if alike > 0 {
            let _infallible = writeln!(text, "  and {alike} more findings of this kind at these lines");
        }
        let mut report = None;
        if let Some(folder) = self.folder.as_mut().filter(|_| change != FindingChange::Gone) {
            let headline = format!("{} in {}: {}", name(&change), self.name, finding.headline());
            let whole = format!("{headline}\n\n{text}\nThe whole diagnosis\n\n{}", answer.diagnosis);
            match folder.write(&finding.kind_name(), &whole, &json(&finding, answer)) {
                Ok(path) => report = Some(path),
                Err(error) => {
                    let _infallible = writeln!(text, "  The report could not be written: {error}");
                }
            }
        }
        Event { change, finding, text, report }
    }

    /// All events of a look as one block.
    pub(crate) fn block(&self, events: &[Event]) -> String {
        let mut block = String::new();
        for event in events {
            if event.change == FindingChange::Gone {
                let _infallible =
                    writeln!(block, "=== delouse: gone from {}: {} ===", self.name, event.finding.headline());
                continue;
            }
            let _infallible = writeln!(block, "=== delouse: {} in {} ===", name(&event.change), self.name);
            block.push_str(&event.text);
            if let Some(path) = &event.report {
                let _infallible = writeln!(block, "  The report is in {}", path.display());
            }
            block.push_str("=== delouse: end ===\n");
        }
        block
    }
}

/// The finding and the whole diagnosis, or the finding alone where that would be too long for a file.
fn json(finding: &FindingReport, answer: &DiagnosisAnswer) -> Vec<u8> {
    let whole = serde_json::to_vec(&serde_json::json!({ "finding": finding, "diagnosis": answer }));
    match whole {
        Ok(whole) if whole.len() <= MOST => whole,
        _ => serde_json::to_vec(&serde_json::json!({ "finding": finding })).unwrap_or_default(),
    }
}

impl From<&Event> for FindingEvent {
    fn from(event: &Event) -> Self {
        Self {
            change: event.change,
            kind: event.finding.kind_name(),
            is_certain: event.finding.severity == Severity::Certain,
            summary: event.finding.headline(),
            text: event.text.clone(),
            json: serde_json::to_string(&event.finding).unwrap_or_default(),
            report: event.report.clone(),
        }
    }
}
