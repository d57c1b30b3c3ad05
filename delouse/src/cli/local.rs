//! Processes and core files, which this command reads itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::arguments::Subject;
use super::error::CliError;
use super::file_kind::{FileKind, kind};
use super::progress::Progress;
use crate::debuginfo::elf::ElfInfo;
use crate::debuginfo::separate;
use crate::inspector::foreign::{self, Foreign};
use crate::inspector::foreign_inspector::ForeignInspector;
use crate::inspector::target::{ProgramFile, Target};
use crate::report::DiagnosisAnswer;

/// A process or a core file.
pub(super) struct Local {
    target: Target,
    executable: Option<PathBuf>,
    debug_file: Option<PathBuf>,
}

impl Local {
    pub(super) fn new(target: Target, executable: Option<PathBuf>, debug_file: Option<PathBuf>) -> Self {
        Self { target, executable, debug_file }
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

    /// An inspector that keeps what it has read for later requests.
    pub(super) fn into_inspector(self) -> Result<ForeignInspector, CliError> {
        self.add_debug_file()?;
        let _progress = Progress::start(format!("reading {} and its debug information", self.name()));
        Ok(ForeignInspector::open(self.target, self.executable)?)
    }

    /// What is wrong with the program.
    pub(super) fn diagnosis(&self, seconds: Option<u64>) -> Result<DiagnosisAnswer, CliError> {
        self.ask(|program| {
            program.check_tokio()?;
            Ok(program.diagnosis(seconds.map(Duration::from_secs))?)
        })
    }

    /// Describes the executable of the program.
    pub(super) fn elf(&self) -> Result<ElfInfo, CliError> {
        let file = foreign::program_file(&self.target, self.executable.as_deref())?;
        describe(&file)
    }

    /// Why no core file can be written, and how to get one.
    pub(super) fn no_core(&self) -> String {
        match &self.target {
            Target::Core { path, .. } => format!("{} is a core file already", path.display()),
            Target::Process { pid, .. } => format!(
                "delouse does not write core files of other processes yet: `gcore -o core {pid}` (of gdb) does, and stops \
                 the process meanwhile; a program with #[delouse::main] writes its own: delouse core http://127.0.0.1:7132"
            ),
        }
    }

    /// What it is, for messages.
    pub(super) fn name(&self) -> String {
        match &self.target {
            Target::Process { pid, .. } => format!("process {pid}"),
            Target::Core { path, .. } => format!("the core file {}", path.display()),
        }
    }

    /// Makes the debug file known, once it is known to be of this build.
    fn add_debug_file(&self) -> Result<(), CliError> {
        let Some(debug_file) = &self.debug_file else { return Ok(()) };
        let program = foreign::program_file(&self.target, self.executable.as_deref())?;
        separate::add(debug_file, &program.opened).map_err(|reason| {
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
    let file = ProgramFile { opened: path.to_owned(), mapped: path.to_owned(), name: path.to_owned() };
    describe(&file).map(Some)
}

fn describe(file: &ProgramFile) -> Result<ElfInfo, CliError> {
    foreign::elf(file).map_err(|error| CliError::Usage(format!("{}: {error}", file.name().0.display())))
}
