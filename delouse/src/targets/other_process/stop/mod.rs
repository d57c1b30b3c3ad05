//! Captures the threads of another process, and an image of its memory, by a helper process that traces it.

mod arch;
mod board;
mod frame;
mod gadgets;
mod helper;
mod image;
mod injection;
mod refusal;
mod sys;
#[cfg(test)]
pub(super) mod test_hook;
mod threads;

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::board::{Board, stack_of};
use self::helper::{Job, MOST_LEFT_OVER};
use self::refusal::Refusal;
use super::handle::Process;
use super::sample::Sample;
use crate::snapshot::{Mapping, StackCopy};

pub(super) use frame::Gadgets;
pub(super) use gadgets::find as find_gadgets;

/// How long the helper may take, without the pause and the threads.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a thread may take.
const PER_THREAD: Duration = Duration::from_millis(25);

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
            parent: std::process::id() as i32,
            pid: request.process.pid() as i32,
            files: request.process.files(),
            process: request.process.pidfd(),
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
