//! What the kernel allows this process: the size of its core file, whether it may be dumped at all.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `RLIMIT_CORE` in bytes; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CoreLimit {
    /// What counts now.
    pub(crate) soft: Option<u64>,
    /// What the process may raise it to by itself.
    pub(crate) hard: Option<u64>,
}

/// The present limit.
pub(crate) fn core_limit() -> io::Result<CoreLimit> {
    let limit = raw_limit()?;
    let bytes = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Ok(CoreLimit { soft: bytes(limit.rlim_cur), hard: bytes(limit.rlim_max) })
}

/// Raises the soft limit to the hard one, for the whole process and what it starts from now on.
pub(crate) fn raise_core_limit() -> io::Result<CoreLimit> {
    let mut limit = raw_limit()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to an initialised `rlimit` that outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    core_limit()
}

/// A limit of what the process may map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryLimit {
    /// `RLIMIT_AS`: of all that is mapped.
    AddressSpace,
    /// `RLIMIT_DATA`: of what is private and can be written to.
    Data,
}

/// The soft limit in bytes; `None` is unlimited.
pub(crate) fn memory_limit(of: MemoryLimit) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a writable `rlimit` that outlives the call.
    let asked = unsafe {
        match of {
            MemoryLimit::AddressSpace => libc::getrlimit(libc::RLIMIT_AS, &mut limit),
            MemoryLimit::Data => libc::getrlimit(libc::RLIMIT_DATA, &mut limit),
        }
    };
    (asked == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// What `RLIMIT_AS` counts of this process, and what `RLIMIT_DATA` does, in bytes (proc_pid_statm(5)).
pub(crate) fn sizes() -> Option<(u64, u64)> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: Vec<u64> = statm.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let page = super::heap::page_size() as u64;
    Some((pages.first()?.saturating_mul(page), pages.get(5)?.saturating_mul(page)))
}

fn raw_limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a writable `rlimit` that outlives the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_CORE, &mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `PR_GET_DUMPABLE`: 0 never, 1 yes, 2 as root only. 1 where the kernel does not say.
#[cfg(target_os = "linux")]
pub(crate) fn dumpable() -> i32 {
    // SAFETY: this request reads one flag of the process and takes no pointer.
    match unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) } {
        flag @ 0..=2 => flag,
        _ => 1,
    }
}

/// Elsewhere there is no such flag.
#[cfg(not(target_os = "linux"))]
pub(crate) fn dumpable() -> i32 {
    1
}

/// Whether this process may create files in `directory`.
pub(crate) fn may_create_in(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else { return false };
    // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
    unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

/// The command that lets this process have more files open while it runs.
pub(crate) fn more_files() -> String {
    format!("prlimit --pid {} --nofile=65536", std::process::id())
}
