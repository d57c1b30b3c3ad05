//! The threads of the other process, from the helper's side. The rules of `sys.rs` apply.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, RawDir, openat};

use super::arch::{self, EPOLL, RESTARTED, Registers};
use super::sys::{self, Stop};
use crate::host::proc_text::decimal;
use crate::targets::other_process::arch::WORDS;
use crate::targets::other_process::sample::{Known, Sample};
use crate::targets::other_process::task_files::{Sleep, TaskFiles};

/// How long one thread that is stopped alone may take to stop: it may have to wait for a processor.
const ALONE: Duration = Duration::from_millis(20);
/// How often threads that started meanwhile are looked for.
const LISTINGS: usize = 3;

/// How often threads are read until one of them waits in a futex.
const SETTLING: u32 = 5;

/// How a thread waits that can make a call for delouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    /// In a futex.
    Futex,
    /// In a futex with a timeout.
    TimedFutex,
    /// In `epoll_wait`: without a timeout, it can be repeated as if nothing had happened.
    Epoll,
    /// In `epoll_wait` with a timeout, which returns EINTR after a stop. It is what a runtime with one thread waits in. tokio
    /// ignores EINTR (`runtime/io/driver.rs`), since any signal has this effect.
    TimedEpoll,
}

impl Waiter {
    /// In the order in which they are chosen.
    pub(super) const ALL: [Self; 4] = [Self::Futex, Self::TimedFutex, Self::Epoll, Self::TimedEpoll];

    fn of(sample: &Sample) -> Option<Self> {
        let [_, operation, _, timeout, ..] = sample.sleep.arguments;
        match sample.sleep.number {
            // FUTEX_WAIT, FUTEX_LOCK_PI, FUTEX_WAIT_BITSET: only the first and the last are known to be restarted.
            libc::SYS_futex if !matches!(operation & 0x7f, 0 | 9) => None,
            libc::SYS_futex if !arch::repeats(operation & 0x7f, timeout) => None,
            libc::SYS_futex if timeout == 0 => Some(Self::Futex),
            libc::SYS_futex => Some(Self::TimedFutex),
            EPOLL if timeout as i32 == -1 => Some(Self::Epoll),
            EPOLL => Some(Self::TimedEpoll),
            _ => None,
        }
    }
}

/// All threads, and the room for some more.
pub(super) struct Threads<'a> {
    files: TaskFiles<'a>,
    memory: BorrowedFd<'a>,
    samples: &'a mut [Sample],
    count: usize,
    /// Whether threads are traced that have not stopped in time.
    late: bool,
}

