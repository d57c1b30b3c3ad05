//! Captures the threads of another process, and an image of its memory, by a helper process that traces it.

mod board;
mod frame;
mod gadgets;
mod helper;
mod image;
mod injection;
mod sys;
mod threads;

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::board::{Board, stack_of};
use self::helper::Job;
use super::handle::Process;
use super::sample::Sample;
use crate::snapshot::{Mapping, StackCopy};

pub(super) use frame::Gadgets;
pub(super) use gadgets::find as find_gadgets;

/// The most images of earlier captures that are reaped by one capture.
const MOST_LEFT_OVER: usize = 31;
/// How long the helper may take, without the pause and the threads.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a thread may take.
const PER_THREAD: Duration = Duration::from_millis(25);

/// Why there is no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Refusal {
    /// No thread waits in a futex.
    NoWaiter = 1,
    /// Another process traces it.
    Traced,
    /// The thread has ended.
    Ended,
    /// It is stopped by a signal.
    Stopped,
    /// A signal was delivered meanwhile.
    Signal,
    /// It is not a 64-bit program, or its registers are of an unknown form.
    Foreign,
    /// The instructions are not there.
    NoGadgets,
    /// There is no room on its stack.
    NoStack,
    /// A system-call filter would see the call.
    Filter,
    /// The thread did not wait any more.
    Awake,
    /// The call failed.
    Clone,
    /// The image ended at once.
    Image,
    /// The helper has no timer.
    NoTimer,
    /// The helper ended.
    Helper,
}

impl Refusal {
    fn of(number: u32) -> Option<Self> {
        const ALL: [Refusal; 14] = [
            Refusal::NoWaiter,
            Refusal::Traced,
            Refusal::Ended,
            Refusal::Stopped,
            Refusal::Signal,
            Refusal::Foreign,
            Refusal::NoGadgets,
            Refusal::NoStack,
            Refusal::Filter,
            Refusal::Awake,
            Refusal::Clone,
            Refusal::Image,
            Refusal::NoTimer,
            Refusal::Helper,
        ];
        ALL.into_iter().find(|refusal| *refusal as u32 == number)
    }

    /// The reason, for the capture's notes.
    fn text(self, errno: i32) -> String {
        let error = || std::io::Error::from_raw_os_error(errno);
        match self {
            Self::NoWaiter => "none of its threads waits in a futex".to_owned(),
            Self::Traced => "another process traces it".to_owned(),
            Self::Ended => "it ended or replaced its program meanwhile".to_owned(),
            Self::Stopped => "it is stopped by a signal".to_owned(),
            Self::Signal => "a signal was delivered to it meanwhile: repeat the command".to_owned(),
            Self::Foreign => "it is not a 64-bit program, or its registers are of an unknown form".to_owned(),
            Self::NoGadgets => "its code has no known system-call instructions (or it replaced its program)".to_owned(),
            Self::NoStack => "its thread has less than 16 KB of stack left".to_owned(),
            Self::Filter => {
                "it has a system-call filter (seccomp), which may only be suspended with CAP_SYS_ADMIN: run the command as \
                 root outside of the container"
                    .to_owned()
            }
            Self::Awake => "its threads did not stay in a futex: repeat the command".to_owned(),
            Self::Clone if errno == libc::EAGAIN => {
                "no more processes are allowed for it: raise pids.max of its cgroup, or RLIMIT_NPROC".to_owned()
            }
            Self::Clone => format!("it cannot fork: {}", error()),
            Self::Image => "the image ended at once: memory ran out?".to_owned(),
            Self::NoTimer => format!("no timer is available: {}", error()),
            Self::Helper => "the process that captures it was killed".to_owned(),
        }
    }
}

/// What is to be captured.
pub(super) struct Request<'a> {
    pub(super) process: &'a Process,
    /// Open for reading and writing.
    pub(super) memory: &'a File,
    pub(super) mappings: &'a [Mapping],
    pub(super) threads: &'a [i32],
    /// `None` if no image is to be made.
    pub(super) gadgets: Option<Gadgets>,
    pub(super) is_stopped: bool,
    /// Images that earlier captures left, by their ids in the process's own pid namespace.
    pub(super) left_over: &'a [i32],
    pub(super) max_pause: Duration,
}

/// What was captured. The image exists until this is dropped.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) threads: Vec<(Sample, Option<StackCopy>)>,
    /// The process id of the image, or why there is none. `Ok(None)` if none was to be made.
    pub(super) image: Result<Option<i32>, String>,
    pub(super) pause: Duration,
    pub(super) held: Duration,
    /// Ends the helper when dropped.
    pub(super) helper: Option<Helper>,
}

/// The helper process.
#[derive(Debug)]
pub(super) struct Helper {
    pid: i32,
    socket: UnixStream,
}

