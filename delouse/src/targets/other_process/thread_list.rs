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
    add_thread_pointers(&mut threads, |pointer| arch::musl_thread(pointer, memory));
    threads
}

/// Adds the thread pointers that are missing of musl's threads: musl registers no list of robust mutexes before the program uses
/// one. `next` tells the id of the thread that has a thread pointer, and the thread pointer of the next thread.
fn add_thread_pointers(threads: &mut [Thread], next: impl Fn(u64) -> Option<(i32, u64)>) {
    let pointer = |thread: &Thread| thread.registers.ok().map(|registers| registers.tls.get());
    if !threads.iter().any(|thread| pointer(thread) == Some(0)) {
        return;
    }
    let known = |thread: &Thread| Some((thread.tid, pointer(thread).filter(|pointer| *pointer != 0)?));
    let Some((first, mut at)) = threads.iter().find_map(known) else { return };
    let mut pointers = HashMap::new();
    // Threads that began after the list was made have their place in the circle, too.
    while pointers.len() <= 2 * threads.len() {
        match next(at) {
            Some((tid, _)) if pointers.is_empty() && tid != first => return,
            Some((tid, following)) if pointers.insert(tid, at).is_none() => at = following,
            _ => break,
        }
    }
    for thread in threads {
        let found = pointers.get(&thread.tid).copied();
        if let (Ok(registers), Some(found)) = (&mut thread.registers, found)
            && registers.tls.is_null()
        {
            registers.tls = Address::new(found);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads with these ids and thread pointers, of which 0 is not known.
    fn threads(pointers: &[(i32, u64)]) -> Vec<Thread> {
        let thread = |(tid, tls): &(i32, u64)| Thread {
            registers: Ok(Registers { tls: Address::new(*tls), ..Registers::default() }),
            ..Thread::new(*tid)
        };
        pointers.iter().map(thread).collect()
    }

    fn pointers(threads: &[Thread]) -> Vec<u64> {
        threads.iter().map(|thread| thread.registers.unwrap().tls.get()).collect()
    }

    #[test]
    fn the_circle_of_musl_has_the_thread_pointers_of_sleepers() {
        // 9 began later.
        let circle = |pointer| match pointer {
            100 => Some((1, 300)),
            300 => Some((3, 900)),
            900 => Some((9, 200)),
            200 => Some((2, 100)),
            _ => None,
        };
        let mut found = threads(&[(1, 0), (2, 200), (3, 0), (4, 0)]);
        add_thread_pointers(&mut found, circle);
        assert_eq!(pointers(&found), [100, 200, 300, 0]);
        // Another C library: what is read there is another number.
        let mut found = threads(&[(1, 0), (2, 200)]);
        add_thread_pointers(&mut found, |_| Some((7, 100)));
        assert_eq!(pointers(&found), [0, 200]);
        // A circle that does not close.
        let mut found = threads(&[(1, 0), (2, 200)]);
        add_thread_pointers(&mut found, |pointer| Some((pointer as i32 - 198, pointer + 1)));
        assert_eq!(pointers(&found), [0, 200]);
    }
}
