//! When the kernel lets our threads run.

use super::arch::syscall;
use super::memory::has_seccomp_filter;

/// The time, in nanoseconds, that the kernel may let one of our threads have at once; 3 ms are usual.
const SLICE: u64 = 20_000_000;

/// `struct sched_attr` (linux/sched/types.h), as far as Linux 5.3 knows it.
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

/// Has the program's threads run before the calling one, and before those that it starts, as soon as they want to.
///
/// These get no less of the processors than others, but in larger parts: a thread that wakes up to do little does not wait
/// for one that reads debug information (Linux 6.12; before, and where system calls are filtered, nothing changes).
pub(crate) fn give_way() {
    // systemd's `SystemCallFilter=~@resources` has this call in it.
    if has_seccomp_filter() {
        return;
    }
    let size = size_of::<Attributes>();
    let mut attributes = Attributes::default();
    // SAFETY: the first writes `size` bytes at most, the second reads them; both concern the calling thread alone.
    unsafe {
        let asked = syscall(libc::SYS_sched_getattr, [0, (&raw mut attributes) as usize, size, 0, 0, 0]);
        if asked == 0 && attributes.policy == libc::SCHED_OTHER as u32 {
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
        let asked = unsafe {
            let (place, size) = ((&raw mut attributes) as usize, size_of::<Attributes>());
            syscall(libc::SYS_sched_getattr, [tid, place, size, 0, 0, 0])
        };
        assert_eq!(asked, 0);
        attributes.runtime
    }

    #[test]
    fn threads_that_give_way_start_others_that_do() {
        let before = slice_of(0);
        let (ours, childs) = std::thread::spawn(|| {
            give_way();
            (slice_of(0), std::thread::spawn(|| slice_of(0)).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(slice_of(0), before, "the thread that started it is as it was");
        match ours {
            // Linux before 6.12 knows no slices, or does not tell of them.
            0 => println!("skipped"),
            _ => assert_eq!((ours, childs), (SLICE, SLICE)),
        }
    }
}
