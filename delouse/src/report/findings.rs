//! Findings as people read them: the sentences beside the facts that they are made of.

mod blocked_worker;
mod blocking_pool;
mod busy_loop;
mod circle;
mod evidence;
mod files;
pub(super) mod finished;
mod growing;
mod leak;
mod parts;
mod shutdown;
mod signals;
mod starved;
mod unwakeable;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use evidence::does;

use super::format::{lower, upper};
use super::json;
use crate::debuginfo::symbols::shorten;
use crate::waits::{Evidence, Finding, FindingKind, Severity};

/// Something that is wrong, or looks so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FindingReport {
    /// What kind of trouble.
    pub kind: FindingKind,
    /// Whether the evidence is complete.
    pub severity: Severity,
    /// One sentence: what is wrong, with which tasks, at which line of the program.
    pub summary: String,
    /// Ids of the tasks that it is about; with `?ids=` only the first few.
    pub tasks: Vec<u64>,
    /// How many tasks it is about.
    #[serde(default)]
    pub count: usize,
    /// What it is concluded from, each a sentence that can be checked.
    pub evidence: Vec<String>,
    /// The same for programs: one fact for each sentence of `evidence`, in that order.
    #[serde(default)]
    pub facts: Vec<Evidence>,
    /// What would release the tasks, or what to check next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How findings of one kind are written.
struct Words {
    name: &'static str,
    /// One sentence, made of the evidence.
    summary: fn(&Finding) -> String,
    /// What would help.
    remedy: fn(&Finding) -> Option<String>,
}

/// The table.
fn words(kind: FindingKind) -> Words {
    let row = |name, summary, remedy| Words { name, summary, remedy };
    match kind {
        FindingKind::Deadlock => row("deadlock", circle::summary, circle::remedy),
        FindingKind::Futurelock => row("futurelock", circle::summary, circle::remedy),
        FindingKind::BlockedWorker => row("blocked worker", blocked_worker::summary, blocked_worker::remedy),
        FindingKind::BusyLoop => row("busy loop", busy_loop::summary, busy_loop::remedy),
        FindingKind::LeakedTasks => row("leaked tasks", leak::summary, leak::remedy),
        FindingKind::UnwakeableTask => row("unwakeable task", unwakeable::summary, unwakeable::remedy),
        FindingKind::BlockingPool => row("blocking pool full", blocking_pool::summary, blocking_pool::remedy),
        FindingKind::StarvedTasks => row("starved tasks", starved::summary, starved::remedy),
        FindingKind::Shutdown => row("shutdown that waits", shutdown::summary, shutdown::remedy),
        FindingKind::FileDescriptors => row("open files near their limit", files::summary, files::remedy),
        FindingKind::FinishedTasks => row("finished tasks", finished::summary, finished::remedy),
        FindingKind::GrowingGroup => row("growing group", growing::summary, growing::remedy),
    }
}

impl FindingReport {
    /// The findings, each with its sentences.
    pub(crate) fn all(findings: Vec<Finding>) -> Vec<Self> {
        findings.into_iter().map(Self::from).collect()
    }

    /// The kind as in JSON: `leaked_tasks`.
    pub(crate) fn kind_name(&self) -> String {
        json::name(&self.kind)
    }

    /// One line; a suspicion is called one.
    pub(crate) fn headline(&self) -> String {
        let suspected = if self.severity == Severity::Suspected { "suspected " } else { "" };
        upper(&format!("{suspected}{}: {}", words(self.kind).name, lower(&self.summary)))
    }
}

impl From<Finding> for FindingReport {
    fn from(finding: Finding) -> Self {
        let words = words(finding.kind);
        let (summary, remedy) = (upper(&(words.summary)(&finding)), (words.remedy)(&finding));
        let evidence = finding.evidence.iter().map(|fact| evidence::sentence(&finding, fact)).collect();
        let Finding { kind, severity, tasks, evidence: facts } = finding;
        let count = tasks.len();
        Self { kind, severity, summary, tasks, count, evidence, facts, remedy }
    }
}

pub(super) use parts::driven;

/// Where a task was spawned, `file:line:column`, with the file as on stacks.
pub(super) fn spawned(place: &str) -> String {
    shorten(place, None).0
}
