//! What a server asks an inspector, whatever program that inspects.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::foreign::ForeignError;
use super::sampling::Diagnosed;
use crate::debuginfo::elf::{ElfError, ElfInfo};
use crate::host::heap::Growth;
use crate::report::{Filter, TasksAnswer, ThreadsAnswer};
use crate::snapshot::Capture;
use crate::targets::core_dump::CoreImage;
use crate::targets::{Limits, SnapshotError};
use crate::tasks::engine::{EngineError, EngineName};
use crate::waits::diagnosis::Earlier;
use crate::waits::growing::Counts;
use crate::waits::sample::Sample;

/// The program that answers are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inspected {
    ThisProcess,
    Process(u32),
    Core(PathBuf),
}

impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThisProcess => f.write_str("this program"),
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Core(path) => write!(f, "the core file {}", path.display()),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    #[error(transparent)]
    Elf(#[from] ElfError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// An inspector of some program. One caller at a time captures; others wait.
pub(crate) trait Inspect: Send + Sync {
    /// What is being read for the first answer; `None` after that, and if that is not known.
    fn reading(&self) -> Option<String> {
        None
    }

    /// The program.
    fn inspected(&self) -> Inspected;

    /// All tasks that `filter` selects. Uses `engine`, or the default engine if that is `None`.
    fn tasks_answer(
        &self,
        engine: Option<EngineName>,
        filter: &Filter,
        full: bool,
    ) -> Result<TasksAnswer, InspectError>;

    /// The stacks of all threads. If `consistent`, they are of the same moment.
    fn threads_answer(&self, consistent: bool, full: bool) -> Result<ThreadsAnswer, InspectError>;

    /// A sample without threads, for what each task waits for.
    fn sample_of_waits(&self) -> Result<(Sample, Capture), InspectError>;

    /// What is wrong. Takes as many samples as the findings need.
    fn diagnose(&self, earlier: Earlier<'_>) -> Result<Diagnosed, InspectError>;

    /// The number of tasks with each stack.
    fn counts(&self) -> Result<Counts, InspectError>;

    /// Describes the file with the program.
    fn elf(&self) -> Result<ElfInfo, InspectError>;

    /// An image of the program for a core file. The program continues to run; for another process than this one, `limits`
    /// are those that were set for it, unless they are to be ignored. An error for a core file.
    fn core_image(&self, limits: Limits) -> Result<Box<dyn CoreImage>, InspectError>;

    /// Whether there are caches that no request has used for this time. Does not wait for requests.
    fn is_unused(&self, time: Duration) -> bool;

    /// Drops the caches that no request has used for this time, which takes milliseconds. Returns the growth that they
    /// caused, to be released.
    fn drop_unused(&self, time: Duration) -> Growth;

    /// Drops all caches. Returns the growth that they caused, to be released.
    fn release(&self) -> Growth;
}
