//! How a thread of another process makes calls for the helper, by architecture. The rules of `sys.rs` apply.

#[cfg_attr(target_arch = "aarch64", path = "aarch64/mod.rs")]
#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
mod current;

pub(super) use current::{
    EPOLL, EXTENDED_ROOM, EXTENDED_SET, LARGEST_FRAME, RESTARTED, Registers, build_frame, call,
    checks_returns, hide_interruption, instructions, repeats, result, sleeps_at, stack_pointer,
    thread_pointer, waiting,
};
