//! The tasks of another program, and what is wrong with them: from a core file, or from another process.

use std::path::Path;

use crate::inspector::foreign::{ForeignError, inspect};
use crate::inspector::target::{Target, TargetError};
use crate::report::DiagnosisAnswer;
use crate::report::task_text::{self, TextOptions};
use crate::targets::other_process::AttachOptions;
use crate::tasks::Listing;

/// Why tasks cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// The process or a file cannot be read.
    #[error("cannot read the process: {0}")]
    Io(#[from] std::io::Error),
    /// The process has ended, or may not be read.
    #[error("{0}")]
    Process(String),
    /// The core file cannot be read.
    #[error("cannot read the core file: {0}")]
    Core(String),
    /// The executable cannot be read.
    #[error("cannot read the executable: {0}")]
    Executable(String),
    /// The executable is not mapped in the core file: it is of another program or another build.
    #[error("this executable is not mapped in the core file: use the executable that ran, of the same build")]
    OtherProgram,
}

impl From<TargetError> for OfflineError {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Core { error, .. } => Self::Core(error.to_string()),
            other => Self::Process(other.to_string()),
        }
    }
}

impl From<ForeignError> for OfflineError {
    fn from(error: ForeignError) -> Self {
        match error {
            ForeignError::Target(error) => error.into(),
            ForeignError::Executable { error, .. } => Self::Executable(error.to_string()),
            ForeignError::OtherProgram(_) => Self::OtherProgram,
            other => Self::Executable(other.to_string()),
        }
    }
}

/// Lists the tasks of the program whose core file is `core`.
///
/// # Errors
/// If one of the files cannot be read, or if they do not belong together.
pub fn tasks_of_core(executable: &Path, core: &Path) -> Result<Listing, OfflineError> {
    inspect(&Target::core(core, Some(executable))?, Some(executable), |program| Ok(program.listing()?))
}

/// Lists the tasks of a running process that this process may trace, such as a child. The process is not stopped.
///
/// # Errors
/// If the process cannot be read.
pub fn tasks_of_process(pid: u32) -> Result<Listing, OfflineError> {
    let target = Target::process(pid, AttachOptions { pause: false, ..AttachOptions::default() });
    inspect(&target, None, |program| Ok(program.listing()?))
}

/// Diagnoses the program whose core file is `core`. There is only one sample, so that findings that need several are
/// missing, such as blocked workers.
///
/// # Errors
/// If one of the files cannot be read, or if they do not belong together.
pub fn diagnosis_of_core(executable: &Path, core: &Path) -> Result<DiagnosisAnswer, OfflineError> {
    inspect(&Target::core(core, Some(executable))?, Some(executable), |program| Ok(program.diagnosis(None)?))
}

/// Diagnoses a running process that this process may trace. The process is not stopped.
///
/// # Errors
/// If the process cannot be read.
pub fn diagnosis_of_process(pid: u32) -> Result<DiagnosisAnswer, OfflineError> {
    let target = Target::process(pid, AttachOptions { pause: false, ..AttachOptions::default() });
    inspect(&target, None, |program| Ok(program.diagnosis(None)?))
}

/// Renders a listing as text. `full` shows all frames of libraries.
pub fn text(listing: &Listing, full: bool) -> String {
    task_text::text(&listing.tasks, &listing.notes, &TextOptions { full, ..TextOptions::default() })
}
