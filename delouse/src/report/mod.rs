//! Answers: one model each, for JSON as it is, for people as text.

mod diagnosis;
pub(crate) mod elf;
mod filter;
mod now;
mod stack_text;
pub(crate) mod task_text;
mod tasks;
pub(crate) mod threads;
mod wait_text;
pub(crate) mod waits;

pub use diagnosis::DiagnosisAnswer;
pub(crate) use filter::{Filter, FilterError};
pub use tasks::TasksAnswer;
pub use threads::ThreadsAnswer;
pub use waits::WaitsAnswer;
