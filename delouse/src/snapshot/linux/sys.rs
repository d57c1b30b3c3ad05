//! The system calls of the signal handler, of the window in which threads stand still, and of the forked
//! child, without libc around them.
//!
//! Rules of this file: **async-signal-safe**. No `errno`, no thread locals, no allocation, no lock, no
//! panic (so no indexing, no plain arithmetic that may overflow), no call through the loader.

use std::ffi::{CStr, c_char};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32};

use super::arch::syscall;
use super::vdso;

/// The negated error number of a failed call, made positive.
pub(super) type Errno = i32;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(super) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    if !vdso::clock_gettime(&mut time) {
        let place = (&raw mut time) as usize;
        // SAFETY: writes one `timespec`.
        unsafe { syscall(libc::SYS_clock_gettime, [libc::CLOCK_MONOTONIC as usize, place, 0, 0, 0, 0]) };
    }
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

fn timespec(nanoseconds: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanoseconds % 1_000_000_000) as libc::c_long,
    }
}

pub(super) fn gettid() -> i32 {
    // SAFETY: no arguments.
    unsafe { syscall(libc::SYS_gettid, [0; 6]) as i32 }
}

pub(super) fn getpid() -> i32 {
    // SAFETY: no arguments.
    unsafe { syscall(libc::SYS_getpid, [0; 6]) as i32 }
}

pub(super) fn getppid() -> i32 {
    // SAFETY: no arguments.
    unsafe { syscall(libc::SYS_getppid, [0; 6]) as i32 }
}

/// Sends `signal` to a thread of process `pid`; 0 only asks whether it is there.
#[inline(always)]
pub(super) fn tgkill(pid: i32, tid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: no memory is involved; the caller has a handler installed or sends 0.
    check(unsafe { syscall(libc::SYS_tgkill, [pid as usize, tid as usize, signal as usize, 0, 0, 0]) })
        .map(|_| ())
}

/// Sleeps while `*word == expected`, for at most `nanoseconds`; may wake up for nothing.
pub(super) fn futex_wait(word: &AtomicU32, expected: u32, nanoseconds: u64) {
    let timeout = timespec(nanoseconds);
    // Not FUTEX_PRIVATE_FLAG: parent and forked child share some of these words.
    // SAFETY: `word` lives as long as the call; the timeout is read only.
    unsafe {
        syscall(
            libc::SYS_futex,
            [
                word.as_ptr() as usize,
                libc::FUTEX_WAIT as usize,
                expected as usize,
                (&raw const timeout) as usize,
                0,
                0,
            ],
        )
    };
}

/// Sleeps while `*word == expected`, until `deadline` ([`now`]) at the latest, as one of the `set`s that
/// [`futex_wake_among`] wakes; may wake up for nothing.
pub(super) fn futex_wait_among(word: &AtomicU32, expected: u32, deadline: u64, set: u32) {
    let deadline = timespec(deadline);
    // SAFETY: `word` lives as long as the call; the time is read only.
    unsafe {
        syscall(
            libc::SYS_futex,
            [
                word.as_ptr() as usize,
                (libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG) as usize,
                expected as usize,
                (&raw const deadline) as usize,
                0,
                set as usize,
            ],
        )
    };
}

/// Wakes those of `sets` who sleep on `word`, as many as `most`, and says how many.
pub(super) fn futex_wake_among(word: &AtomicU32, most: u32, sets: u32) -> u32 {
    // SAFETY: the kernel takes the address as a key and reads nothing.
    let woken = unsafe {
        syscall(
            libc::SYS_futex,
            [
                word.as_ptr() as usize,
                (libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG) as usize,
                most as usize,
                0,
                0,
                sets as usize,
            ],
        )
    };
    check(woken).map_or(0, |woken| woken as u32)
}

/// Wakes all who sleep on `word`.
pub(super) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the kernel takes the address as a key and reads nothing.
    unsafe {
        syscall(
            libc::SYS_futex,
            [word.as_ptr() as usize, libc::FUTEX_WAKE as usize, i32::MAX as usize, 0, 0, 0],
        )
    };
}

/// Has writable memory made ready to be written, as the first write to each page would (Linux 5.14).
pub(super) fn populate(start: u64, len: u64) {
    // SAFETY: changes no memory, and fails where none is mapped.
    unsafe {
        let advice = libc::MADV_POPULATE_WRITE as usize;
        syscall(libc::SYS_madvise, [start as usize, len as usize, advice, 0, 0, 0])
    };
}

/// An open file, closed when dropped by a raw system call: `OwnedFd` calls libc, which writes `errno`.
#[derive(Debug)]
pub(super) struct Fd(i32);

