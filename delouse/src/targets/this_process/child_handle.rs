//! The parent's side of a forked child: reads its memory, sends it requests, and ends it.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, pidfd_send_signal, waitid,
};

use super::child::{self, ExitReason};
use super::control::{ALIVE_INTERVAL, Control, ControlPage};
use super::{memory, page_size, search, sys};
use crate::host::lock::lock;
use crate::snapshot::{Address, Mapping};
use crate::targets::{SnapshotError, maps};

/// How long the child may take to start.
const START_DEADLINE: Duration = Duration::from_secs(2);
/// The least capacity of a pipe: one page, if the user has too many pipes (pipe(7), pipe-user-pages-soft).
const PIPE_BYTES: usize = 4 << 10;
/// How long the child may take to unmap files.
const RELEASE_DEADLINE: Duration = Duration::from_secs(1);

/// Waits for the end of a child that was cloned without a signal at exit.
const WAIT_FOR_CLONE: WaitIdOptions =
    WaitIdOptions::EXITED.union(WaitIdOptions::from_bits_retain(libc::__WALL as u32));

/// Why a forked child cannot be read.
pub(super) enum AdoptError {
    /// The kernel does not let this process open the child's files in `/proc`. A child that shares this process's table
    /// of open files can open them instead.
    Refused,
    /// Another reason, which applies to any child.
    Other(SnapshotError),
}

impl<E: Into<SnapshotError>> From<E> for AdoptError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// A forked child that can be read. Killed and reaped when dropped.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    memory: MemoryAccess,
    /// `None` if the process is not dumpable.
    pagemap: Option<File>,
    /// Held during a search; false after the child has failed to answer one.
    searches: Mutex<bool>,
    /// How often its memory was read.
    reads: AtomicU32,
    /// The child reads the cgroup's memory through this descriptor, if it shares the table of open files.
    _memory_stat: Option<OwnedFd>,
    control: ControlPage,
}

/// How the child's memory is read.
#[derive(Debug)]
enum MemoryAccess {
    /// From its `/proc/PID/mem`.
    File(File),
    /// The child writes requested memory to a pipe: one request at a time.
    Pipe(Mutex<[File; 2]>),
}

/// The child's process. Killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: Option<OwnedFd>,
}

impl Process {
    /// `has_own_files`: the child does not share this process's table of open files, so that the kernel has not opened a pidfd
    /// in it.
    fn new(pid: i32, control: &Control, has_own_files: bool) -> Result<Self, AdoptError> {
        let pid = Pid::from_raw(pid).ok_or(AdoptError::Refused)?;
        let mut process = Self { pid, pidfd: None };
        process.pidfd = Some(if has_own_files {
            // Linux 5.3.
            pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
                Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                    SnapshotError::Fork(errno.raw_os_error()).into()
                }
                _ => AdoptError::Refused,
            })?
        } else {
            // Linux before 5.2 does not know CLONE_PIDFD.
            let fd = Control::take(&control.pidfd).map_err(|_| SnapshotError::Fork(libc::ENOSYS))?;
            // SAFETY: the kernel has opened it for this process.
            unsafe { OwnedFd::from_raw_fd(fd) }
        });
        Ok(process)
    }

    /// Whether it has not ended: a pidfd is readable once it has (pidfd_open(2)).
    fn is_alive(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return false };
        // A signal interrupts also a poll that does not wait. Captures send signals, and so do profilers.
        let ended = || poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&Timespec::default()));
        rustix::io::retry_on_intr(ended) == Ok(0)
    }

    /// Whether it has ended by an invalid memory access. Does not reap it.
    fn has_crashed(&self) -> bool {
        let options = WAIT_FOR_CLONE | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(self.pid), options));
        let signal = ended.ok().flatten().and_then(|status| status.terminating_signal());
        matches!(signal, Some(libc::SIGSEGV | libc::SIGBUS))
    }

    /// Kills it, without waiting for its end, and closes the pidfd. Only `drop` reaps the child, so that until then both the
    /// pidfd and the process id refer to it.
    fn kill(&mut self) {
        let pidfd = self.pidfd.take();
        let killed = pidfd.is_some_and(|pidfd| pidfd_send_signal(pidfd, Signal::KILL).is_ok());
        // A seccomp filter may reject the first call.
        if !killed {
            let _gone = kill_process(self.pid, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _status = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(self.pid), WAIT_FOR_CLONE));
    }
}

