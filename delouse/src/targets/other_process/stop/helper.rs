//! The process that traces another one: it captures threads, has one of them fork an image, and keeps the image until it is
//! not needed any more.
//!
//! It is a process of its own, because its end is the one thing that lets go of all threads in any state. The rules of
//! `sys.rs` apply: **no allocation, no lock, no panic**.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::board::{Header, Parts, stack_of};
use super::frame::Gadgets;
use super::image::Image;
use super::injection::{Injection, Site, Stuck};
use super::refusal::Refusal;
use super::sys::{self, Stop, Watchdog};
use super::threads::{Threads, Waiter};
use crate::snapshot::Mapping;
use crate::targets::other_process::sample::Sample;
use crate::targets::other_process::task_files::{Sleep, TaskFiles};

/// How long a thread may take to make a call of the helper, above the allowed pause.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a thread is looked for that can reap the image.
const REAPING: Duration = Duration::from_millis(700);
/// How often the helper checks that the process exists that started it, and that no thread has stopped.
const ALIVE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// The most images of earlier captures that are reaped by one capture.
pub(super) const MOST_LEFT_OVER: usize = 31;
/// The most futex waiters that are tried.
const TRIES: usize = 8;

/// What the helper does.
pub(super) struct Job<'a> {
    /// The process that started the helper.
    pub(super) parent: i32,
    /// The process that is captured.
    pub(super) pid: i32,
    pub(super) files: TaskFiles<'a>,
    /// Its pidfd.
    pub(super) process: BorrowedFd<'a>,
    /// Its memory, for reading and writing.
    pub(super) memory: BorrowedFd<'a>,
    /// Closed by the other process when the image is not needed any more.
    pub(super) socket: BorrowedFd<'a>,
    pub(super) mappings: &'a [Mapping],
    /// `None` if no image is to be made.
    pub(super) gadgets: Option<Gadgets>,
    /// Whether the process is stopped by a signal: then all its threads may be interrupted.
    pub(super) is_stopped: bool,
    /// The number of threads that are listed in the board.
    pub(super) threads: usize,
    /// Images of earlier captures that ended before they were reaped, by their ids in the process's own pid namespace.
    pub(super) left_over: &'a [i32],
    pub(super) max_pause: Duration,
}

/// Runs the helper in a process that was just forked. All signals are blocked.
pub(super) fn run(job: &Job<'_>, parts: Parts<'_>) -> ! {
    // A panic must not return into the code of the process that was forked.
    let _ends_here = ExitOnDrop;
    let mut kept =
        [job.files.dir, job.memory, job.socket, job.process].map(|descriptor| descriptor.as_raw_fd());
    kept.sort_unstable();
    sys::close_others(&kept);
    sys::new_session();
    sys::set_name(c"delouse-attach");
    sys::accept_child_signals();
    let header = parts.header;
    let code = match Watchdog::new() {
        Ok(watchdog) => {
            let mut helper = Helper { job, header, watchdog, child: None };
            match helper.capture_and_serve(parts.samples, parts.stacks) {
                Ok(()) => 0,
                // Exiting lets go of the thread.
                Err(Stuck) => 1,
            }
        }
        Err(errno) => {
            header.errno.store(errno, Relaxed);
            header.refusal.store(Refusal::NoTimer as u32, Release);
            1
        }
    };
    sys::exit(code)
}

struct ExitOnDrop;

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        sys::exit(2)
    }
}

/// Counts the steps of the helper. In tests, it can end or stop itself before each.
pub(super) fn step(header: &Header) {
    let _number = header.step.fetch_add(1, Relaxed);
    #[cfg(test)]
    super::test_hook::at_step(_number);
}

struct Helper<'a> {
    job: &'a Job<'a>,
    header: &'a Header,
    watchdog: Watchdog,
    child: Option<Image>,
}

