//! A forked child, seen from its parent: the files that tell of its memory, and what it is asked.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::child::Ended;
use super::control::{Control, ControlPage};
use super::{maps, memory, page_size, search, sys};
use crate::snapshot::{Mapping, SnapshotError};

/// How long the child may take to come up.
const START_DEADLINE: Duration = Duration::from_secs(2);
/// How often a wait for the child looks whether it is alive, in nanoseconds.
pub(super) const ALIVE_INTERVAL: u64 = 10_000_000;
/// What a pipe holds at least: one page, for a user that has too many pipes (pipe(7), pipe-user-pages-soft).
const PIPE_BYTES: usize = 4 << 10;
/// How long the child may take to unmap files.
const RELEASE_DEADLINE: Duration = Duration::from_secs(1);

/// Why there is no child to read.
pub(super) enum Failed {
    /// The kernel does not let this process open the files of a child that has a table of its own.
    Refused,
    /// Nor would it of another child.
    For(SnapshotError),
}

impl<E: Into<SnapshotError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::For(error.into())
    }
}

/// A forked child that can be read. Killed and reaped when dropped.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    memory: Memory,
    /// `None` where the process is not dumpable.
    pagemap: Option<File>,
    /// One search at a time, and whether the child answers.
    searches: Mutex<bool>,
    /// Of the child that keeps the program's files open: it reads the cgroup through this descriptor.
    _memory_stat: Option<OwnedFd>,
    control: ControlPage,
}

/// How the child's memory is read.
#[derive(Debug)]
enum Memory {
    /// From its `/proc/PID/mem`.
    File(File),
    /// It writes what is asked for into a pipe: one request at a time.
    Pipe(Mutex<[File; 2]>),
}

/// The child's process. Killed and reaped when dropped.
#[derive(Debug)]
struct Process {
    pid: i32,
    pidfd: Option<OwnedFd>,
}

impl Process {
    /// `is_apart`: no table of open files was shared, in which the kernel would have put a pidfd.
    fn new(pid: i32, control: &Control, is_apart: bool) -> Result<Self, Failed> {
        let mut process = Self { pid, pidfd: None };
        process.pidfd = Some(if is_apart {
            process.open_pidfd()?
        } else {
            // Linux before 5.2 does not know CLONE_PIDFD.
            let fd = Control::take(&control.pidfd).map_err(|_| SnapshotError::Fork(libc::ENOSYS))?;
            // SAFETY: the kernel has opened it for us.
            unsafe { OwnedFd::from_raw_fd(fd) }
        });
        Ok(process)
    }

    /// pidfd_open(2), Linux 5.3.
    fn open_pidfd(&self) -> Result<OwnedFd, Failed> {
        // SAFETY: a call without memory of ours; what it opens is ours.
        unsafe {
            match libc::syscall(libc::SYS_pidfd_open, self.pid, 0) {
                fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd as i32)),
                _ => Err(match super::errno() {
                    errno @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM) => SnapshotError::Fork(errno).into(),
                    _ => Failed::Refused,
                }),
            }
        }
    }

    /// Whether it has not ended: a pidfd is readable once it has (pidfd_open(2)).
    fn is_alive(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return false };
        let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one `pollfd`; does not wait.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 0 }
    }

    /// Whether it has ended by a fault of its own. It stays to be reaped.
    fn has_crashed(&self) -> bool {
        // SAFETY: plain numbers, for which zeroes are valid; the call writes them, and `si_status` reads one of them.
        let (ended, status) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
            let asked = libc::waitid(libc::P_PID, self.pid as u32, &raw mut info, how);
            (asked == 0 && matches!(info.si_code, libc::CLD_KILLED | libc::CLD_DUMPED), info.si_status())
        };
        ended && matches!(status, libc::SIGSEGV | libc::SIGBUS)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the pidfd names our child until it is reaped here. Nobody else reaps this child, so its number is its
        // own, too.
        unsafe {
            let killed = self.pidfd.as_ref().is_some_and(|pidfd| {
                libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, 0, 0) == 0
            });
            // A seccomp profile may not know the former.
            if !killed {
                libc::kill(self.pid, libc::SIGKILL);
            }
            let mut info: libc::siginfo_t = std::mem::zeroed();
            while libc::waitid(libc::P_PID, self.pid as u32, &raw mut info, libc::WEXITED | libc::__WALL) < 0
                && super::errno() == libc::EINTR
            {}
        }
    }
}

/// Reaps images that were killed when the program that had forked them was replaced by this one (execve(2)). Called
/// before this program has forked any.
pub(super) fn reap_left_behind() {
    // A program has no other children of that kind, as it has just begun; another kind is left alone.
    loop {
        // SAFETY: plain numbers, for which zeroes are valid, and which the calls write.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WCLONE;
            let found = libc::waitid(libc::P_ALL, 0, &raw mut info, look) == 0 && info.si_pid() > 0;
            let name = std::fs::read_to_string(format!("/proc/{}/comm", info.si_pid()));
            if !found || name.is_ok_and(|name| name.trim_end() != "delouse-image") {
                return;
            }
            let reap = libc::WEXITED | libc::WNOHANG | libc::__WALL;
            if libc::waitid(libc::P_PID, info.si_pid() as u32, &raw mut info, reap) != 0 {
                return;
            }
        }
    }
}

