//! The identity of another process: descriptors that never refer to a process that gets the same id later.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::AttachError;
use super::task_files::{Status, TaskFiles, read_at};

/// `PF_KTHREAD` (linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;
/// More threads than a Linux system allows by default.
const MOST_THREADS: usize = 1 << 18;

/// Another process.
///
/// After the process has ended, files below [`Process::dir`] cannot be opened, even if its id is reused.
pub(super) struct Process {
    pid: u32,
    /// Refers to the process itself, not to its id.
    pidfd: OwnedFd,
    /// `/proc/PID`.
    dir: OwnedFd,
    /// The thread whose files describe the process: the first one, or another one if the first one has ended.
    tid: i32,
    first_thread_ended: bool,
    start: u64,
    executable: FileIdentity,
}

/// Device and inode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

#[allow(clippy::useless_conversion, reason = "the types differ between architectures")]
impl From<rustix::fs::Stat> for FileIdentity {
    fn from(stat: rustix::fs::Stat) -> Self {
        Self { device: stat.st_dev.into(), inode: stat.st_ino.into() }
    }
}

impl Process {
    /// Finds the process `pid`, and checks that it has memory that can be read.
    pub(super) fn find(pid: u32) -> Result<Self, AttachError> {
        if pid == std::process::id() {
            return Err(AttachError::ThisProcess { pid });
        }
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(AttachError::Gone { pid })?;
        let pidfd = pidfd_open(id, PidfdFlags::empty()).map_err(|error| AttachError::of_pid(pid, error))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = format!("/proc/{pid}");
        let dir =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| AttachError::of_pid(pid, error))?;
        let nothing = FileIdentity { device: 0, inode: 0 };
        let tid = id.as_raw_nonzero().get();
        let mut process =
            Self { pid, pidfd, dir, tid, first_thread_ended: false, start: 0, executable: nothing };
        // The directory may be that of a later process with the same id: the first one still exists, or this fails.
        process.check_alive()?;
        let stat = process.files().stat(tid).ok_or(AttachError::Gone { pid })?;
        if stat.flags & KERNEL_THREAD != 0 {
            return Err(AttachError::Kernel { pid });
        }
        process.start = stat.start;
        if matches!(stat.state, b'Z' | b'X') {
            process.tid = process.living_thread().ok_or(AttachError::Zombie { pid })?;
            process.first_thread_ended = true;
        }
        process.executable = process.executable_now()?;
        Ok(process)
    }

    /// When it started, in clock ticks since the system did.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(super) fn files(&self) -> TaskFiles<'_> {
        TaskFiles { dir: self.dir.as_fd() }
    }

    /// Whether the first thread has ended. Its files are empty.
    pub(super) fn first_thread_ended(&self) -> bool {
        self.first_thread_ended
    }

    /// Fails if the process has ended.
    fn check_alive(&self) -> Result<(), AttachError> {
        if is_alive(&self.pidfd) { Ok(()) } else { Err(AttachError::Gone { pid: self.pid }) }
    }

    /// Fails if the process has ended, or runs another program than when it was found.
    pub(super) fn check_unchanged(&self) -> Result<(), AttachError> {
        self.check_alive()?;
        let stat = self.files().stat(self.tid).ok_or(AttachError::Gone { pid: self.pid })?;
        let is_same = stat.start == self.start || self.first_thread_ended;
        if is_same && self.executable_now()? == self.executable {
            Ok(())
        } else {
            Err(AttachError::Replaced { pid: self.pid })
        }
    }

    /// For one of its files that could not be opened.
    pub(super) fn error(&self, file: &'static str, error: Errno) -> AttachError {
        let owner = statat(&self.dir, self.path("mem"), AtFlags::empty()).map(|stat| stat.st_uid);
        AttachError::of_file(self.pid, file, error, self.status().as_ref(), owner.ok())
    }

    /// A thread that has not ended.
    fn living_thread(&self) -> Option<i32> {
        let lives =
            |tid: &i32| self.files().stat(*tid).is_some_and(|stat| !matches!(stat.state, b'Z' | b'X'));
        self.threads().ok()?.into_iter().find(lives)
    }

    /// The ids of its threads, in order.
    pub(super) fn threads(&self) -> Result<Vec<i32>, AttachError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = openat(&self.dir, "task", flags, Mode::empty())
            .and_then(|dir| rustix::fs::Dir::read_from(&dir))
            .map_err(|error| self.error("task", error))?;
        let names = listing.filter_map(Result::ok);
        let ids = names.filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok());
        let mut threads: Vec<i32> = ids.take(MOST_THREADS).collect();
        threads.sort_unstable();
        Ok(threads)
    }

    /// The path of one of its files, from the directory of the process.
    fn path(&self, file: &str) -> String {
        if self.first_thread_ended { format!("task/{}/{file}", self.tid) } else { file.to_owned() }
    }

    /// The absolute path of one of its files, such as `exe`. Refers to another process after the id is reused.
    pub(super) fn absolute(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(self.path(file))
    }

    /// Opens one of its files.
    pub(super) fn open(&self, file: &'static str, flags: OFlags) -> Result<File, AttachError> {
        self.open_raw(file, flags).map_err(|error| self.error(file, error))
    }

    pub(super) fn open_raw(&self, file: &str, flags: OFlags) -> Result<File, Errno> {
        openat(&self.dir, self.path(file), flags | OFlags::CLOEXEC, Mode::empty()).map(File::from)
    }

    /// The beginning of one of its small files.
    pub(super) fn read(&self, file: &str) -> Result<Vec<u8>, Errno> {
        let path = std::ffi::CString::new(self.path(file)).map_err(|_| Errno::INVAL)?;
        let mut buffer = vec![0; 16 << 10];
        let length = read_at(self.dir(), &path, &mut buffer)?.len();
        buffer.truncate(length);
        Ok(buffer)
    }

    pub(super) fn status(&self) -> Option<Status> {
        Some(Status::parse(&self.read("status").ok()?))
    }

    /// The identity of its executable.
    pub(super) fn executable(&self) -> FileIdentity {
        self.executable
    }

    fn executable_now(&self) -> Result<FileIdentity, AttachError> {
        statat(&self.dir, self.path("exe"), AtFlags::empty())
            .map(FileIdentity::from)
            .map_err(|error| self.error("exe", error))
    }

    /// The path of its executable when it started, with ` (deleted)` if no directory has an entry for it now.
    pub(super) fn executable_name(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt as _;
        let link = readlinkat(&self.dir, self.path("exe"), Vec::new()).ok()?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(link.into_bytes())))
    }
}

/// Whether the process of a pidfd exists. A process that has ended exists until its parent has waited for it.
pub(super) fn is_alive(pidfd: &OwnedFd) -> bool {
    // SAFETY: signal 0 is not delivered; no memory is involved.
    let result = unsafe {
        use std::os::fd::AsRawFd as _;
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), 0, 0, 0)
    };
    // EPERM: the process exists, and belongs to another user.
    result == 0 || Errno::from_io_error(&std::io::Error::last_os_error()) != Some(Errno::SRCH)
}

/// The identity of the executable of the process with the directory `proc`.
pub(super) fn executable_of(proc: &Path) -> Option<FileIdentity> {
    rustix::fs::stat(proc.join("exe")).ok().map(FileIdentity::from)
}
