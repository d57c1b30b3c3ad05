//! A forked image of ourselves: memory as it was at one moment, read at leisure.

use std::fs::File;
use std::io::Read;
use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsRawFd as _, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::arch::Context;
use super::captured::Captured;
use super::child::{self, Control, Ended};
use super::engine::{self, Held, Hold, Myself, STACK_LIMIT};
use super::headroom::{self, Watch};
use super::{examine, maps, memory, page_size, search, sys};
use crate::snapshot::{Capture, Limits, Mapping, Prediction, Snapshot, SnapshotError, Thread, micros};

/// How long the child may take to open its files.
const START_DEADLINE: Duration = Duration::from_secs(2);
/// How often a wait for the child looks whether it is alive, in nanoseconds.
pub(super) const ALIVE_INTERVAL: u64 = 10_000_000;
/// What a pipe holds at least: one page, for a user that has too many pipes (pipe(7), pipe-user-pages-soft).
const PIPE_BYTES: usize = 4 << 10;
/// Memory that is searched by the child rather than read, in bytes.
const WORTH_A_MESSAGE: u64 = 256 << 10;

/// This process's memory at the moment of a fork. The child that holds it ends when this is dropped, and
/// 30 seconds after the fork at the latest: then nothing can be read, and [`Image::intact`] says why.
#[derive(Debug)]
pub(crate) struct Image {
    child: Child,
    mappings: Vec<Mapping>,
    threads: Vec<Thread>,
    contexts: Vec<(i32, Context)>,
    capture: Capture,
}

/// Forks an image without stopping anybody: memory is consistent, threads are listed without registers.
///
/// The program stands still for [`Capture::pause_us`]: about 35 ms for a gigabyte of anonymous memory in
/// 4K pages. While the image lives, each page that the program writes costs it a few microseconds.
pub(crate) fn fork(limits: Limits) -> Result<Image, SnapshotError> {
    let prediction = check(limits, 0)?;
    let started = Instant::now();
    let threads = examine::list()?;
    fork_now(started, &prediction, Captured { threads, ..Captured::default() })
}

/// The same after a rolling capture of all threads: their registers and copied stacks are a few
/// milliseconds older than the image, so a thread that ran meanwhile does not agree with it.
pub(crate) fn fork_with_threads(limits: Limits) -> Result<Image, SnapshotError> {
    let prediction = check(limits, 0)?;
    let started = Instant::now();
    let captured = engine::capture(Hold::Nobody, STACK_LIMIT)?;
    fork_now(started, &prediction, captured)
}

/// Registers of all threads and memory of the same moment: every thread stands still while the fork is
/// made. Stacks are in the image's memory, not in [`Thread::stack`].
pub(crate) fn freeze_fork_thaw(limits: Limits) -> Result<Image, SnapshotError> {
    let prediction = check(limits, examine::count_of_others()?)?;
    let started = Instant::now();
    let control = ControlPage::new()?;
    let watch = Watch::new();
    let mut forked = Err(libc::ECANCELED);
    let mut fork_them = |held: Held<'_>| {
        forked = fork_here(&control, &watch, held.myself);
        if forked.is_ok() {
            held.unshare_stacks();
        }
    };
    let captured = engine::capture(Hold::Everybody(&mut fork_them), 0);
    let child = forked.map_err(SnapshotError::Fork).and_then(|pid| Child::adopt(pid, control, watch));
    let captured = captured?;
    let mut image = Image::new(started, child?, captured)?;
    let fork_took = image.child.fork_took();
    headroom::observe(&prediction, fork_took);
    image.capture.total_us = micros(started.elapsed());
    Ok(image)
}

/// Predicts, and refuses where the limits are exceeded.
fn check(limits: Limits, threads: usize) -> Result<Prediction, SnapshotError> {
    let prediction = headroom::predict(threads)?;
    prediction.allowed_by(limits)?;
    Ok(prediction)
}

fn fork_now(
    started: Instant,
    prediction: &Prediction,
    mut captured: Captured,
) -> Result<Image, SnapshotError> {
    let control = ControlPage::new()?;
    let watch = Watch::new();
    let pid = fork_here(&control, &watch, Myself::NOT_ASKED).map_err(SnapshotError::Fork)?;
    let child = Child::adopt(pid, control, watch)?;
    let took = child.fork_took();
    headroom::observe(prediction, took);
    captured.pause = captured.pause.and(took);
    captured.complete = true;
    Image::new(started, child, captured)
}

