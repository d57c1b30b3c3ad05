//! What a program learns of its own findings. Compiled in every build, so that user code needs no `cfg`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::finding_change::FindingChange;

/// A change in what is wrong with the program: see [`Config::on_finding`](crate::Config::on_finding).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FindingEvent {
    /// What has changed.
    pub change: FindingChange,
    /// The kind of the finding, as in the JSON of `/diagnosis`: `deadlock`, `leaked_tasks`, ….
    pub kind: String,
    /// Whether the evidence is complete; otherwise it is a suspicion.
    pub is_certain: bool,
    /// One line: what is wrong, with which tasks, at which line of the program.
    pub summary: String,
    /// The finding with its tasks and its evidence, as text of several lines.
    pub text: String,
    /// The finding as JSON, as in `findings` of `/diagnosis`.
    pub json: String,
    /// The report on disk, if there is a directory for reports.
    pub report: Option<PathBuf>,
}

/// A function of the program that gets the events.
#[derive(Clone)]
#[cfg_attr(not(feature = "dump"), expect(dead_code, reason = "not kept without the feature"))]
pub(crate) struct Callback(pub(crate) Arc<dyn Fn(&FindingEvent) + Send + Sync>);

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a function")
    }
}
