//! Answers: one model each, for JSON as it is, for people as text.

mod activities;
mod core_estimate;
mod diagnosis;
mod diff;
mod elf;
mod filter;
mod findings;
pub(crate) mod format;
pub(crate) mod formats;
mod gaps;
pub(crate) mod history;
mod huge_pages;
pub(crate) mod json;
mod kinds;
pub(crate) mod metrics;
mod now;
mod observations;
pub(crate) mod profile;
mod stack_text;
mod task_groups;
pub(crate) mod task_text;
mod tasks;
pub(crate) mod threads;
#[cfg(feature = "dump")]
pub(crate) mod unfinished;
mod wait_text;
pub(crate) mod waits;

pub(crate) use core_estimate::CoreEstimate;
pub use diagnosis::{DiagnosisAnswer, NotJudged};
pub(crate) use diff::DiffAnswer;
pub(crate) use filter::{Filter, FilterError};
pub use findings::FindingReport;
pub(crate) use gaps::not_covered;
pub use history::{HistoryAnswer, HistoryEvent, WatchReport};
pub(crate) use huge_pages::HugePages;
pub use observations::ObservationReport;
pub use task_groups::TaskGroup;
pub(crate) use tasks::Part;
pub use tasks::TasksAnswer;
pub use threads::{ThreadGroup, ThreadSummary, ThreadsAnswer};
pub use waits::WaitsAnswer;
