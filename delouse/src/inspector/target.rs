//! Programs other than this one: a running process, or a core file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::host::open_files::{self, OpenFiles};
use crate::snapshot::{Mapping, Snapshot};
use crate::targets::core_file::{CoreError, CoreFile};
use crate::targets::open_files::OtherFiles;
use crate::targets::other_process::{
    AttachError, AttachOptions, CapturedProcess, Identity, OtherProcess, attach_known, capture_for_core,
};
use crate::targets::program_file::ProgramFile;

/// The longest pause of a process whose core file is wanted at any price.
const FORCED: Duration = Duration::from_secs(60);

/// A program to look at.
pub(crate) enum Target {
    Process { pid: u32, options: AttachOptions, known: OnceLock<Identity> },
    Core { path: PathBuf, core: Arc<CoreFile> },
}

/// Why a target cannot be captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TargetError {
    #[error("{0}")]
    Process(#[from] AttachError),
    #[error("{}: {error}", path.display())]
    Core { path: PathBuf, error: CoreError },
    #[error(
        "{}: the core file does not name its executable{}: give it, too (delouse diagnose EXECUTABLE CORE)",
        path.display(),
        reasons.iter().map(|reason| format!("; {reason}")).collect::<String>()
    )]
    NoExecutable { path: PathBuf, reasons: Vec<String> },
    #[error(
        "{} is the executable of this core file, and is not on this machine: give the path of a copy of the same build \
         (delouse diagnose EXECUTABLE CORE)",
        .0.display()
    )]
    ExecutableAbsent(PathBuf),
}

impl TargetError {
    /// Whether the process has ended, or runs another program.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self, Self::Process(error) if error.has_ended())
    }
}

impl Target {
    /// A running process. Nothing of it is read yet.
    pub(crate) fn process(pid: u32, options: AttachOptions) -> Self {
        Self::Process { pid, options, known: OnceLock::new() }
    }

    /// Opens a core file. `executable`: a copy of its executable.
    pub(crate) fn core(path: &Path, executable: Option<&Path>) -> Result<Self, TargetError> {
        let core = CoreFile::open_with(path, executable)
            .map_err(|error| TargetError::Core { path: path.to_owned(), error })?;
        Ok(Self::Core { path: path.to_owned(), core: Arc::new(core) })
    }

    /// Takes one capture. Of a running process, each call takes a new one.
    pub(crate) fn capture(&self) -> Result<Arc<dyn Snapshot>, TargetError> {
        match self {
            Self::Core { core, .. } => Ok(Arc::clone(core) as Arc<dyn Snapshot>),
            Self::Process { pid, options, known } => Ok(Arc::new(attach_known(*pid, options, known)?)),
        }
    }

    /// A capture for a core file. `None` for a core file. `force`: stops the process for as long as it takes.
    pub(crate) fn capture_for_core(&self, force: bool) -> Result<Option<CapturedProcess>, TargetError> {
        let Self::Process { pid, options, known } = self else { return Ok(None) };
        let mut options = *options;
        if force {
            options.max_pause = FORCED;
        }
        Ok(Some(capture_for_core(*pid, &options, known)?))
    }

    /// The same without stopping the process.
    pub(crate) fn capture_without_pause(&self) -> Result<Arc<dyn Snapshot>, TargetError> {
        match self {
            Self::Core { .. } => self.capture(),
            Self::Process { pid, known, .. } => Ok(Arc::new(read_only(*pid, known)?)),
        }
    }

    /// Checks that a process that was captured has not ended, and has not executed another program. Always succeeds for a
    /// core file.
    pub(crate) fn check_running(&self) -> Result<(), TargetError> {
        match self {
            Self::Process { known, .. } => Ok(known.get().map_or(Ok(()), Identity::check_running)?),
            Self::Core { .. } => Ok(()),
        }
    }

