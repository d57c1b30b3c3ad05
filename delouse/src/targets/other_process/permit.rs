//! Permission to be traced, where the security module yama restricts that.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Has `command` permit this process and its descendants to trace the program that it starts. With yama's level 1, only
/// ancestors may trace a process otherwise; the helper that captures is none (Documentation/admin-guide/LSM/Yama.rst).
pub(crate) fn permit_tracing(command: &mut Command) {
    let own = std::process::id() as libc::c_ulong;
    let permit = move || {
        // SAFETY: a system call that involves no memory. Without yama it fails, and nothing is necessary.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, own, 0, 0, 0) };
        Ok(())
    };
    // SAFETY: between `fork` and `exec`, the closure makes one system call only.
    unsafe { command.pre_exec(permit) };
}