/// Captures the calling thread and forks, in one frame: the registers agree with the image's stack.
///
/// Obeys the rules of the window (`engine.rs`); the child's are in `child.rs`.
#[inline(never)]
fn fork_here(control: &Control, watch: &Watch, myself: Myself) -> Result<i32, sys::Errno> {
    control.parent.store(sys::getpid(), Ordering::Relaxed);
    control.cgroup.store(watch.raw(), Ordering::Relaxed);
    control.cgroup_ceiling.store(watch.ceiling, Ordering::Relaxed);
    let before = sys::now();
    control.deadline.store(before.wrapping_add(child::LIFETIME), Ordering::Relaxed);
    myself.capture();
    // The child must not run the program's handlers: it blocks every signal from its first moment on.
    let blocked = sys::set_blocked_signals(u64::MAX);
    // SAFETY: the child goes into `hold_still` at once, which obeys the contract.
    let forked = unsafe { sys::fork_sharing_files(&control.pidfd) };
    if forked == Ok(0) {
        child::hold_still(control);
    }
    sys::set_blocked_signals(blocked);
    control.fork_nanos.store(sys::now().wrapping_sub(before), Ordering::Relaxed);
    forked
}

impl Image {
    fn new(started: Instant, child: Child, captured: Captured) -> Result<Self, SnapshotError> {
        child.wait_until_ready()?;
        let maps = child
            .open_file(&child.control.maps)
            .ok_or_else(|| unopened("/proc/self/maps", &child.control.maps))?;
        let [pipe, _] = &child.control.pipe;
        if [&child.control.memory, pipe].iter().all(|fd| fd.load(Ordering::Acquire) < 0) {
            return Err(unopened("/proc/self/mem", pipe));
        }
        let mut mappings = maps::read(&*maps)?;
        // No memory of the program's: who reads it would make the kernel fill it with pages.
        mappings.retain(|mapping| !mapping.range.contains(&child.control.address()));
        if mappings.is_empty() {
            return Err(child.lost());
        }
        let Captured { threads, contexts, pause, complete, notes, .. } = captured;
        let capture = Capture {
            pause_us: pause.program_us(),
            held_us: pause.longest_us(),
            total_us: micros(started.elapsed()),
            consistent: complete,
            notes,
        };
        Ok(Self { child, mappings, threads, contexts, capture })
    }

    /// Whether the image is still there. Memory that "is not mapped" may mean that the child was killed:
    /// who has read to the end asks this before he believes what he read.
    pub(crate) fn intact(&self) -> Result<(), SnapshotError> {
        if self.child.is_alive() { Ok(()) } else { Err(self.child.lost()) }
    }

    /// Full registers of the captured threads, by thread id.
    pub(super) fn contexts(&self) -> &[(i32, Context)] {
        &self.contexts
    }

    /// The child's `pagemap`, positioned anywhere; `None` where the process is not dumpable.
    pub(super) fn pagemap(&self) -> Option<BorrowedFile> {
        self.child.open_file(&self.child.control.pagemap)
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Lets the child's time be over, and its memory be short.
    #[cfg(test)]
    pub(super) fn control(&self) -> &Control {
        &self.child.control
    }

    /// A search without a look at what the mapping allows.
    #[cfg(test)]
    pub(super) fn search_regardless(&self, range: Range<u64>) {
        let pagemap = self.pagemap().unwrap();
        drop(self.child.search(&pagemap, range, &(0..=u64::MAX), &mut |_, _| {}));
    }

    #[cfg(test)]
    pub(super) fn reads_by_pipe(&self) -> bool {
        self.child.control.memory.load(Ordering::Acquire) < 0
    }
}

impl Snapshot for Image {
    fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        self.child.read(address, buf)
    }

    fn search(
        &self,
        range: Range<u64>,
        wanted: &RangeInclusive<u64>,
        visit: &mut dyn FnMut(u64, u64),
    ) -> Vec<Range<u64>> {
        let is_private = |mapping: &&Mapping| {
            range.end <= mapping.range.end && mapping.read && !mapping.shared && mapping.inode == 0
        };
        let worth = range.end.saturating_sub(range.start) >= WORTH_A_MESSAGE && search::is_harmless();
        let pagemap = self.pagemap().filter(|_| worth);
        match (self.mapping(range.start).filter(is_private), pagemap) {
            (Some(_), Some(pagemap)) => self.child.search(&pagemap, range, wanted, visit),
            _ => vec![range],
        }
    }

    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn threads(&self) -> &[Thread] {
        &self.threads
    }