    /// Checks that what was captured could be read until now: of an image that has ended, and of a core file that ends before
    /// them, no memory can be read.
    pub(crate) fn check_readable(&self, snapshot: &dyn Snapshot) -> Result<(), TargetError> {
        let pid = match self {
            Self::Process { pid, .. } => pid,
            Self::Core { path, core } => return has_memory(core, path),
        };
        let running = self.check_running();
        // An image may be of the next program.
        let is_other = matches!(&running, Err(TargetError::Process(AttachError::Executed { .. })));
        if is_other || !snapshot.capture().consistent {
            return running;
        }
        let is_there = |mapping: &Mapping| mapping.read && snapshot.read(mapping.range.start, &mut [0]) == 1;
        if snapshot.mappings().iter().any(is_there) {
            return Ok(());
        }
        running?;
        let error = std::io::Error::other("it was killed while it was read");
        Err(AttachError::ImageEnded { pid: *pid, error }.into())
    }

    /// The descriptors of a process. `None` for a core file, and if there is no such process.
    pub(crate) fn files(&self) -> Option<OtherFiles> {
        let Self::Process { pid, .. } = self else { return None };
        let files = OtherFiles::of(*pid).ok()?;
        // Checked afterwards: now they are those of the process that was captured.
        self.check_running().is_ok().then_some(files)
    }

    /// The open files of a process. `None` for a core file, and where they cannot be listed.
    pub(crate) fn open_files(&self) -> Option<OpenFiles> {
        let Self::Process { pid, .. } = self else { return None };
        open_files::open_files_of(*pid).ok()
    }

    /// Whether another capture shows a later moment.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Process { .. })
    }

    /// The executable of the target.
    ///
    /// # Errors
    /// If the process may not be read, or if the core file does not name an executable that this machine has.
    pub(crate) fn executable(&self) -> Result<ProgramFile, TargetError> {
        match self {
            Self::Process { pid, known, .. } => {
                let process = read_only(*pid, known)?;
                let opened = process.executable().to_owned();
                let name = process.executable_name().to_owned();
                Ok(ProgramFile { mapped: opened.clone(), opened, name })
            }
            Self::Core { path, core } => {
                let mapped = core.executable().ok_or_else(|| TargetError::NoExecutable {
                    path: path.clone(),
                    reasons: core.capture().notes.clone(),
                })?;
                let mapped = mapped.to_owned();
                let file = ProgramFile { opened: PathBuf::new(), name: mapped.clone(), mapped };
                let opened = file.name().0.to_owned();
                if !opened.is_file() {
                    return Err(TargetError::ExecutableAbsent(opened));
                }
                Ok(ProgramFile { opened, ..file })
            }
        }
    }

    /// The monotonic clock of the target now, in nanoseconds; `None` for a core file.
    pub(crate) fn now(&self) -> Option<u64> {
        let Self::Process { pid, .. } = self else { return None };
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let own = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        u64::try_from(own.checked_add(clock_offset(*pid)?)?).ok()
    }
}

/// By how much the monotonic clock of a process is ahead of this process's, in nanoseconds: not 0 if it has a time namespace
/// of its own (time_namespaces(7)). `None` if that cannot be read.
fn clock_offset(pid: u32) -> Option<i128> {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/time"));
    match (namespace(&pid.to_string()), namespace("self")) {
        (Ok(theirs), Ok(own)) if theirs != own => {}
        // The same one, or a kernel without such namespaces.
        _ => return Some(0),
    }
    let offset = |of: &str| {
        let text = fs::read_to_string(format!("/proc/{of}/timens_offsets")).ok()?;
        let line = text.lines().find(|line| line.starts_with("monotonic"))?;
        let mut numbers = line.split_whitespace().skip(1).map(|number| number.parse::<i128>().ok());
        Some(numbers.next()?? * 1_000_000_000 + numbers.next()??)
    };
    Some(offset(&pid.to_string())? - offset("self")?)
}

/// Opens a process without stopping it.
fn read_only(pid: u32, known: &OnceLock<Identity>) -> Result<OtherProcess, AttachError> {
    attach_known(pid, &AttachOptions { pause: false, ..AttachOptions::default() }, known)
}

/// Checks that a core file has some of the program's own memory, if it is truncated: without that, a program looks like one
/// without tasks.
fn has_memory(core: &CoreFile, path: &Path) -> Result<(), TargetError> {
    let is_there = |mapping: &Mapping| {
        mapping.write && mapping.path.is_none() && core.read(mapping.range.start, &mut [0]) == 1
    };
    if core.capture().lacking == 0 || core.mappings().iter().any(is_there) {
        return Ok(());
    }
    Err(TargetError::Core { path: path.to_owned(), error: CoreError::Truncated })
}