impl Helper {
    /// Starts it.
    fn start(request: &Request<'_>, board: &mut Board) -> std::io::Result<Self> {
        let (socket, other_end) = UnixStream::pair()?;
        let job = Job {
            pid: request.process.pid() as i32,
            files: request.process.files(),
            memory: request.memory.as_fd(),
            socket: other_end.as_fd(),
            mappings: request.mappings,
            gadgets: request.gadgets,
            is_stopped: request.is_stopped,
            threads: request.threads.len(),
            left_over: request.left_over.get(..MOST_LEFT_OVER).unwrap_or(request.left_over),
            max_pause: request.max_pause,
        };
        // SAFETY: until the helper reports that it is done, only the helper uses these parts; until it is started, only
        // this function does.
        let parts = unsafe { board.parts() };
        for (sample, tid) in parts.samples.iter_mut().zip(request.threads) {
            *sample = Sample::new(*tid);
        }
        // No handler of the program runs in the helper.
        let mask = sys::set_signal_mask(u64::MAX);
        // SAFETY: the helper makes system calls only, and ends by `exit`.
        let forked = unsafe { sys::fork() };
        if forked == Ok(0) {
            helper::run(&job, parts);
        }
        sys::set_signal_mask(mask);
        let pid = forked.map_err(std::io::Error::from_raw_os_error)?;
        Ok(Self { pid, socket })
    }

    /// Waits until it reports that it is done, or ends.
    fn wait(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut socket, Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => return false,
                Ok(_) => return true,
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The helper then ends the image, has the process reap it, and exits.
        let _ended = self.socket.shutdown(Shutdown::Both);
        let deadline = Instant::now() + 2 * PATIENCE;
        while !sys::reap(self.pid, false) {
            if Instant::now() > deadline {
                sys::kill(self.pid, libc::SIGKILL);
                sys::reap(self.pid, true);
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Captures threads, and an image if `request` says so.
pub(super) fn capture(request: &Request<'_>) -> Captured {
    let nothing = |refusal: String| Captured {
        threads: Vec::new(),
        image: Err(refusal),
        pause: Duration::ZERO,
        held: Duration::ZERO,
        helper: None,
    };
    let Some(mut board) = Board::new(request.threads.len()) else {
        return nothing("this process has no memory left".to_owned());
    };
    let helper = match Helper::start(request, &mut board) {
        Ok(helper) => helper,
        Err(error) => return nothing(format!("no process can be started: {error}")),
    };
    let time = PATIENCE + request.max_pause * 3 + PER_THREAD * request.threads.len() as u32;
    let answered = helper.wait(time);
    if !answered || !helper::is_done(board.header()) {
        let header = board.header();
        let refusal = Refusal::of(header.refusal.load(Acquire)).unwrap_or(Refusal::Helper);
        let text = refusal.text(header.errno.load(Acquire));
        if !answered {
            sys::kill(helper.pid, libc::SIGKILL);
        }
        return nothing(text);
    }
    let header = board.header();
    let image = match (header.child.load(Acquire), Refusal::of(header.refusal.load(Acquire))) {
        (child, _) if child > 0 => Ok(Some(child)),
        (_, Some(refusal)) => Err(refusal.text(header.errno.load(Acquire))),
        _ => Ok(None),
    };
    let time = |number: &std::sync::atomic::AtomicU64| Duration::from_nanos(number.load(Acquire));
    let (pause, held) = (time(&header.pause), time(&header.held));
    let count = header.threads.load(Acquire) as usize;
    // SAFETY: the helper has reported that it is done: it no longer uses the samples of threads that it does not trace,
    // and it only changes `traced` of the others.
    let parts = unsafe { board.parts() };
    let copy = |(index, sample): (usize, &Sample)| {
        let bytes = stack_of(parts.stacks, index).get(..sample.stack_length).unwrap_or_default().to_vec();
        let stack = (!bytes.is_empty())
            .then(|| StackCopy { base: crate::snapshot::Address::new(sample.stack_base), bytes });
        (*sample, stack)
    };
    let threads = parts.samples.iter().take(count).enumerate().map(copy).collect();
    Captured { threads, image, pause, held, helper: Some(helper) }
}

/// Ends or stops the helper before one of its steps, in tests.
#[cfg(test)]
pub(super) mod test_hook {
    use std::cell::Cell;

    use super::sys;

    thread_local! {
        /// Number of the step, from 1, and signal.
        static AT: Cell<(u32, i32)> = const { Cell::new((0, 0)) };
    }

    /// Has the helpers of this thread's later captures send themselves `signal` before the step with this number; 0 is
    /// none.
    pub(in crate::targets::other_process) fn signal_at(step: u32, signal: i32) {
        AT.set((step, signal));
    }

    pub(super) fn at_step(before: u32) {
        let (step, signal) = AT.get();
        if before.wrapping_add(1) == step {
            sys::kill(sys::own_pid(), signal);
        }
    }
}
