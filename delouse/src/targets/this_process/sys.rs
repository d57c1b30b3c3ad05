//! Raw system calls, for the signal handler, the window in which threads are stopped, and the forked child.
//!
//! Rules of this file: **async-signal-safe**. No `errno`, no thread locals, no allocation, no lock, no
//! panic (so no indexing, no plain arithmetic that may overflow), no call through the loader.

use std::ffi::{CStr, c_char};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32};

use super::arch::syscall;
use super::vdso;

/// An error number, positive.
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
        tv_sec: (nanoseconds / 1_000_000_000) as _,
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

/// Sends `signal` to a thread of process `pid`. Signal 0 only checks that the thread exists.
#[inline(always)]
pub(super) fn tgkill(pid: i32, tid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: no memory is involved; the caller has a handler installed or sends 0.
    check(unsafe { syscall(libc::SYS_tgkill, [pid as usize, tid as usize, signal as usize, 0, 0, 0]) })
        .map(|_| ())
}

/// futex(2), with a bit set where the operation has one. `time` is when the wait ends, or how long it takes.
fn futex(word: &AtomicU32, operation: i32, value: u32, time: Option<&libc::timespec>, set: u32) -> isize {
    let time = time.map_or(0, |time| (&raw const *time) as usize);
    let arguments = [word.as_ptr() as usize, operation as usize, value as usize, time, 0, set as usize];
    // SAFETY: `word` and `time` live as long as the call, which only reads them.
    unsafe { syscall(libc::SYS_futex, arguments) }
}

/// Waits while `*word == expected`, for at most `nanoseconds`. May return early.
pub(super) fn futex_wait(word: &AtomicU32, expected: u32, nanoseconds: u64) {
    // Without FUTEX_PRIVATE_FLAG, because a parent and its forked child share some of these words.
    futex(word, libc::FUTEX_WAIT, expected, Some(&timespec(nanoseconds)), 0);
}

/// Waits while `*word == expected`, until `deadline` ([`now`]) at the latest. [`futex_wake_among`] wakes waiters by the bits
/// in their `set`. May return early.
pub(super) fn futex_wait_among(word: &AtomicU32, expected: u32, deadline: u64, set: u32) {
    let operation = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
    futex(word, operation, expected, Some(&timespec(deadline)), set);
}

/// Wakes at most `most` of the threads that wait on `word` with a bit of `sets`. Returns how many.
pub(super) fn futex_wake_among(word: &AtomicU32, most: u32, sets: u32) -> u32 {
    let operation = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;
    check(futex(word, operation, most, None, sets)).map_or(0, |woken| woken as u32)
}

/// Wakes all threads that wait on `word`.
pub(super) fn futex_wake(word: &AtomicU32) {
    futex(word, libc::FUTEX_WAKE, i32::MAX as u32, None, 0);
}

/// Prefaults writable memory: allocates or copies its pages, as the first write to each would (Linux 5.14).
pub(super) fn populate(start: u64, len: u64) {
    // SAFETY: does not change the contents of memory, and fails if it is not mapped.
    unsafe {
        let advice = libc::MADV_POPULATE_WRITE as usize;
        syscall(libc::SYS_madvise, [start as usize, len as usize, advice, 0, 0, 0])
    };
}

/// An open file, closed on drop. Unlike `OwnedFd`, does not call libc, which would write `errno`.
#[derive(Debug)]
pub(super) struct Fd(i32);

impl Fd {
    /// For the calls in this file.
    pub(super) fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open until this is dropped.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }

    /// The descriptor, which the caller has to close.
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

/// Opens a file, close-on-exec.
pub(super) fn open(path: &CStr, flags: i32) -> Result<Fd, Errno> {
    // SAFETY: `path` ends with a NUL.
    unsafe { open_at(path.as_ptr(), flags) }
}

/// The same, with the address of a path. (`CStr::from_ptr` would call libc.)
///
/// # Safety
/// `path` is NUL-terminated, or null: then the call fails.
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
/// `buf` is writable for `len` bytes, and `fd` is a file of delouse.
pub(super) unsafe fn pread(fd: i32, buf: *mut u8, len: usize, offset: u64) -> Result<usize, Errno> {
    // SAFETY: by the contract above.
    check(unsafe { syscall(libc::SYS_pread64, [fd as usize, buf as usize, len, offset as usize, 0, 0]) })
}

/// Writes the memory at `address` to a file. Fails with EFAULT, or writes fewer bytes, if it is not mapped.
pub(super) fn write(fd: BorrowedFd<'_>, address: u64, len: usize) -> Result<usize, Errno> {
    let fd = fd.as_raw_fd() as usize;
    // SAFETY: the kernel only reads the memory, and returns an error if it is not mapped.
    check(unsafe { syscall(libc::SYS_write, [fd, address as usize, len, 0, 0, 0]) })
}