/// What the child has opened in the program's table of open files: an error number where it has not.
struct Offered {
    memory: Result<File, i32>,
    maps: Result<File, i32>,
    pagemap: Result<File, i32>,
    pipe: [Result<File, i32>; 2],
    memory_stat: Result<File, i32>,
}

impl Offered {
    /// Takes them, once, when the child opens no more.
    fn take(control: &Control) -> Self {
        // SAFETY: the child has opened it for us, in the table that was shared.
        let take = |place| Control::take(place).map(|fd| unsafe { File::from_raw_fd(fd) });
        let [read_end, write_end] = &control.pipe;
        Self {
            memory: take(&control.memory),
            maps: take(&control.maps),
            pagemap: take(&control.pagemap),
            pipe: [take(read_end), take(write_end)],
            memory_stat: take(&control.memory_stat),
        }
    }
}

impl Child {
    /// The child of that number, and its mappings. `is_apart`: it has a table of open files of its own.
    pub(super) fn adopt(
        pid: i32,
        control: ControlPage,
        is_apart: bool,
    ) -> Result<(Self, Vec<Mapping>), Failed> {
        let process = Process::new(pid, &control, is_apart)?;
        control.keep_to_ourselves();
        if let Err(error) = wait_until_ready(&process, &control) {
            drop(process);
            drop(Offered::take(&control));
            return Err(error.into());
        }
        let (opened, maps) = if is_apart { open(pid)? } else { adopt_offered(&control)? };
        let Opened { memory, pagemap, memory_stat } = opened;
        control.opened.store(1, Ordering::Release);
        let mut mappings = maps::read(maps)?;
        // No memory of the program's: to read it would make the kernel fill it with pages.
        mappings.retain(|mapping| !control.is_in(mapping));
        let searches = Mutex::new(true);
        let child = Self { process, memory, pagemap, searches, _memory_stat: memory_stat, control };
        if mappings.is_empty() {
            return Err(child.lost().into());
        }
        child.release_files(&mappings);
        Ok((child, mappings))
    }

    pub(super) fn fork_took(&self) -> Duration {
        Duration::from_nanos(self.control.fork_nanos.load(Ordering::Relaxed))
    }

    /// Whether it can still be read.
    pub(super) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Why it has ended.
    pub(super) fn lost(&self) -> SnapshotError {
        lost(&self.control)
    }

    /// Its `pagemap`, positioned anywhere; `None` where the process is not dumpable.
    pub(super) fn pagemap(&self) -> Option<&File> {
        self.pagemap.as_ref()
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> i32 {
        self.process.pid
    }

    #[cfg(test)]
    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    #[cfg(test)]
    pub(super) fn is_read_by_pipe(&self) -> bool {
        matches!(self.memory, Memory::Pipe(_))
    }

    /// Has the child unmap what it shares with others through files: a mapping keeps its file open, with its locks
    /// (flock(2)), and with what hangs on it (a ring of io_uring, say). The image is of private memory.
    fn release_files(&self, mappings: &[Mapping]) {
        let files = mappings.iter().filter(|mapping| mapping.is_shared_file());
        let ranges: Vec<Range<u64>> = files.map(|mapping| mapping.range.clone()).collect();
        let (mut rest, begun) = (&*ranges, Instant::now());
        while !rest.is_empty() && begun.elapsed() < RELEASE_DEADLINE {
            rest = self.control.ask_to_release(rest);
            self.request(0, 0, RELEASE_DEADLINE);
        }
    }

    pub(super) fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        match &self.memory {
            // A number above i64::MAX is no file offset, and no address of a program.
            _ if address > i64::MAX as u64 => 0,
            // Not by process_vm_readv, which copies once less: it pins what it reads, and a page that is shared
            // with us is copied for the child first (FOLL_PIN, Linux 5.19 and later).
            // SAFETY: `buf` is writable for its length, and the file is open.
            Memory::File(file) => unsafe {
                memory::read_raw(file.as_raw_fd(), address, buf.as_mut_ptr(), buf.len())
            },
            Memory::Pipe(pipe) => {
                self.read_by_pipe(pipe.lock().unwrap_or_else(PoisonError::into_inner), address, buf)
            }
        }
    }

    /// See [`search::search`]; gives what is to be read. Whoever visits must not search.
    pub(super) fn search(
        &self,
        pagemap: &File,
        range: Range<u64>,
        wanted: &RangeInclusive<u64>,
        visit: &mut dyn FnMut(u64, u64),
    ) -> Vec<Range<u64>> {
        let mut answers = self.searches.lock().unwrap_or_else(PoisonError::into_inner);
        // One that hands its memory out has enough to do.
        if !*answers || matches!(self.memory, Memory::Pipe(_)) {
            return vec![range];
        }
        let rest = search::search(&self.control, || self.is_alive(), pagemap, range, wanted, visit);
        if rest.silent {
            *answers = false;
            if self.process.has_crashed() {
                search::does_harm();
            }
        }
        rest.ranges
    }

