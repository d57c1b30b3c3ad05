//! Scheduling of delouse's threads.

use super::arch::syscall;
use super::memory::has_seccomp_filter;

/// The time slice of delouse's threads, in nanoseconds; the default is about 3 ms.
const SLICE: u64 = 20_000_000;

/// `struct sched_attr` (linux/sched/types.h) of Linux 5.3.
#[repr(C)]
#[derive(Debug, Default)]
#[allow(dead_code, reason = "the kernel reads and writes them")]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// Lets the program's threads preempt the calling thread, and threads that it starts later.
///
/// Requests longer time slices: these threads get the same share of the processors, but a thread that wakes up for a short
/// time runs before a thread that reads debug information. Needs Linux 6.12. On older kernels, and with a system-call
/// filter, this does nothing.
pub(crate) fn yield_to_program() {
    // systemd's `SystemCallFilter=~@resources` forbids this call.
    if has_seccomp_filter() {
        return;
    }
    let size = size_of::<Attributes>();
    let mut attributes = Attributes::default();
    // SAFETY: the first call writes at most `size` bytes, the second reads them; both affect only the calling thread.
    unsafe {
        let result = syscall(libc::SYS_sched_getattr, [0, (&raw mut attributes) as usize, size, 0, 0, 0]);
        if result == 0 && attributes.policy == libc::SCHED_OTHER as u32 {
            attributes.runtime = SLICE;
            syscall(libc::SYS_sched_setattr, [0, (&raw const attributes) as usize, 0, 0, 0, 0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice_of(tid: usize) -> u64 {
        let mut attributes = Attributes::default();
        // SAFETY: writes the attributes.
        let result = unsafe {
            let (place, size) = ((&raw mut attributes) as usize, size_of::<Attributes>());
            syscall(libc::SYS_sched_getattr, [tid, place, size, 0, 0, 0])
        };
        assert_eq!(result, 0);
        attributes.runtime
    }

    #[test]
    fn started_threads_inherit_the_time_slice() {
        let before = slice_of(0);
        let (ours, childs) = std::thread::spawn(|| {
            yield_to_program();
            (slice_of(0), std::thread::spawn(|| slice_of(0)).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(slice_of(0), before, "the parent thread is unchanged");
        match ours {
            // Linux before 6.12 does not support or does not report time slices.
            0 => skipped!("this kernel has no time slices, or does not report them"),
            _ => assert_eq!((ours, childs), (SLICE, SLICE)),
        }
    }
}
