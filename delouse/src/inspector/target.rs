//! Programs other than this one: a running process, or a core file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::host::open_files::{self, OpenFiles};
use crate::host::proc_text::{decimal, status_field};
use crate::snapshot::Snapshot;
use crate::targets::core_file::{CoreError, CoreFile};
use crate::targets::other_process::OtherProcess;

/// The kernel appends this to the path of a file that was removed or replaced.
const DELETED: &str = " (deleted)";

/// How a running process is captured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pausing {
    /// Whether the process may be stopped for an image of its memory. Otherwise it is read while it runs.
    pub(crate) pause: bool,
    /// The longest stop that is allowed.
    pub(crate) max_pause: Duration,
}

impl Default for Pausing {
    fn default() -> Self {
        Self { pause: true, max_pause: Duration::from_millis(50) }
    }
}

/// A program to look at.
pub(crate) enum Target {
    Process { pid: u32, pausing: Pausing },
    Core { path: PathBuf, core: Arc<CoreFile> },
}

/// The file with the program of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProgramFile {
    /// The path to open.
    pub(crate) opened: PathBuf,
    /// Its path in the list of mappings.
    pub(crate) mapped: PathBuf,
}

impl ProgramFile {
    /// The path that the file had when it was loaded, and whether it was removed or replaced since.
    pub(crate) fn name(&self) -> (&Path, bool) {
        let gone = self.mapped.to_str().and_then(|path| path.strip_suffix(DELETED));
        gone.map_or((self.mapped.as_path(), false), |path| (Path::new(path), true))
    }
}

/// Why a target cannot be captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TargetError {
    #[error(
        "there is no process {0}: it has ended, or the number is wrong (`pgrep -a NAME` lists processes by name)"
    )]
    Gone(u32),
    #[error("process {0} has ended, and its parent has not waited for it yet: nothing of its memory is left")]
    Zombie(u32),
    #[error("{0} is a thread of the kernel, which runs no program")]
    KernelThread(u32),
    #[error("{tid} is a thread of process {pid}: give the number of the process, {pid}")]
    NotTheProcess { tid: u32, pid: u64 },
    #[error(
        "process {pid} belongs to another user (uid {uid}): run the same command as that user, or with sudo"
    )]
    OtherUser { pid: u32, uid: u64 },
    #[error(
        "process {0} may not be read: it is not dumpable (it changed its user, has file capabilities, or asked for it): run \
         the same command with sudo"
    )]
    NotDumpable(u32),
    #[error(
        "process {0} may not be read: the system restricts ptrace. Run the same command with sudo; or allow it for all \
         processes of a user: `sudo sysctl kernel.yama.ptrace_scope=0`; in a container, add the capability SYS_PTRACE \
         (`docker run --cap-add=SYS_PTRACE`)"
    )]
    Restricted(u32),
    #[error("process {pid} cannot be read: {error}")]
    Io { pid: u32, error: io::Error },
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

impl Target {
    /// A running process. Nothing of it is read yet.
    pub(crate) fn process(pid: u32, pausing: Pausing) -> Self {
        Self::Process { pid, pausing }
    }

    /// Opens a core file.
    pub(crate) fn core(path: &Path) -> Result<Self, TargetError> {
        let core =
            CoreFile::open(path).map_err(|error| TargetError::Core { path: path.to_owned(), error })?;
        Ok(Self::Core { path: path.to_owned(), core: Arc::new(core) })
    }

    /// Takes one capture. Of a running process, each call takes a new one.
    pub(crate) fn capture(&self) -> Result<Arc<dyn Snapshot>, TargetError> {
        match self {
            Self::Core { core, .. } => Ok(Arc::clone(core) as Arc<dyn Snapshot>),
            Self::Process { pid, .. } => {
                let process = OtherProcess::open(*pid).map_err(|error| explain(*pid, error))?;
                Ok(Arc::new(process))
            }
        }
    }

    /// The same without stopping the process.
    pub(crate) fn capture_without_pause(&self) -> Result<Arc<dyn Snapshot>, TargetError> {
        self.capture()
    }

    /// Checks that a process has not ended. Always succeeds for a core file.
    pub(crate) fn check_running(&self) -> Result<(), TargetError> {
        match self {
            Self::Core { .. } => Ok(()),
            // Unreadable once the process is a zombie.
            Self::Process { pid, .. } => {
                fs::read_link(format!("/proc/{pid}/exe")).map(drop).map_err(|error| explain(*pid, error))
            }
        }
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
            Self::Process { pid, .. } => {
                let opened = PathBuf::from(format!("/proc/{pid}/exe"));
                let mapped = fs::read_link(&opened).map_err(|error| explain(*pid, error))?;
                Ok(ProgramFile { opened, mapped })
            }
            Self::Core { path, core } => {
                let mapped = core.executable().ok_or_else(|| TargetError::NoExecutable {
                    path: path.clone(),
                    reasons: core.capture().notes.clone(),
                })?;
                let file = ProgramFile { opened: PathBuf::new(), mapped: mapped.to_owned() };
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

/// The reason why the process `pid` cannot be read, of an error of a file in `/proc/PID`.
fn explain(pid: u32, error: io::Error) -> TargetError {
    let Ok(status) = fs::read(format!("/proc/{pid}/status")) else { return TargetError::Gone(pid) };
    let field = |key: &str| status_field(&status, key.as_bytes());
    let number = |key: &str| field(key).and_then(decimal);
    if matches!(field("State:"), Some(b"Z" | b"X")) {
        return TargetError::Zombie(pid);
    }
    if let Some(process) = number("Tgid:").filter(|process| *process != u64::from(pid)) {
        return TargetError::NotTheProcess { tid: pid, pid: process };
    }
    // Threads of the kernel have no memory of their own.
    if field("VmSize:").is_none() {
        return TargetError::KernelThread(pid);
    }
    if error.kind() != io::ErrorKind::PermissionDenied {
        return TargetError::Io { pid, error };
    }
    let own = u64::from(rustix::process::geteuid().as_raw());
    match number("Uid:") {
        Some(uid) if uid != own && own != 0 => TargetError::OtherUser { pid, uid },
        Some(uid) if own != 0 && is_hidden(pid, uid) => TargetError::NotDumpable(pid),
        _ => TargetError::Restricted(pid),
    }
}

/// Whether the files of a process in `/proc` belong to root although its user is another: it is not dumpable.
fn is_hidden(pid: u32, uid: u64) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    uid != 0 && fs::metadata(format!("/proc/{pid}/mem")).is_ok_and(|file| file.uid() == 0)
}
