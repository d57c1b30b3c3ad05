//! Describes where in the kernel a thread sleeps, for threads whose stack cannot be captured.

use super::arch::OLD_CALLS;
use super::proc::{self, Call};

/// System calls in which threads often block, with their names in the C library (syscalls(2)).
const NAMES: &[(libc::c_long, &str)] = &[
    (libc::SYS_read, "read"),
    (libc::SYS_write, "write"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_close, "close"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_ppoll, "ppoll"),
    (libc::SYS_epoll_pwait, "epoll_pwait"),
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_recvfrom, "recvfrom"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_wait4, "wait4"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_nanosleep, "nanosleep"),
    (libc::SYS_clock_nanosleep, "clock_nanosleep"),
    (libc::SYS_rt_sigtimedwait, "sigwait"),
    (libc::SYS_rt_sigsuspend, "sigsuspend"),
];

/// Such as `system call vfork, in the kernel's kernel_clone`. Contains the parts that the kernel reports; `None` without
/// any.
///
/// Reads two files of `/proc`. The kernel's function (`wchan`) is 0 for a thread that runs, and for all threads if the
/// system hides it.
pub(super) fn describe(tid: i32) -> Option<String> {
    let mut function = [0; 128];
    let call = proc::call_of(tid).map(|Call { number, .. }| {
        let known = NAMES.iter().chain(OLD_CALLS).find(|(known, _)| u64::try_from(*known) == Ok(number));
        format!("system call {}", known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned()))
    });
    let function = proc::read_of_thread(tid, c"wchan", &mut function).ok();
    let function = function.and_then(|name| str::from_utf8(name).ok());
    let function = function.map(str::trim_end).filter(|name| !matches!(*name, "" | "0"));
    let function = function.map(|name| format!("in the kernel's {name}"));
    let parts: Vec<String> = call.into_iter().chain(function).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::this_process::sys;

    #[test]
    fn the_call_of_a_thread_that_waits_in_futex_is_described() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (_keep, never) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = sender.send(sys::gettid());
            let _ = never.recv();
        });
        let tid = receiver.recv().unwrap();
        loop {
            // The kernel reports the call once the thread sleeps.
            if describe(tid).is_some_and(|text| text.starts_with("system call futex")) {
                break;
            }
            assert!(!thread.is_finished());
            std::thread::yield_now();
        }
        drop(_keep);
        thread.join().unwrap();
        assert_eq!(describe(i32::MAX), None);
    }
}