impl Fd {
    /// For the calls of this file.
    pub(super) fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open until this is dropped.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }

    /// The number, which the caller closes.
    pub(super) fn into_raw(self) -> i32 {
        let Self(fd) = self;
        std::mem::forget(self);
        fd
    }

    /// For code that may call libc.
    pub(super) fn into_owned(self) -> OwnedFd {
        // SAFETY: open, and this was the only owner.
        unsafe { OwnedFd::from_raw_fd(self.into_raw()) }
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: this is the only owner.
        unsafe { syscall(libc::SYS_close, [self.0 as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Opens for reading, or writing, close-on-exec.
pub(super) fn open(path: &CStr, flags: i32) -> Result<Fd, Errno> {
    // SAFETY: `path` ends with a NUL.
    unsafe { open_at(path.as_ptr(), flags) }
}

/// The same for a path by its address: `CStr::from_ptr` calls libc.
///
/// # Safety
/// `path` is readable up to a NUL, or null: then the call fails.
pub(super) unsafe fn open_at(path: *const c_char, flags: i32) -> Result<Fd, Errno> {
    let flags = (flags | libc::O_CLOEXEC) as usize;
    // SAFETY: by the contract above.
    let fd = unsafe { syscall(libc::SYS_openat, [libc::AT_FDCWD as usize, path as usize, flags, 0, 0, 0]) };
    check(fd).map(|fd| Fd(fd as i32))
}

pub(super) fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, Errno> {
    let fd = fd.as_raw_fd() as usize;
    // SAFETY: `buf` is writable for its length.
    check(unsafe { syscall(libc::SYS_read, [fd, buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0]) })
}

/// # Safety
/// `buf` is writable for `len` bytes, and `fd` is a file of ours.
pub(super) unsafe fn pread(fd: i32, buf: *mut u8, len: usize, offset: u64) -> Result<usize, Errno> {
    // SAFETY: by the contract above.
    check(unsafe { syscall(libc::SYS_pread64, [fd as usize, buf as usize, len, offset as usize, 0, 0]) })
}

/// Writes memory at `address`, which may not be mapped: then EFAULT, or fewer bytes.
pub(super) fn write(fd: BorrowedFd<'_>, address: u64, len: usize) -> Result<usize, Errno> {
    let fd = fd.as_raw_fd() as usize;
    // SAFETY: the kernel reads; it reports unmapped memory, it does not fault.
    check(unsafe { syscall(libc::SYS_write, [fd, address as usize, len, 0, 0, 0]) })
}

/// Directory entries, in the kernel's `linux_dirent64` layout.
pub(super) fn getdents(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, Errno> {
    let fd = fd.as_raw_fd() as usize;
    // SAFETY: `buf` is writable for its length.
    check(unsafe { syscall(libc::SYS_getdents64, [fd, buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0]) })
}

/// The number of links of an open file; of `/proc/self/task`, two more than there are threads
/// (`proc_task_getattr` in the kernel's fs/proc/base.c).
#[allow(clippy::useless_conversion, reason = "32 bits on aarch64")]
pub(super) fn links(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: writes one `stat`, for which zeroes are valid before.
    unsafe {
        check(syscall(libc::SYS_fstat, [fd.as_raw_fd() as usize, stat.as_mut_ptr() as usize, 0, 0, 0, 0]))?;
        Ok(stat.assume_init().st_nlink.into())
    }
}

/// Copies this process's own memory without faulting.
///
/// # Safety
/// `buf` is writable for `len` bytes.
pub(super) unsafe fn process_vm_readv(
    pid: i32,
    address: u64,
    buf: *mut u8,
    len: usize,
) -> Result<usize, Errno> {
    let local = [buf as usize, len];
    let remote = [address as usize, len];
    // SAFETY: two `iovec`s of one element; the local one is writable by the contract above.
    check(unsafe {
        syscall(
            libc::SYS_process_vm_readv,
            [pid as usize, local.as_ptr() as usize, 1, remote.as_ptr() as usize, 1, 0],
        )
    })
}

/// Sets the calling thread's blocked signals and returns those before.
#[inline(always)]
pub(super) fn set_blocked_signals(mask: u64) -> u64 {
    let mut before = 0_u64;
    // SAFETY: two kernel signal sets of 8 bytes.
    unsafe {
        syscall(
            libc::SYS_rt_sigprocmask,
            [libc::SIG_SETMASK as usize, (&raw const mask) as usize, (&raw mut before) as usize, 8, 0, 0],
        )
    };
    before
}

/// Which open files a forked child has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChildFiles {
    /// Copies of the calling thread's.
    Copied,
    /// The table of the calling thread: what either opens or closes, both do.
    Shared,
}

/// `fork` by `clone`: 0 in the child. Where files are shared, `pidfd` receives the child's (Linux 5.2 and later).
///
/// # Safety
/// The child makes nothing but the calls of this file and ends with [`exit`].
#[inline(always)]
pub(super) unsafe fn fork(files: ChildFiles, pidfd: &AtomicI32) -> Result<i32, Errno> {
    // No signal at exit: the program's own SIGCHLD handling never sees this child.
    let flags = match files {
        ChildFiles::Copied => 0,
        ChildFiles::Shared => (libc::CLONE_FILES | libc::CLONE_PIDFD) as usize,
    };
    // SAFETY: without CLONE_VM this is a fork; `pidfd` is written by the kernel in the parent's memory.
    check(unsafe { syscall(libc::SYS_clone, super::arch::clone_arguments(flags, pidfd.as_ptr() as usize)) })
        .map(|pid| pid as i32)
}

/// Gives the calling thread, or process, a table of open files of its own, without those of `range` (Linux 5.9).
///
/// The kernel copies the table up to `range`, of which it leaves out less than it might: the lowest 64 files, if they
/// are in `range`, are copied and then closed (`sane_fdtable_size`, fs/file.c).
///
/// # Safety
/// The caller, and what it calls, uses none of these files any more.
pub(super) unsafe fn unshare_files(range: std::ops::RangeInclusive<u32>) -> Result<(), Errno> {
    /// linux/close_range.h
    const CLOSE_RANGE_UNSHARE: usize = 1 << 1;
    let (first, last) = (*range.start() as usize, *range.end() as usize);
    // SAFETY: by the contract above; no memory is involved.
    let closed = unsafe { syscall(libc::SYS_close_range, [first, last, CLOSE_RANGE_UNSHARE, 0, 0, 0]) };
    check(closed).map(|_| ())
}

/// Has the kernel kill the calling process when the thread ends that has forked it.
pub(super) fn die_with_parent() {
    let arguments = [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0, 0];
    // SAFETY: no memory is involved.
    unsafe { syscall(libc::SYS_prctl, arguments) };
}

/// # Safety
/// Nothing in the calling process uses the memory at `range`.
pub(super) unsafe fn unmap(range: Range<u64>) {
    let len = range.end.saturating_sub(range.start) as usize;
    // SAFETY: by the contract above.
    unsafe { syscall(libc::SYS_munmap, [range.start as usize, len, 0, 0, 0, 0]) };
}

/// The handler that stands for `signal`.
pub(super) fn action(signal: i32) -> Result<libc::sighandler_t, Errno> {
    // The kernel's `struct sigaction` (include/linux/signal_types.h): handler, flags, restorer, set.
    let mut action = [0_usize; 4];
    let place = (&raw mut action) as usize;
    // SAFETY: only asks; four words are written.
    check(unsafe { syscall(libc::SYS_rt_sigaction, [signal as usize, 0, place, 8, 0, 0]) })?;
    let [handler, ..] = action;
    Ok(handler)
}

/// Has `signal` do what it does by default, unless another handler than `ours` is installed.
pub(super) fn reset_action(signal: i32, ours: libc::sighandler_t) {
    // As above; `SIG_DFL` is 0, and needs neither flags nor restorer.
    let default = [libc::SIG_DFL, 0, 0, 0];
    let mut before = [0_usize; 4];
    // SAFETY: four words are read and four are written; the default action runs no code of ours, and what the kernel
    // has written is an action that the program has installed.
    unsafe {
        let (new, old) = ((&raw const default) as usize, (&raw mut before) as usize);
        let reset = syscall(libc::SYS_rt_sigaction, [signal as usize, new, old, 8, 0, 0]);
        let [handler, ..] = before;
        if reset == 0 && handler != ours && handler != libc::SIG_DFL {
            // The program has installed it a moment ago.
            syscall(libc::SYS_rt_sigaction, [signal as usize, old, 0, 8, 0, 0]);
        }
    }
}

pub(super) fn set_name(name: &CStr) {
    // SAFETY: `name` ends with a NUL.
    unsafe { syscall(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name.as_ptr() as usize, 0, 0, 0, 0]) };
}

/// No core file of the calling process, whatever ends it.
pub(super) fn set_undumpable() {
    // SAFETY: no memory is involved.
    unsafe { syscall(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 0, 0, 0, 0, 0]) };
}

/// Ends the calling process without running anything.
pub(super) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: does not return.
        unsafe { syscall(libc::SYS_exit_group, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

#[inline(always)]
fn check(result: isize) -> Result<usize, Errno> {
    if result < 0 { Err(result.wrapping_neg() as Errno) } else { Ok(result as usize) }
}

/// A pipe: its read end and its write end. Neither ever waits for the other.
pub(super) fn pipe() -> Result<[Fd; 2], Errno> {
    let mut ends = [-1_i32; 2];
    let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
    // SAFETY: writes two descriptors.
    check(unsafe { syscall(libc::SYS_pipe2, [ends.as_mut_ptr() as usize, flags, 0, 0, 0, 0]) })
        .map(|_| ends.map(Fd))
}