impl<'a> Threads<'a> {
    pub(super) fn new(
        files: TaskFiles<'a>,
        memory: BorrowedFd<'a>,
        samples: &'a mut [Sample],
        count: usize,
    ) -> Self {
        let count = count.min(samples.len());
        Self { files, memory, samples, count, late: false }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    fn list(&mut self) -> &mut [Sample] {
        self.samples.get_mut(..self.count).unwrap_or_default()
    }

    /// Reads where each thread sleeps.
    pub(super) fn read_all(&mut self) {
        let files = self.files;
        self.list().iter_mut().filter(|sample| !sample.traced).for_each(|sample| sample.read(files));
    }

    /// The same, until a thread waits in a futex, or some milliseconds have passed: in a process with many threads, those may be
    /// awake for a moment, and a thread in `epoll_wait` is only the second choice.
    pub(super) fn read_settled(&mut self) {
        for _ in 0..SETTLING {
            self.read_all();
            let [futex, timed, ..] = Waiter::ALL;
            if self.count < 2 || self.waiter(futex, 0).or_else(|| self.waiter(timed, 0)).is_some() {
                return;
            }
            sys::wait_for_child_signal(Duration::from_millis(1));
        }
    }

    /// The `place`th thread that waits like that, and where.
    pub(super) fn waiter(&mut self, kind: Waiter, place: usize) -> Option<(i32, Sleep)> {
        let is_it = |sample: &&mut Sample| {
            sample.known == Known::Asleep && !sample.traced && Waiter::of(sample) == Some(kind)
        };
        self.list().iter_mut().filter(is_it).nth(place).map(|sample| (sample.tid, sample.sleep))
    }

    /// Stops the threads that run, and reads their registers. Returns when the first one was stopped.
    pub(super) fn stop_running(&mut self, pid: i32, time: Duration) -> Option<Instant> {
        let files = self.files;
        for sample in self.list() {
            // It may sleep by now. A thread that sleeps is not stopped.
            if sample.known == Known::Running {
                sample.read(files);
            }
            if sample.known == Known::Running {
                sample.traced = sys::seize(sample.tid).is_ok();
            }
        }
        let is_idle = !self.list().iter().any(|sample| sample.traced);
        let began = Instant::now();
        let deadline = began + time;
        for _ in 0..LISTINGS {
            for sample in self.list() {
                if sample.traced && sample.known == Known::Running {
                    let _ended = sys::interrupt(sample.tid);
                }
            }
            for sample in self.list() {
                if sample.traced && sample.known == Known::Running {
                    take_registers(sample, deadline);
                }
            }
            if is_idle || !self.add_new(pid) {
                break;
            }
        }
        (!is_idle).then_some(began)
    }

    /// Adds threads that have started meanwhile. Returns whether some of them run, and are traced now.
    fn add_new(&mut self, pid: i32) -> bool {
        let before = self.count;
        if self.files.stat(pid).is_none_or(|stat| stat.threads <= before as u64) {
            return false;
        }
        let Ok(dir) = openat(self.files.dir, c"task", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        else {
            return false;
        };
        let mut buffer = [MaybeUninit::uninit(); 8 << 10];
        let mut listing = RawDir::new(&dir, &mut buffer);
        while let Some(Ok(entry)) = listing.next() {
            let tid = decimal(entry.file_name().to_bytes()).and_then(|tid| i32::try_from(tid).ok());
            let Some(tid) = tid else { continue };
            if self.list().iter().any(|sample| sample.tid == tid) {
                continue;
            }
            let Some(sample) = self.samples.get_mut(self.count) else { break };
            *sample = Sample::new(tid);
            sample.read(self.files);
            if sample.known == Known::Running {
                sample.traced = sys::seize(tid).is_ok();
            }
            self.count = self.count.saturating_add(1);
        }
        self.list().get(before..).unwrap_or_default().iter().any(|sample| sample.traced)
    }

    /// Resumes the threads that were stopped together.
    pub(super) fn resume_stopped(&mut self) {
        for sample in self.list() {
            if sample.traced && sample.known == Known::Registers {
                // A thread that was killed stays traced until its end was taken: see `release_late`.
                sample.traced = sys::detach(sample.tid, sample.signal).is_err();
            }
        }
        self.late = self.list().iter().any(|sample| sample.traced);
    }

    /// Records the registers that a thread had when the image was made, and its thread pointer if that is not one of them.
    pub(super) fn set_registers(&mut self, tid: i32, registers: &Registers, tls: u64) {
        if let Some(sample) = self.list().iter_mut().find(|sample| sample.tid == tid) {
            sample.words = to_words(registers);
            sample.tls = tls;
            sample.known = Known::Registers;
        }
    }

    /// Reads what is missing of the thread at `index`: all its registers, and its stack if the image has an older one.
    /// Stops only threads that do not notice it.
    pub(super) fn complete(&mut self, index: usize, has_image: bool, any: bool, stack: &mut [u8]) {
        let (files, memory) = (self.files, self.memory);
        let Some(sample) = self.list().get_mut(index) else { return };
        let is_complete = match sample.known {
            Known::Registers | Known::Ended => true,
            Known::Asleep if has_image => complete_sleeper(sample, files, memory, any),
            _ => false,
        };
        if !is_complete && !sample.traced {
            sample.moved = true;
            sample.read(files);
            if sample.known == Known::Asleep && !is_restarted(files, sample, any) {
                sample.read_with_stack(files, memory, stack);
            } else if sample.known == Known::Asleep {
                stop_alone(sample, memory, Some(stack));
            }
            // It may have woken meanwhile.
            if sample.known == Known::Running && !sample.traced {
                stop_alone(sample, memory, Some(stack));
            }
        }
        let traced = sample.traced;
        self.late |= traced;
    }

    /// Resumes threads that stop under an id that was not stopped: a thread that executes another program gets the id of
    /// its process, and stays traced. `image` is not one of these.
    pub(super) fn release_others(&self, image: Option<i32>) {
        while let Some((tid, stop)) = sys::poll_any_stop() {
            if Some(tid) != image && stop != Stop::Ended {
                hide_interruption(tid, &Sleep::default());
                let _ended = sys::detach(tid, stop.signal());
            }
        }
    }

    /// Resumes threads that have stopped after their deadline. Returns whether there are more that have not stopped yet.
    pub(super) fn release_late(&mut self) -> bool {
        if !self.late {
            return false;
        }
        let mut late = false;
        for sample in self.list() {
            if sample.traced {
                match sys::poll_stop(sample.tid) {
                    None => late = true,
                    Some(Stop::Ended) => sample.traced = false,
                    Some(stop) => {
                        hide_interruption(sample.tid, &sample.sleep);
                        sample.traced = sys::detach(sample.tid, stop.signal()).is_err();
                    }
                }
            }
        }
        self.late = late;
        late
    }
}

/// Reads the other registers of a thread that has not run since the image was made. Returns whether no more is needed.
fn complete_sleeper(sample: &mut Sample, files: TaskFiles<'_>, memory: BorrowedFd<'_>, any: bool) -> bool {
    if sample.has_run(files) {
        return false;
    }
    if !is_restarted(files, sample, any) {
        return true;
    }
    let before = *sample;
    stop_alone(sample, memory, None);
    if sample.known == Known::Registers && arch::sleeps_at(&from_words(&sample.words), &before.sleep) {
        return true;
    }
    // It ran between the two reads, or did not stop.
    *sample = Sample { traced: sample.traced, ..before };
    sample.traced
}

/// Whether a stop of the thread has no effect on the program.
fn is_restarted(files: TaskFiles<'_>, sample: &Sample, any: bool) -> bool {
    let sleeps = || files.stat(sample.tid).is_some_and(|stat| stat.state == b'S');
    any || (RESTARTED.contains(&sample.sleep.number) && sleeps())
}

/// Stops one thread, reads its registers and its stack, and resumes it.
fn stop_alone(sample: &mut Sample, memory: BorrowedFd<'_>, stack: Option<&mut [u8]>) {
    if sys::seize(sample.tid).is_err() {
        return;
    }
    sample.traced = true;
    let _ended = sys::interrupt(sample.tid);
    let stop = take_registers(sample, Instant::now() + ALONE);
    let (Some(stop), Known::Registers) = (stop, sample.known) else { return };
    if let Some(stack) = stack {
        sample.copy_stack(memory, arch::stack_pointer(&from_words(&sample.words)), stack);
    }
    sample.traced = sys::detach(sample.tid, stop.signal()).is_err();
}

/// Waits for a thread that was interrupted, and reads its registers. The thread stays stopped, if it has registers then.
fn take_registers(sample: &mut Sample, deadline: Instant) -> Option<Stop> {
    let stop = sys::wait_for_stop(sample.tid, deadline);
    match stop {
        None => sample.known = Known::NoAnswer,
        Some(Stop::Ended) => {
            sample.known = Known::Ended;
            sample.traced = false;
        }
        Some(stop) => match sys::registers(sample.tid) {
            Ok(registers) => {
                sample.words = to_words(&registers);
                sample.tls = arch::thread_pointer(sample.tid).unwrap_or(0);
                sample.known = Known::Registers;
                sample.signal = stop.signal();
                hide_interruption(sample.tid, &sample.sleep);
            }
            Err(_) => {
                sample.known = Known::Nothing;
                sample.traced = sys::detach(sample.tid, stop.signal()).is_err();
            }
        },
    }
    stop
}

/// Has a call repeated that a thread was stopped on its way into, where it would return EINTR. `sleep` is where the thread slept
/// before.
///
/// A timeout begins again, but the thread had only begun to wait: threads that sleep in these calls are not stopped.
fn hide_interruption(tid: i32, sleep: &Sleep) {
    let changed = sys::registers(tid).ok().and_then(|registers| arch::hide_interruption(registers, sleep));
    if let Some(registers) = changed {
        let _ended = sys::set_registers(tid, &registers);
    }
}

fn to_words(registers: &Registers) -> [u64; WORDS] {
    // SAFETY: a struct of words, without padding.
    unsafe { std::mem::transmute_copy(registers) }
}

fn from_words(words: &[u64; WORDS]) -> Registers {
    const { assert!(size_of::<Registers>() == 8 * WORDS) };
    // SAFETY: a struct of words, for which all values are valid.
    unsafe { std::mem::transmute_copy(words) }
}
