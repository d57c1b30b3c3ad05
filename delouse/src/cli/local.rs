//! Processes and core files, which this command reads itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::arguments::{DebugSource, Subject};
use super::debuginfod;
use super::error::CliError;
use super::file_kind::{FileKind, kind};
use super::progress::Progress;
use crate::debuginfo::elf::ElfInfo;
use crate::debuginfo::separate;
use crate::inspector::foreign::{self, Foreign, ForeignError};
use crate::inspector::foreign_inspector::ForeignInspector;
use crate::inspector::target::Target;
use crate::report::DiagnosisAnswer;
use crate::targets::other_process::CapturedProcess;
use crate::targets::program_file::ProgramFile;

/// A process or a core file.
pub(super) struct Local {
    target: Target,
    executable: Option<PathBuf>,
    debug_source: Option<DebugSource>,
}

impl Local {
    pub(super) fn new(
        target: Target,
        executable: Option<PathBuf>,
        debug_source: Option<DebugSource>,
    ) -> Self {
        Self { target, executable, debug_source }
    }

    /// Calls `ask` with an inspector of the program.
    pub(super) fn ask<R>(
        &self,
        ask: impl FnOnce(&mut Foreign<'_>) -> Result<R, CliError>,
    ) -> Result<R, CliError> {
        self.add_debug_file()?;
        let _progress = Progress::start(format!("reading {} and its debug information", self.name()));
        foreign::inspect(&self.target, self.executable.as_deref(), ask)
    }

    /// The same about tasks: fails if it is no program with tokio.
    pub(super) fn ask_of_tasks<R>(
        &self,
        ask: impl FnOnce(&mut Foreign<'_>) -> Result<R, ForeignError>,
    ) -> Result<R, CliError> {
        self.ask(|program| Ok(program.check_tokio().and_then(|()| ask(program))?))
    }

    /// An inspector that keeps what it has read for later requests.
    pub(super) fn into_inspector(self) -> Result<ForeignInspector, CliError> {
        self.add_debug_file()?;
        let _progress = Progress::start(format!("reading {} and its debug information", self.name()));
        Ok(ForeignInspector::open(self.target, self.executable)?)
    }

    /// What is wrong with the program.
    pub(super) fn diagnosis(&self, seconds: Option<u64>) -> Result<DiagnosisAnswer, CliError> {
        self.ask_of_tasks(|program| program.diagnosis(seconds.map(Duration::from_secs)))
    }

    /// Describes the executable of the program.
    pub(super) fn elf(&self) -> Result<ElfInfo, CliError> {
        self.add_debug_file()?;
        let file = foreign::program_file(&self.target, self.executable.as_deref())?;
        describe(&file)
    }

    /// Captures the process for a core file.
    pub(super) fn core_image(&self) -> Result<CapturedProcess, CliError> {
        let image = self.target.capture_for_core(false)?;
        image.ok_or_else(|| CliError::Usage(format!("{} is a core file already", self.name())))
    }

    /// What it is, for messages.
    pub(super) fn name(&self) -> String {
        match &self.target {
            Target::Process { pid, .. } => format!("process {pid}"),
            Target::Core { path, .. } => format!("the core file {}", path.display()),
        }
    }

    /// Whether it is a core file.
    pub(super) fn is_core(&self) -> bool {
        matches!(self.target, Target::Core { .. })
    }

    /// Makes the debug file known, once it is known to be of this build.
    fn add_debug_file(&self) -> Result<(), CliError> {
        let Some(source) = &self.debug_source else { return Ok(()) };
        let program = foreign::program_file(&self.target, self.executable.as_deref())?;
        let debug_file = match source {
            DebugSource::File(path) => path.clone(),
            DebugSource::Debuginfod => match fetched(&program)? {
                Some(path) => path,
                None => return Ok(()),
            },
        };
        separate::add(&debug_file, &program.opened).map_err(|reason| {
            CliError::Usage(format!(
                "{} does not have the debug information of {}: {reason}",
                debug_file.display(),
                program.name().0.display()
            ))
        })
    }
}

/// Describes the file, if the arguments name an executable only.
pub(super) fn elf_of_file(of: &Subject) -> Result<Option<ElfInfo>, CliError> {
    let path = match (of.targets.as_slice(), &of.exe) {
        ([], Some(exe)) => exe.as_path(),
        ([only], None) if Path::new(only).is_file() => Path::new(only),
        _ => return Ok(None),
    };
    if kind(path)? == FileKind::Core {
        return Ok(None);
    }
    describe(&ProgramFile::mapped_at(path)).map(Some)
}

fn describe(file: &ProgramFile) -> Result<ElfInfo, CliError> {
    foreign::elf(file).map_err(|error| CliError::Usage(format!("{}: {error}", file.name().0.display())))
}

/// The debug information that a debuginfod server has of a file; `None` if the file needs none.
fn fetched(file: &ProgramFile) -> Result<Option<PathBuf>, CliError> {
    let info = describe(file)?;
    // Present if the file has no debug information of its own.
    if info.debug.separate.is_none_or(|search| search.found.is_some()) {
        return Ok(None);
    }
    let no_id = || {
        CliError::Usage(format!(
            "{} has no build-id, by which a debuginfod server finds debug information: name the file by --debug-file",
            file.name().0.display()
        ))
    };
    debuginfod::fetch(&info.build_id.ok_or_else(no_id)?).map(Some)
}
