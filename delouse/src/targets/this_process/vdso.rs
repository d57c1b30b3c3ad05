//! The kernel's function that reads the clock without a system call (vdso(7)).
//!
//! [`clock_gettime`] obeys the rules of `sys.rs`: the kernel's function takes no lock, and is always mapped.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::arch::VDSO_CLOCK;

/// Address of the kernel's function; null until [`find`] has found it.
static CLOCK: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Gets the function's address from the loader. musl's loader does not have it; then the system call is used.
pub(super) fn find() {
    // SAFETY: glibc lists the vDSO among its libraries under this name (`setup_vdso`). RTLD_NOLOAD loads no other file. The
    // handle is not closed, because the vDSO stays mapped.
    let clock = unsafe {
        let vdso = libc::dlopen(c"linux-vdso.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if vdso.is_null() { vdso } else { libc::dlsym(vdso, VDSO_CLOCK.as_ptr()) }
    };
    CLOCK.store(clock, Ordering::Release);
}

/// Reads `CLOCK_MONOTONIC` into `time`, if the function is known. Async-signal-safe.
pub(super) fn clock_gettime(time: &mut libc::timespec) -> bool {
    let clock = CLOCK.load(Ordering::Acquire);
    if clock.is_null() {
        return false;
    }
    // SAFETY: the kernel's function has libc's signature on every architecture (vdso(7)).
    let clock: extern "C" fn(libc::clockid_t, *mut libc::timespec) -> i32 =
        unsafe { std::mem::transmute(clock) };
    clock(libc::CLOCK_MONOTONIC, time) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::this_process::sys;

    #[test]
    fn the_vdso_and_the_system_call_read_the_same_clock() {
        let before = sys::now();
        find();
        if cfg!(target_env = "gnu") {
            assert!(!CLOCK.load(Ordering::Acquire).is_null());
        }
        let after = sys::now();
        CLOCK.store(std::ptr::null_mut(), Ordering::Release);
        let later = sys::now();
        assert!(
            before <= after && after <= later && later - before < 60_000_000_000,
            "{before} {after} {later}"
        );
        find();
    }
}
