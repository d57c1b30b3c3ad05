//! Limits that the kernel sets for this process: size of its core file, size of its memory, whether it may be dumped.

use std::io;
use std::path::Path;

use rustix::fs::Access;
use rustix::process::{Resource, Rlimit, setrlimit};

/// A limit of this process. `rustix` would assume that the call succeeds, but a system-call filter may refuse it.
pub(crate) fn limit(resource: Resource) -> io::Result<Rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a writable `rlimit` that outlives the call.
    if unsafe { libc::getrlimit(resource as _, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let bounded = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Ok(Rlimit { current: bounded(limit.rlim_cur), maximum: bounded(limit.rlim_max) })
}

/// Raises the soft limit for core files to the hard limit, for the whole process and for children that it starts from now
/// on.
pub(crate) fn raise_core_limit() -> io::Result<()> {
    let maximum = limit(Resource::Core)?.maximum;
    Ok(setrlimit(Resource::Core, Rlimit { current: maximum, maximum })?)
}

/// The sizes in bytes that the kernel compares with `RLIMIT_AS` and with `RLIMIT_DATA` (proc_pid_statm(5)).
pub(crate) fn sizes() -> Option<(u64, u64)> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: Vec<u64> = statm.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let page = super::heap::page_size() as u64;
    Some((pages.first()?.saturating_mul(page), pages.get(5)?.saturating_mul(page)))
}

/// `PR_GET_DUMPABLE`: 0 never, 1 yes, 2 by root only. 1 if the kernel does not report it.
#[cfg(target_os = "linux")]
pub(crate) fn dumpable() -> i32 {
    rustix::process::dumpable_behavior().map_or(1, |flag| flag as i32)
}

/// Other systems have no such flag.
#[cfg(not(target_os = "linux"))]
pub(crate) fn dumpable() -> i32 {
    1
}

/// Whether this process may create files in `directory`.
pub(crate) fn may_create_in(directory: &Path) -> bool {
    rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// The command that raises the descriptor limit of this process while it runs.
pub(crate) fn more_files() -> String {
    format!("prlimit --pid {} --nofile=65536", std::process::id())
}