/// Reaps forked children that the program left when it executed this one (execve(2)): the kernel has killed them. Call this
/// before the first fork.
pub(super) fn reap_left_behind() {
    // The name is checked, so that children that another library has cloned in the same way are not reaped.
    loop {
        // SAFETY: `info` is plain numbers, for which zeroes are valid.
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

/// The files that the child has opened in the shared table of open files, or the error number of each.
struct SharedFiles {
    memory: Result<File, i32>,
    maps: Result<File, i32>,
    pagemap: Result<File, i32>,
    pipe: [Result<File, i32>; 2],
    memory_stat: Result<File, i32>,
}

impl SharedFiles {
    /// Takes ownership of the files. Call this once, after the child has opened them.
    fn take(control: &Control) -> Self {
        // SAFETY: the child has opened it in the shared table, and does not use it.
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
    /// Opens the files of the child `pid`, and reads its mappings. `has_own_files`: it has its own table of open files.
    pub(super) fn adopt(
        pid: i32,
        control: ControlPage,
        has_own_files: bool,
    ) -> Result<(Self, Vec<Mapping>), AdoptError> {
        let process = Process::new(pid, &control, has_own_files)?;
        control.exclude_from_forks();
        if let Err(error) = wait_until_ready(&process, &control) {
            drop(process);
            drop(SharedFiles::take(&control));
            return Err(error.into());
        }
        let (opened, maps) = if has_own_files { open(pid)? } else { adopt_shared_files(&control)? };
        let Opened { memory, pagemap, memory_stat } = opened;
        control.opened.store(1, Ordering::Release);
        let mut mappings = maps::read(maps).map_err(SnapshotError::proc("/proc/self/maps"))?;
        // Exclude the control page: it does not belong to the program, and reading it would allocate all of its pages.
        mappings.retain(|mapping| !control.is_in(mapping));
        let (searches, reads) = (Mutex::new(true), AtomicU32::new(0));
        let child = Self { process, memory, pagemap, searches, reads, _memory_stat: memory_stat, control };
        if mappings.is_empty() {
            return Err(child.lost().into());
        }
        child.release_files(&mappings);
        Ok((child, mappings))
    }

    /// Closes its files and kills it. Dropping the returned value waits for its end, which may take milliseconds.
    pub(super) fn end(self) -> Process {
        let mut process = self.process;
        process.kill();
        process
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

    /// Its `pagemap`, at any position; `None` if the process is not dumpable.
    pub(super) fn pagemap(&self) -> Option<&File> {
        self.pagemap.as_ref()
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> i32 {
        self.process.pid.as_raw_nonzero().get()
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    #[cfg(test)]
    pub(super) fn is_read_by_pipe(&self) -> bool {
        matches!(self.memory, MemoryAccess::Pipe(_))
    }

    /// Has the child unmap shared mappings of files. Such a mapping keeps the file open, and with it locks (flock(2)) and
    /// resources such as an io_uring ring. Only private memory belongs to the image.
    fn release_files(&self, mappings: &[Mapping]) {
        let files = mappings.iter().filter(|mapping| mapping.is_shared_file());
        let ranges: Vec<Range<u64>> = files.map(|mapping| Address::words(&mapping.range)).collect();
        let (mut rest, begun) = (&*ranges, Instant::now());
        while !rest.is_empty() && begun.elapsed() < RELEASE_DEADLINE {
            rest = self.control.ask_to_release(rest);
            self.request(0, 0, RELEASE_DEADLINE);
        }
    }

    /// Moves the child's deadline, because its memory is being read.
    fn keep_alive(&self) {
        /// The number of reads between two looks at the clock.
        const OFTEN: u32 = 32;
        if self.reads.fetch_add(1, Ordering::Relaxed).is_multiple_of(OFTEN) {
            let next = sys::now().wrapping_add(child::IDLE).min(self.control.latest.load(Ordering::Relaxed));
            self.control.deadline.fetch_max(next, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        self.keep_alive();
        match &self.memory {
            // Higher numbers are neither file offsets nor user-space addresses.
            _ if address > i64::MAX as u64 => 0,
            // Not with process_vm_readv, which copies once instead of twice but pins each page: since Linux 5.19
            // (FOLL_PIN), the kernel then copies pages that are shared with the program for the child.
            // SAFETY: `buf` is writable for its length, and the file is open.
            MemoryAccess::File(file) => unsafe {
                memory::read_raw(file.as_raw_fd(), address, buf.as_mut_ptr(), buf.len())
            },
            MemoryAccess::Pipe(pipe) => self.read_by_pipe(lock(pipe), address, buf),
        }
    }

    /// See [`search::search`]. Returns the ranges that were not searched. `visit` must not start another search.
    pub(super) fn search(
        &self,
        pagemap: &File,
        range: Range<u64>,
        wanted: &RangeInclusive<u64>,
        visit: &mut dyn FnMut(u64, u64),
    ) -> Vec<Range<u64>> {
        self.keep_alive();
        let mut answers = lock(&self.searches);
        // A child that serves its memory through a pipe does not search.
        if !*answers || matches!(self.memory, MemoryAccess::Pipe(_)) {
            return vec![range];
        }
        let rest = search::search(&self.control, || self.is_alive(), pagemap, range, wanted, visit);
        if rest.silent {
            *answers = false;
            if self.process.has_crashed() {
                search::disable();
            }
        }
        rest.ranges
    }

    /// Has the child write its memory to the pipe, and reads it from there.
    fn read_by_pipe(&self, pipe: MutexGuard<'_, [File; 2]>, address: u64, buf: &mut [u8]) -> usize {
        let [pipe, _] = &*pipe;
        let capacity = rustix::pipe::fcntl_getpipe_size(pipe).unwrap_or(0).max(PIPE_BYTES);
        let mut done = 0;
        while done < buf.len() {
            let from = address.saturating_add(done as u64);
            // The kernel copies to the pipe page by page, up to the first page that it cannot read. Requests after the
            // first are page-aligned, so that a short answer ends exactly at the end of the mapping.
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

    /// Sends a request and returns how many bytes the child wrote to the pipe; 0 if the child has ended or does not answer
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
    SnapshotError::ImageLost(ExitReason::describe(control.ended.load(Ordering::Acquire)))
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

/// The open files of a child.
struct Opened {
    memory: MemoryAccess,
    pagemap: Option<File>,
    memory_stat: Option<OwnedFd>,
}

/// Opens the files of a child that has its own table of open files, and its `maps`.
fn open(pid: i32) -> Result<(Opened, File), AdoptError> {
    // The mounted `/proc` may be that of another PID namespace (pid_namespaces(7)), where `pid` is another process.
    let is_our_proc =
        std::fs::read_link("/proc/self").is_ok_and(|link| link == Path::new(&sys::getpid().to_string()));
    if !is_our_proc {
        return Err(AdoptError::Refused);
    }
    let open = |file: &str| File::open(format!("/proc/{pid}/{file}"));
    let may_be_full = |path: &'static str, error: io::Error| match error.raw_os_error() {
        Some(errno @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => SnapshotError::Proc(path, errno).into(),
        // The process is not dumpable, or tracing is restricted (ptrace(2), `PTRACE_MODE_ATTACH_FSCREDS`).
        _ => AdoptError::Refused,
    };
    let maps = open("maps").map_err(|error| may_be_full("/proc/self/maps", error))?;
    let memory = open("mem").map_err(|error| may_be_full("/proc/self/mem", error))?;
    Ok((
        Opened { memory: MemoryAccess::File(memory), pagemap: open("pagemap").ok(), memory_stat: None },
        maps,
    ))
}

/// Takes the files that the child has opened, and its `maps`.
fn adopt_shared_files(control: &Control) -> Result<(Opened, File), SnapshotError> {
    let SharedFiles { memory, maps, pagemap, pipe, memory_stat } = SharedFiles::take(control);
    let maps = maps.map_err(|errno| SnapshotError::Proc("/proc/self/maps", errno))?;
    let memory = match (memory, pipe) {
        (Ok(file), _) => MemoryAccess::File(file),
        (Err(_), [Ok(read_end), Ok(write_end)]) => MemoryAccess::Pipe(Mutex::new([read_end, write_end])),
        (Err(_), [Err(errno), _] | [_, Err(errno)]) => {
            return Err(SnapshotError::Proc("/proc/self/mem", errno));
        }
    };
    Ok((Opened { memory, pagemap: pagemap.ok(), memory_stat: memory_stat.ok().map(OwnedFd::from) }, maps))
}
