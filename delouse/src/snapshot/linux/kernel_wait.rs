//! Where in the kernel a thread sleeps, for those that cannot be asked for their stack.

use super::proc::{self, Call};

/// System calls that threads are known to hang in, by the C library's name (syscalls(2)).
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
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_vfork, "vfork"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "epoll_wait"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_pause, "pause"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open"),
];

/// `system call vfork, in the kernel's kernel_clone`: the parts that the kernel tells; `None` without any.
///
/// Costs two reads in `/proc`. The kernel's function (`wchan`) is 0 for a thread that runs, and for all
/// where it is kept secret.
pub(super) fn describe(tid: i32) -> Option<String> {
    let mut function = [0; 128];
    let call = proc::call_of(tid).map(|Call { number, .. }| {
        let known = NAMES.iter().find(|(known, _)| u64::try_from(*known) == Ok(number));
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
    use crate::snapshot::linux::sys;

    #[test]
    fn a_thread_that_waits_in_futex_is_told_to() {
        let (tell, told) = std::sync::mpsc::channel();
        let (_keep, never) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = tell.send(sys::gettid());
            let _ = never.recv();
        });
        let tid = told.recv().unwrap();
        loop {
            // It runs until it sleeps; then the kernel tells the call.
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