    /// Where the child's memory file may not be opened, the child writes into a pipe what is asked for.
    fn read_by_pipe(&self, pipe: MutexGuard<'_, [File; 2]>, address: u64, buf: &mut [u8]) -> usize {
        let [pipe, _] = &*pipe;
        // SAFETY: a call without memory of ours.
        let capacity = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) };
        let capacity = usize::try_from(capacity).unwrap_or(0).max(PIPE_BYTES);
        let mut done = 0;
        while done < buf.len() {
            let from = address.saturating_add(done as u64);
            // The kernel fills the pipe page by page and keeps the pages that it could read: so that a
            // short answer ends where the mapping does, requests after the first are page-aligned.
            let page = page_size();
            let to_boundary = page - (from as usize % page);
            let limit = if to_boundary < page { to_boundary } else { capacity };
            let len = limit.min(buf.len() - done);
            let written = self.request(from, len, Duration::MAX).min(len);
            let Some(room) = buf.get_mut(done..done + written) else { break };
            let mut pipe = pipe;
            if written == 0 || pipe.read_exact(room).is_err() {
                break;
            }
            done += written;
            if written < len {
                break;
            }
        }
        done
    }

    /// Has the child write into the pipe, and returns how many bytes it wrote; 0 when it is gone, or has not answered
    /// within `patience`.
    fn request(&self, address: u64, len: usize, patience: Duration) -> usize {
        let (control, begun) = (&*self.control, Instant::now());
        control.address.store(address, Ordering::Relaxed);
        control.len.store(len as u64, Ordering::Relaxed);
        let number = control.request.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        sys::futex_wake(&control.request);
        loop {
            let reply = control.reply.load(Ordering::Acquire);
            if reply == number {
                return usize::try_from(control.written.load(Ordering::Relaxed)).unwrap_or(0);
            }
            if begun.elapsed() > patience || !self.is_alive() {
                return 0;
            }
            sys::futex_wait(&control.reply, reply, ALIVE_INTERVAL);
        }
    }
}

fn lost(control: &Control) -> SnapshotError {
    SnapshotError::ImageLost(Ended::describe(control.ended.load(Ordering::Acquire)))
}

fn wait_until_ready(process: &Process, control: &Control) -> Result<(), SnapshotError> {
    let started = Instant::now();
    while control.ready.load(Ordering::Acquire) == 0 {
        if !process.is_alive() {
            return Err(lost(control));
        }
        if started.elapsed() > START_DEADLINE {
            return Err(SnapshotError::ImageLost("it did not start within 2 s"));
        }
        sys::futex_wait(&control.ready, 0, ALIVE_INTERVAL);
    }
    Ok(())
}

/// What is open while the child is read.
struct Opened {
    memory: Memory,
    pagemap: Option<File>,
    memory_stat: Option<OwnedFd>,
}

/// Opens the files of a child that has none open itself, and its `maps`.
fn open(pid: i32) -> Result<(Opened, File), Failed> {
    // As the `/proc` that is mounted here may be that of another namespace (pid_namespaces(7)).
    let is_our_proc =
        std::fs::read_link("/proc/self").is_ok_and(|link| link == Path::new(&sys::getpid().to_string()));
    if !is_our_proc {
        return Err(Failed::Refused);
    }
    let open = |file: &str| File::open(format!("/proc/{pid}/{file}"));
    let may_be_full = |path: &'static str, error: io::Error| match error.raw_os_error() {
        Some(errno @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => SnapshotError::Proc(path, errno).into(),
        // The process is not dumpable, or tracing is restricted (ptrace(2), `PTRACE_MODE_ATTACH_FSCREDS`).
        _ => Failed::Refused,
    };
    let maps = open("maps").map_err(|error| may_be_full("/proc/self/maps", error))?;
    let memory = open("mem").map_err(|error| may_be_full("/proc/self/mem", error))?;
    Ok((Opened { memory: Memory::File(memory), pagemap: open("pagemap").ok(), memory_stat: None }, maps))
}

/// Takes what the child has opened for us, and its `maps`.
fn adopt_offered(control: &Control) -> Result<(Opened, File), SnapshotError> {
    let Offered { memory, maps, pagemap, pipe, memory_stat } = Offered::take(control);
    let maps = maps.map_err(|errno| SnapshotError::Proc("/proc/self/maps", errno))?;
    let memory = match (memory, pipe) {
        (Ok(file), _) => Memory::File(file),
        (Err(_), [Ok(read_end), Ok(write_end)]) => Memory::Pipe(Mutex::new([read_end, write_end])),
        (Err(_), [Err(errno), _] | [_, Err(errno)]) => {
            return Err(SnapshotError::Proc("/proc/self/mem", errno));
        }
    };
    Ok((Opened { memory, pagemap: pagemap.ok(), memory_stat: memory_stat.ok().map(OwnedFd::from) }, maps))
}