impl<'a> Helper<'a> {
    fn capture_and_serve(&mut self, samples: &mut [Sample], stacks: &mut [u8]) -> Result<(), Stuck> {
        let mut threads = Threads::new(self.job.files, self.job.memory, samples, self.job.threads);
        sys::run_first(true);
        threads.read_settled();
        let result = self.capture(&mut threads, stacks);
        self.watchdog.set(Duration::ZERO);
        sys::run_first(false);
        result?;
        self.header.threads.store(threads.len() as u32, Relaxed);
        self.header.done.store(1, Release);
        let _the_other_process_may_have_ended = rustix::io::write(self.job.socket, &[1]);
        self.serve(&mut threads);
        self.finish(&mut threads)
    }

    fn capture(&mut self, threads: &mut Threads<'_>, stacks: &mut [u8]) -> Result<(), Stuck> {
        if let Some(gadgets) = self.job.gadgets {
            match self.make_image(gadgets, threads)? {
                Ok(()) => {}
                Err(refusal) => self.header.refusal.store(refusal as u32, Release),
            }
        }
        let has_image = self.header.child.load(Relaxed) > 0;
        for index in 0..threads.len() {
            step(self.header);
            self.watchdog.set(PATIENCE);
            threads.release_late();
            threads.complete(index, has_image, self.job.is_stopped, stack_of(stacks, index));
        }
        Ok(())
    }

