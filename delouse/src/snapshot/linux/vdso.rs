//! The kernel's own function that reads the clock without a system call (vdso(7)).
//!
//! Rules of [`clock_gettime`]: those of `sys.rs`. It has no lock and no state, and the kernel keeps it mapped.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::arch::VDSO_CLOCK;

/// Null until [`find`] has found it.
static CLOCK: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Asks the loader for it. Where it does not know (musl), the system call is made.
pub(super) fn find() {
    // SAFETY: glibc has the vDSO among its libraries by this name (its `setup_vdso`), and with RTLD_NOLOAD opens nothing
    // that is not there. It stays mapped, so the handle may stay open.
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
    use crate::snapshot::linux::sys;

    #[test]
    fn both_clocks_are_one() {
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