    fn capture(&self) -> &Capture {
        &self.capture
    }
}

/// The forked child, seen from the parent. Killed and reaped when dropped.
#[derive(Debug)]
struct Child {
    pid: i32,
    pidfd: RawFd,
    control: ControlPage,
    /// The child reads the cgroup through this descriptor.
    _watch: Watch,
    /// One request through the pipe at a time.
    pipe: Mutex<()>,
    /// One search at a time, and whether the child answers.
    searches: Mutex<bool>,
}

/// Why the child has not opened one of its own files, which nothing forbids it but a limit.
fn unopened(file: &'static str, place: &AtomicI32) -> SnapshotError {
    SnapshotError::Proc(file, place.load(Ordering::Acquire).wrapping_neg())
}

/// A file of the child's, open in the shared descriptor table. Closed with the child.
pub(super) type BorrowedFile = std::mem::ManuallyDrop<File>;

impl Child {
    fn adopt(pid: i32, control: ControlPage, watch: Watch) -> Result<Self, SnapshotError> {
        let pidfd = control.pidfd.load(Ordering::Acquire);
        if pidfd < 0 {
            // Linux before 5.2 ignores CLONE_PIDFD. Nobody else reaps this child, so its number is its own.
            // SAFETY: two calls without memory of ours.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
            }
            return Err(SnapshotError::Fork(libc::ENOSYS));
        }
        control.keep_to_ourselves();
        Ok(Self { pid, pidfd, control, _watch: watch, pipe: Mutex::new(()), searches: Mutex::new(true) })
    }

    fn fork_took(&self) -> Duration {
        Duration::from_nanos(self.control.fork_nanos.load(Ordering::Relaxed))
    }

    /// Whether it has not ended: a pidfd is readable once it has (pidfd_open(2)).
    fn is_alive(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.pidfd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one `pollfd`; does not wait.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 0 }
    }

    fn lost(&self) -> SnapshotError {
        SnapshotError::ImageLost(Ended::describe(self.control.ended.load(Ordering::Acquire)))
    }

    fn wait_until_ready(&self) -> Result<(), SnapshotError> {
        let started = Instant::now();
        while self.control.ready.load(Ordering::Acquire) == 0 {
            if !self.is_alive() {
                return Err(self.lost());
            }
            if started.elapsed() > START_DEADLINE {
                return Err(SnapshotError::ImageLost("it did not start within 2 s"));
            }
            sys::futex_wait(&self.control.ready, 0, ALIVE_INTERVAL);
        }
        Ok(())
    }

    fn open_file(&self, place: &AtomicI32) -> Option<BorrowedFile> {
        let fd = place.load(Ordering::Acquire);
        // SAFETY: the child opened it for us; the destructor that would close it does not run.
        (fd >= 0).then(|| BorrowedFile::new(unsafe { File::from_raw_fd(fd) }))
    }

    fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        match self.control.memory.load(Ordering::Acquire) {
            // A number above i64::MAX is no file offset, and no address of a program.
            _ if address > i64::MAX as u64 => 0,
            // Not by process_vm_readv, which copies once less: it pins what it reads, and a page that is shared
            // with us is copied for the child first (FOLL_PIN, Linux 5.19 and later).
            // SAFETY: `buf` is writable for its length.
            fd if fd >= 0 => unsafe { memory::read_raw(fd, address, buf.as_mut_ptr(), buf.len()) },
            _ => self.read_by_pipe(address, buf),
        }
    }

    /// See [`search::search`]; gives what is to be read. Whoever visits must not search.
    fn search(
        &self,
        pagemap: &File,
        range: Range<u64>,
        wanted: &RangeInclusive<u64>,
        visit: &mut dyn FnMut(u64, u64),
    ) -> Vec<Range<u64>> {
        let mut answers = self.searches.lock().unwrap_or_else(PoisonError::into_inner);
        // One that hands its memory out has enough to do.
        if !*answers || self.control.memory.load(Ordering::Acquire) < 0 {
            return vec![range];
        }
        let rest = search::search(&self.control, || self.is_alive(), pagemap, range, wanted, visit);
        if rest.silent {
            *answers = false;
            if self.has_crashed() {
                search::does_harm();
            }
        }
        rest.ranges
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

    /// Where the child's memory file may not be opened, the child writes into a pipe what is asked for.
    fn read_by_pipe(&self, address: u64, buf: &mut [u8]) -> usize {
        let _one_at_a_time = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let [read_end, _] = &self.control.pipe;
        let Some(pipe) = self.open_file(read_end) else { return 0 };
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
            let written = self.request(from, len).min(len);
            let Some(room) = buf.get_mut(done..done + written) else { break };
            if written == 0 || (&*pipe).read_exact(room).is_err() {
                break;
            }
            done += written;
            if written < len {
                break;
            }
        }
        done
    }

    /// Has the child write into the pipe, and returns how many bytes it wrote; 0 when it is gone.
    fn request(&self, address: u64, len: usize) -> usize {
        let control = &*self.control;
        control.address.store(address, Ordering::Relaxed);
        control.len.store(len as u64, Ordering::Relaxed);
        let number = control.request.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        sys::futex_wake(&control.request);
        loop {
            let reply = control.reply.load(Ordering::Acquire);
            if reply == number {
                return usize::try_from(control.written.load(Ordering::Relaxed)).unwrap_or(0);
            }
            if !self.is_alive() {
                return 0;
            }
            sys::futex_wait(&control.reply, reply, ALIVE_INTERVAL);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let control = &*self.control;
        // SAFETY: the pidfd is ours and names our child until it is reaped here. Descriptors that the
        // child opened are in the shared table, ours to close, once, now that nobody can use them.
        unsafe {
            // A seccomp profile may not know the former. Nobody else reaps this child, so its number is its own.
            if libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd, libc::SIGKILL, 0, 0) != 0 {
                libc::kill(self.pid, libc::SIGKILL);
            }
            let mut info: libc::siginfo_t = std::mem::zeroed();
            while libc::waitid(libc::P_PID, self.pid as u32, &raw mut info, libc::WEXITED | libc::__WALL) < 0
                && super::errno() == libc::EINTR
            {}
            let [read_end, write_end] = &control.pipe;
            let opened = [&control.maps, &control.pagemap, &control.memory, read_end, write_end];
            for fd in opened.map(|fd| fd.load(Ordering::Acquire)).into_iter().filter(|&fd| fd >= 0) {
                drop(OwnedFd::from_raw_fd(fd));
            }
            drop(OwnedFd::from_raw_fd(self.pidfd));
        }
    }
}