    /// The place for calls of the process's threads.
    fn site(&self, gadgets: Gadgets, suspend_filter: bool) -> Site<'a> {
        let limit = self.job.max_pause.saturating_mul(2).saturating_add(PATIENCE);
        self.watchdog.set(limit);
        Site {
            files: self.job.files,
            memory: self.job.memory,
            mappings: self.job.mappings,
            gadgets,
            // The watchdog is later, so that the helper itself can end first.
            deadline: Instant::now() + limit.saturating_sub(PATIENCE / 10),
            suspend_filter,
        }
    }

    fn make_image(
        &mut self,
        gadgets: Gadgets,
        threads: &mut Threads<'_>,
    ) -> Result<Result<(), Refusal>, Stuck> {
        let mut refusal = Refusal::NoWaiter;
        for kind in Waiter::ALL {
            for place in 0..TRIES {
                let Some(waiter) = threads.waiter(kind, place) else { break };
                let filtered = self.job.files.status(waiter.0).is_none_or(|status| !status.unfiltered);
                let site = self.site(gadgets, filtered);
                let header = self.header;
                let began = Instant::now();
                match Injection::prepare(site, waiter, &mut || step(header))? {
                    Ok(injection) => return self.fork(injection, threads, began),
                    Err(why) => refusal = why,
                }
                if matches!(
                    refusal,
                    Refusal::Traced | Refusal::Filter | Refusal::Foreign | Refusal::NoGadgets
                ) {
                    return Ok(Err(refusal));
                }
            }
        }
        Ok(Err(refusal))
    }

    /// Stops the threads that run, has the prepared thread fork, and resumes all.
    fn fork(
        &mut self,
        mut injection: Injection<'_>,
        threads: &mut Threads<'_>,
        began: Instant,
    ) -> Result<Result<(), Refusal>, Stuck> {
        let header = self.header;
        let arguments = [libc::CLONE_FILES as u64, injection.child_sp(), 0, 0];
        let stopped = threads.stop_running(self.job.pid, self.job.max_pause.min(Duration::from_millis(50)));
        step(header);
        // As late as possible: if this process is killed between here and the call, a system-call filter sees the call.
        if !injection.enter(libc::SYS_clone, arguments, &mut || step(header))? {
            threads.resume_stopped();
            return Ok(Err(Refusal::Signal));
        }
        let stop = injection.resume()?;
        let cloned = (stop == Stop::Clone).then(|| injection.clone_event());
        threads.resume_stopped();
        if let Some(Ok(child)) = cloned {
            Image::new(child, 0).mark();
        }
        let paused = stopped.unwrap_or(began).elapsed();
        header.pause.store(nanos(paused), Relaxed);
        step(header);
        let child = match (stop, cloned) {
            (_, Some(Ok(child))) => child,
            (Stop::Call, _) => {
                let errno = i32::try_from(injection.result().saturating_neg()).unwrap_or(0);
                header.errno.store(errno, Relaxed);
                injection.end(stop)?;
                return Ok(Err(Refusal::Clone));
            }
            _ => {
                injection.end(stop)?;
                return Ok(Err(Refusal::Signal));
            }
        };
        // The image is complete. Its process may have to wait for a processor until it stops; the thread must not.
        let stop = injection.resume()?;
        step(header);
        let own_id = if stop == Stop::Call { injection.result() } else { 0 };
        injection.end(stop)?;
        header.held.store(nanos(began.elapsed()), Relaxed);
        step(header);
        self.watchdog.set(Duration::ZERO);
        let image = self.child.insert(Image::new(child, own_id));
        let watchdog = &self.watchdog;
        let mut release = || watchdog.set(if threads.release_late() { PATIENCE } else { Duration::ZERO });
        let adopted = image.adopt(injection.saved(), &mut || step(header), &mut release);
        step(header);
        if adopted.is_ok() {
            threads.set_registers(injection.tid(), injection.original(), injection.thread_pointer());
            header.child.store(child, Release);
        }
        Ok(adopted)
    }

    /// Keeps the image until the process that has started this one does not need it any more, or one of the processes has
    /// ended.
    fn serve(&self, threads: &mut Threads<'_>) {
        loop {
            let late = threads.release_late();
            threads.release_others(self.child.as_ref().map(Image::pid));
            // A thread that stops late must be resumed at once.
            self.watchdog.set(if late { PATIENCE } else { Duration::ZERO });
            let time = if late { Timespec { tv_sec: 0, tv_nsec: 1_000_000 } } else { ALIVE };
            // If the process has ended, its image would keep its sockets and locks.
            let mut ends =
                [self.job.socket, self.job.process].map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN));
            match poll(&mut ends, Some(&time)) {
                // Another process may have inherited the other end of the socket.
                Ok(0) | Err(rustix::io::Errno::INTR) if sys::parent() == self.job.parent => {}
                _ => return,
            }
        }
    }

    /// Ends the image, and has the process reap it.
    fn finish(&mut self, threads: &mut Threads<'_>) -> Result<(), Stuck> {
        let ended = self.child.take().and_then(Image::end);
        step(self.header);
        let mut ids = [0; 1 + MOST_LEFT_OVER];
        let all = ended.into_iter().chain(self.job.left_over.iter().copied());
        let mut count = 0;
        for (id, place) in all.zip(&mut ids) {
            *place = id;
            count += 1;
        }
        let ids = ids.get(..count).unwrap_or_default();
        let Some(gadgets) = self.job.gadgets.filter(|_| !ids.is_empty()) else { return Ok(()) };
        let deadline = Instant::now() + REAPING;
        while Instant::now() < deadline && self.job.files.stat(self.job.pid).is_some() {
            threads.read_settled();
            for kind in Waiter::ALL {
                let Some(waiter) = threads.waiter(kind, 0) else { continue };
                if self.reap(gadgets, waiter, ids)? {
                    return Ok(());
                }
            }
            sys::wait_for_child_signal(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Has a thread wait for the children with these ids, which have ended. Returns whether it did.
    fn reap(&self, gadgets: Gadgets, waiter: (i32, Sleep), ids: &[i32]) -> Result<bool, Stuck> {
        let filtered = self.job.files.status(waiter.0).is_none_or(|status| !status.unfiltered);
        let header = self.header;
        let site = self.site(gadgets, filtered);
        let prepared = Injection::prepare(site, waiter, &mut || step(header))?;
        let Ok(mut injection) = prepared else { return Ok(false) };
        // Only children that end without a signal, as images do: one of these ids may be that of a child of the program by
        // now, whose end the program has to see.
        let options = (libc::WNOHANG | libc::__WCLONE) as u64;
        for id in ids {
            if !injection.enter(libc::SYS_wait4, [*id as u64, 0, options, 0], &mut || step(header))? {
                return Ok(false);
            }
            let stop = injection.resume()?;
            step(header);
            if stop != Stop::Call {
                injection.end(stop)?;
                return Ok(false);
            }
        }
        injection.end(Stop::Call)?;
        step(header);
        self.watchdog.set(Duration::ZERO);
        Ok(true)
    }
}

/// Whether the helper has captured all that it can.
pub(super) fn is_done(header: &Header) -> bool {
    header.done.load(Acquire) == 1
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