/// Reads directory entries, in the layout `linux_dirent64`.
pub(super) fn getdents(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, Errno> {
    let fd = fd.as_raw_fd() as usize;
    // SAFETY: `buf` is writable for its length.
    check(unsafe { syscall(libc::SYS_getdents64, [fd, buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0]) })
}

/// The link count of an open file. That of `/proc/self/task` is the number of threads plus two (`proc_task_getattr` in the
/// kernel's fs/proc/base.c).
#[allow(clippy::useless_conversion, reason = "32 bits on aarch64")]
pub(super) fn links(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: writes one `stat`, for which zeroes are valid.
    unsafe {
        check(syscall(libc::SYS_fstat, [fd.as_raw_fd() as usize, stat.as_mut_ptr() as usize, 0, 0, 0, 0]))?;
        Ok(stat.assume_init().st_nlink.into())
    }
}

/// Copies memory of this process. Fails if it is not mapped.
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

/// Sets the calling thread's blocked signals. Returns the previous set.
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

/// The open files of a forked child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChildFiles {
    /// A copy of the calling thread's table.
    Copied,
    /// The calling thread's table: files that one opens or closes, the other opens or closes as well.
    Shared,
}

/// Forks by `clone`. Returns 0 in the child. If files are shared, `pidfd` receives the child's pidfd (Linux 5.2 and later).
///
/// # Safety
/// The child only makes the calls in this file, and ends with [`exit`].
#[inline(always)]
pub(super) unsafe fn fork(files: ChildFiles, pidfd: &AtomicI32) -> Result<i32, Errno> {
    // Without a signal at exit, so that the program's SIGCHLD handling does not see this child.
    let flags = match files {
        ChildFiles::Copied => 0,
        ChildFiles::Shared => (libc::CLONE_FILES | libc::CLONE_PIDFD) as usize,
    };
    // SAFETY: without CLONE_VM this is a fork; the kernel writes `pidfd` in the parent's memory.
    check(unsafe { syscall(libc::SYS_clone, super::arch::clone_arguments(flags, pidfd.as_ptr() as usize)) })
        .map(|pid| pid as i32)
}

/// Gives the calling thread its own table of open files, without the descriptors in `range` (Linux 5.9).
///
/// The kernel copies the descriptors below `range`. If `range` includes the lowest 64, it copies these too and then closes
/// the copies (`sane_fdtable_size`, fs/file.c).
///
/// # Safety
/// The calling thread does not use the descriptors in `range` afterwards.
pub(super) unsafe fn unshare_files(range: std::ops::RangeInclusive<u32>) -> Result<(), Errno> {
    /// linux/close_range.h
    const CLOSE_RANGE_UNSHARE: usize = 1 << 1;
    let (first, last) = (*range.start() as usize, *range.end() as usize);
    // SAFETY: by the contract above; no memory is involved.
    let closed = unsafe { syscall(libc::SYS_close_range, [first, last, CLOSE_RANGE_UNSHARE, 0, 0, 0]) };
    check(closed).map(|_| ())
}

/// Has the kernel kill the calling process when the thread that forked it exits.
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

/// The handler that is installed for `signal`.
pub(super) fn action(signal: i32) -> Result<libc::sighandler_t, Errno> {
    // The kernel's `struct sigaction` (include/linux/signal_types.h): handler, flags, restorer, set.
    let mut action = [0_usize; 4];
    let place = (&raw mut action) as usize;
    // SAFETY: changes nothing; the kernel writes four words.
    check(unsafe { syscall(libc::SYS_rt_sigaction, [signal as usize, 0, place, 8, 0, 0]) })?;
    let [handler, ..] = action;
    Ok(handler)
}

/// Restores the default action of `signal`, unless another handler than `ours` is installed.
pub(super) fn reset_action(signal: i32, ours: libc::sighandler_t) {
    // The layout is as above. `SIG_DFL` is 0, and needs neither flags nor restorer.
    let default = [libc::SIG_DFL, 0, 0, 0];
    let mut before = [0_usize; 4];
    // SAFETY: the kernel reads four words and writes four. The default action runs no code, and the previous action, which
    // may be restored, is one that the program has installed.
    unsafe {
        let (new, old) = ((&raw const default) as usize, (&raw mut before) as usize);
        let reset = syscall(libc::SYS_rt_sigaction, [signal as usize, new, old, 8, 0, 0]);
        let [handler, ..] = before;
        if reset == 0 && handler != ours && handler != libc::SIG_DFL {
            // The program has installed another handler meanwhile: restore it.
            syscall(libc::SYS_rt_sigaction, [signal as usize, old, 0, 8, 0, 0]);
        }
    }
}

pub(super) fn set_name(name: &CStr) {
    // SAFETY: `name` ends with a NUL.
    unsafe { syscall(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name.as_ptr() as usize, 0, 0, 0, 0]) };
}

/// Prevents a core file of the calling process.
pub(super) fn set_undumpable() {
    // SAFETY: no memory is involved.
    unsafe { syscall(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 0, 0, 0, 0, 0]) };
}

/// Ends the calling process without running exit handlers.
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

/// Opens a non-blocking pipe. Returns its read end and its write end.
pub(super) fn pipe() -> Result<[Fd; 2], Errno> {
    let mut ends = [-1_i32; 2];
    let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
    // SAFETY: writes two descriptors.
    check(unsafe { syscall(libc::SYS_pipe2, [ends.as_mut_ptr() as usize, flags, 0, 0, 0, 0]) })
        .map(|_| ends.map(Fd))
}