/// A [`Control`] in memory that the child shares; most of it is never written, and takes none.
#[derive(Debug)]
struct ControlPage(*mut Control);

// SAFETY: everything in a `Control` is atomic; the mapping lives as long as this.
unsafe impl Send for ControlPage {}
// SAFETY: as above.
unsafe impl Sync for ControlPage {}

impl ControlPage {
    fn new() -> Result<Self, SnapshotError> {
        // SAFETY: a fresh mapping, for which zeroes are valid.
        unsafe {
            let page = libc::mmap(
                std::ptr::null_mut(),
                size_of::<Control>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            );
            if page == libc::MAP_FAILED {
                return Err(SnapshotError::NoMemory(super::errno()));
            }
            let control = Self(page.cast());
            let [read_end, write_end] = &control.pipe;
            for fd in [&control.maps, &control.pagemap, &control.memory, read_end, write_end, &control.pidfd]
            {
                fd.store(-1, Ordering::Relaxed);
            }
            Ok(control)
        }
    }

    fn address(&self) -> u64 {
        self.0.addr() as u64
    }

    /// Once the child has it: other images need not have it in them, to be looked through.
    fn keep_to_ourselves(&self) {
        // SAFETY: advice about a mapping of our own, which changes nothing in it.
        unsafe { libc::madvise(self.0.cast(), size_of::<Control>(), libc::MADV_DONTFORK) };
    }
}

impl std::ops::Deref for ControlPage {
    type Target = Control;

    fn deref(&self) -> &Control {
        // SAFETY: mapped in `new` until dropped.
        unsafe { &*self.0 }
    }
}

impl Drop for ControlPage {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; the child that shared it is gone, or has its own mapping.
        unsafe { libc::munmap(self.0.cast(), size_of::<Control>()) };
    }
}
