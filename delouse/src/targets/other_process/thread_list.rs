//! The threads of another process, as a snapshot lists them.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Duration;

use super::arch;
use super::memory::Memory;
use super::sample::{Known, STACK, Sample};
use super::task_files::{Stat, TaskFiles};
use crate::snapshot::arch::host;
use crate::snapshot::{Address, FutexWait, Registers, StackCopy, Thread, Unavailable};

/// Names and states of threads.
pub(super) struct ThreadNames(HashMap<i32, (String, char)>);

impl ThreadNames {
    pub(super) fn read(files: TaskFiles<'_>, threads: &[i32]) -> Self {
        Self(threads.iter().filter_map(|tid| Some((*tid, read_name(files, *tid)?))).collect())
    }

    /// Whether a signal has stopped all threads.
    pub(super) fn are_all_stopped(&self) -> bool {
        let mut living = self.0.values().filter(|(_, state)| *state != 'Z').peekable();
        living.peek().is_some() && living.all(|(_, state)| *state == 'T')
    }
}

fn read_name(files: TaskFiles<'_>, tid: i32) -> Option<(String, char)> {
    let mut buffer = [0; 1024];
    let text = files.read(tid, "stat", &mut buffer).ok()?;
    Some((Stat::name(text)?, char::from(Stat::parse(text)?.state)))
}

/// Reads threads without stopping any.
pub(super) fn read(files: TaskFiles<'_>, memory: &File, threads: &[i32]) -> Vec<(Sample, Option<StackCopy>)> {
    let mut stack = vec![0; STACK];
    let mut read = |tid: &i32| {
        let mut sample = Sample::new(*tid);
        sample.read_with_stack(files, memory.as_fd(), &mut stack);
        let bytes = stack.get(..sample.stack_length).filter(|bytes| !bytes.is_empty());
        let base = Address::new(sample.stack_base);
        (sample, bytes.map(|bytes| StackCopy { base, bytes: bytes.to_vec() }))
    };
    threads.iter().map(&mut read).collect()
}

/// Makes the list, ordered by id.
pub(super) fn threads(
    files: TaskFiles<'_>,
    mut names: ThreadNames,
    samples: Vec<(Sample, Option<StackCopy>)>,
    memory: &Memory,
    has_image: bool,
) -> Vec<Thread> {
    let mut threads: Vec<Thread> = samples
        .into_iter()
        .map(|(sample, stack)| {
            let named = names.0.remove(&sample.tid).or_else(|| read_name(files, sample.tid));
            let (name, state) = named.unzip();
            let fits = sample.moved || !has_image;
            Thread {
                name: name.unwrap_or_default(),
                state: Some(letter(&sample, state.unwrap_or('X'))),
                cpu: (sample.runs.cpu > 0).then(|| Duration::from_nanos(sample.runs.cpu)),
                queued: (sample.runs.cpu > 0).then(|| Duration::from_nanos(sample.runs.queued)),
                registers: registers(&sample, memory),
                stack: stack.filter(|_| fits),
                ..Thread::new(sample.tid)
            }
        })
        .collect();
    threads.sort_by_key(|thread| thread.tid);
    threads
}

/// The letter of `/proc/PID/stat`. `before` was read before the capture.
fn letter(sample: &Sample, before: char) -> char {
    match sample.known {
        Known::Ended => 'X',
        _ if sample.ran => 'R',
        Known::Asleep | Known::Registers if before == 'R' => 'S',
        _ => before,
    }
}

fn registers(sample: &Sample, memory: &Memory) -> Result<Registers, Unavailable> {
    match sample.known {
        Known::Registers => arch::all_registers(sample).ok_or(Unavailable::NotCaptured),
        Known::Asleep => Ok(Registers {
            pc: Address::new(sample.sleep.pc),
            sp: Address::new(sample.sleep.sp),
            tls: thread_pointer(sample.tid, memory).unwrap_or_default(),
            futex: u64::try_from(sample.sleep.number).ok().and_then(|number| {
                let [address, operation, expected, timeout, ..] = sample.sleep.arguments;
                FutexWait::from_syscall(host(), number, [address, operation, expected, timeout])
            }),
            ..Registers::default()
        }),
        Known::NoAnswer => Err(Unavailable::NoAnswer),
        Known::Ended => Err(Unavailable::Exited),
        Known::Running | Known::Nothing => Err(Unavailable::NotCaptured),
    }
}

/// The thread pointer of a thread that was not stopped: libc registers the list of robust mutexes with the kernel, which is
/// in the thread's control block.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn thread_pointer(tid: i32, memory: &Memory) -> Option<Address> {
    let (mut head, mut length) = (0_u64, 0_u64);
    // SAFETY: the kernel writes two words.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut length) };
    if result != 0 || head == 0 {
        return None;
    }
    arch::thread_pointer(head, memory).map(Address::new)
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn thread_pointer(_: i32, _: &Memory) -> Option<Address> {
    None
}
