//! How a thread of another process makes calls for the helper, by architecture. The rules of `sys.rs` apply.

#[cfg_attr(target_arch = "aarch64", path = "aarch64/mod.rs")]
#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
mod current;

pub(super) use current::{
    EPOLL, EXTENDED_ROOM, EXTENDED_SET, LARGEST_FRAME, Registers, build_frame, call, checks_returns,
    hide_interruption, instructions, repeats, result, sleeps_at, stack_pointer, thread_pointer, waiting,
};

/// The calls that the kernel restarts after a stop without any effect on the program, whatever their arguments.
pub(super) const RESTARTED: [i64; 6] = [
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    current::POLL,
    libc::SYS_wait4,
    libc::SYS_restart_syscall,
];

/// Calls that return EINTR after a stop: always, or if the socket has a timeout. None has an effect before it waits.
const INTERRUPTED: [i64; 8] = [
    // The same as the next on some architectures.
    EPOLL,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_rt_sigtimedwait,
];
