//! System calls of the helper process: ptrace, waiting, timers.
//!
//! The helper is a fork of a process that may have several threads: **no allocation, no lock, no panic** in what it calls.

#![allow(clippy::unnecessary_cast, reason = "the types of ptrace's constants differ between libcs")]

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;
use std::time::{Duration, Instant};

use super::arch::{self, Registers};

/// An error number, positive.
pub(super) type Errno = i32;

/// `PTRACE_EVENT_STOP` (linux/ptrace.h): a stop by PTRACE_INTERRUPT, the first stop of a new process, or a group-stop.
const EVENT_STOP: i32 = 128;
/// `NT_PRSTATUS` (linux/elf.h).
const GENERAL: usize = 1;

fn call(number: libc::c_long, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: each caller in this file passes arguments for which the call touches no other memory.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result >= 0 {
        return Ok(result as usize);
    }
    // SAFETY: the place of the calling thread's error number.
    Err(unsafe { *libc::__errno_location() })
}

fn ptrace(request: u32, tid: i32, address: usize, data: usize) -> Result<usize, Errno> {
    call(libc::SYS_ptrace, [request as usize, tid as usize, address, data, 0, 0])
}

/// Begins to trace a thread, without stopping it.
pub(super) fn seize(tid: i32) -> Result<(), Errno> {
    ptrace(libc::PTRACE_SEIZE as u32, tid, 0, 0).map(drop)
}

/// Stops a traced thread, as soon as it gets a processor.
pub(super) fn interrupt(tid: i32) -> Result<(), Errno> {
    ptrace(libc::PTRACE_INTERRUPT as u32, tid, 0, 0).map(drop)
}

/// Resumes a stopped thread, and no longer traces it. Signal 0 is none.
pub(super) fn detach(tid: i32, signal: i32) -> Result<(), Errno> {
    ptrace(libc::PTRACE_DETACH as u32, tid, 0, signal as usize).map(drop)
}

/// Resumes a stopped thread until it enters or leaves a system call.
pub(super) fn resume_to_call(tid: i32) -> Result<(), Errno> {
    ptrace(libc::PTRACE_SYSCALL as u32, tid, 0, 0).map(drop)
}

/// Sets `PTRACE_O_*` of a stopped thread.
pub(super) fn set_options(tid: i32, options: i32) -> Result<(), Errno> {
    ptrace(libc::PTRACE_SETOPTIONS as u32, tid, 0, options as usize).map(drop)
}

/// The new process, in the stop `PTRACE_EVENT_CLONE`.
pub(super) fn event_message(tid: i32) -> Result<i32, Errno> {
    let mut message: libc::c_ulong = 0;
    ptrace(libc::PTRACE_GETEVENTMSG as u32, tid, 0, (&raw mut message) as usize)?;
    i32::try_from(message).ok().filter(|child| *child > 0).ok_or(libc::EPROTO)
}

pub(super) fn registers(tid: i32) -> Result<Registers, Errno> {
    let mut registers = std::mem::MaybeUninit::<Registers>::zeroed();
    let mut part = libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: size_of::<Registers>() };
    ptrace(libc::PTRACE_GETREGSET as u32, tid, GENERAL, (&raw mut part) as usize)?;
    // A process of 32 bits has other, shorter registers.
    if part.iov_len != size_of::<Registers>() {
        return Err(libc::EPROTO);
    }
    // SAFETY: all fields are integers.
    Ok(unsafe { registers.assume_init() })
}

pub(super) fn set_registers(tid: i32, registers: &Registers) -> Result<(), Errno> {
    let base = ptr::from_ref(registers).cast_mut().cast();
    let mut part = libc::iovec { iov_base: base, iov_len: size_of::<Registers>() };
    ptrace(libc::PTRACE_SETREGSET as u32, tid, GENERAL, (&raw mut part) as usize).map(drop)
}

/// Copies the registers for floating point and vectors. Returns their length.
pub(super) fn extended_registers(tid: i32, buf: &mut [u8]) -> Result<usize, Errno> {
    register_set(tid, arch::EXTENDED_SET, buf)
}

/// Copies a set of registers, which has the number of a note (`NT_*`). Returns its length.
pub(super) fn register_set(tid: i32, set: usize, buf: &mut [u8]) -> Result<usize, Errno> {
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    ptrace(libc::PTRACE_GETREGSET as u32, tid, set, (&raw mut part) as usize)?;
    Ok(part.iov_len)
}

/// The signals that a stopped thread blocks.
pub(super) fn blocked_signals(tid: i32) -> Result<u64, Errno> {
    let mut mask = 0_u64;
    ptrace(libc::PTRACE_GETSIGMASK as u32, tid, size_of::<u64>(), (&raw mut mask) as usize)?;
    Ok(mask)
}

/// Whether the signal that a thread is about to receive was caused by its own instruction.
pub(super) fn is_own_fault(tid: i32) -> bool {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let read = ptrace(libc::PTRACE_GETSIGINFO as u32, tid, 0, info.as_mut_ptr() as usize);
    // SAFETY: the kernel has filled it; all its fields are integers.
    let info = unsafe { info.assume_init() };
    let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP];
    read.is_ok() && info.si_code > 0 && faults.contains(&info.si_signo)
}

/// How a traced thread was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// By PTRACE_INTERRUPT; the first stop of a new process.
    Interrupted,
    /// With its whole process, by a signal.
    Group,
    /// At the beginning or at the end of a system call.
    Call,
    /// After it made a new process.
    Clone,
    /// Before this signal is delivered.
    Signal(i32),
    /// Another event.
    Other,
    /// It does not exist any more.
    Ended,
}

impl Stop {
    fn decode(status: i32) -> Self {
        if !libc::WIFSTOPPED(status) {
            return Self::Ended;
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            EVENT_STOP if signal == libc::SIGTRAP => Self::Interrupted,
            EVENT_STOP => Self::Group,
            libc::PTRACE_EVENT_CLONE => Self::Clone,
            0 if signal == libc::SIGTRAP | 0x80 => Self::Call,
            0 => Self::Signal(signal),
            _ => Self::Other,
        }
    }

    /// The signal with which a thread in this stop is resumed.
    pub(super) fn signal(self) -> i32 {
        match self {
            Self::Signal(signal) => signal,
            _ => 0,
        }
    }
}

/// The stop of a traced thread, if it has stopped; returns at once.
pub(super) fn poll_stop(tid: i32) -> Option<Stop> {
    let mut status = 0_i32;
    let options = (libc::__WALL | libc::WNOHANG) as usize;
    match call(libc::SYS_wait4, [tid as usize, (&raw mut status) as usize, options, 0, 0, 0]) {
        Ok(0) | Err(libc::EINTR) => None,
        Ok(_) => Some(Stop::decode(status)),
        Err(_) => Some(Stop::Ended),
    }
}

/// A traced thread that has stopped or ended, if there is one; returns at once.
pub(super) fn poll_any_stop() -> Option<(i32, Stop)> {
    let mut status = 0_i32;
    let options = (libc::__WALL | libc::WNOHANG) as usize;
    let found = call(libc::SYS_wait4, [usize::MAX, (&raw mut status) as usize, options, 0, 0, 0]).ok()?;
    i32::try_from(found).ok().filter(|tid| *tid > 0).map(|tid| (tid, Stop::decode(status)))
}

/// Waits until a traced thread stops, until `deadline` at the latest.
pub(super) fn wait_for_stop(tid: i32, deadline: Instant) -> Option<Stop> {
    loop {
        if let Some(stop) = poll_stop(tid) {
            return Some(stop);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        wait_for_child_signal(left.min(Duration::from_millis(2)));
    }
}

/// Waits for SIGCHLD, which the kernel sends at each stop of a traced thread. It must be blocked.
pub(super) fn wait_for_child_signal(time: Duration) {
    let set = 1_u64 << (libc::SIGCHLD - 1);
    let time = libc::timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as libc::c_long };
    let (set, time) = ((&raw const set) as usize, (&raw const time) as usize);
    let _signal_or_timeout = call(libc::SYS_rt_sigtimedwait, [set, 0, time, size_of::<u64>(), 0, 0]);
}

#[cfg(test)]
pub(super) fn own_pid() -> i32 {
    call(libc::SYS_getpid, [0; 6]).map_or(0, |pid| pid as i32)
}

/// The process that started the calling one; another one after it has ended.
pub(super) fn parent() -> i32 {
    call(libc::SYS_getppid, [0; 6]).map_or(0, |pid| pid as i32)
}

pub(super) fn kill(pid: i32, signal: i32) {
    // 0 and negative numbers are groups of processes.
    if pid > 0 {
        let _it_may_have_ended = call(libc::SYS_kill, [pid as usize, signal as usize, 0, 0, 0, 0]);
    }
}

/// Blocks all signals of the calling thread, or restores the set `before`. Returns the previous set.
pub(super) fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    let (new, old) = ((&raw const mask) as usize, (&raw mut before) as usize);
    let how = libc::SIG_SETMASK as usize;
    let _cannot_fail = call(libc::SYS_rt_sigprocmask, [how, new, old, size_of::<u64>(), 0, 0]);
    before
}

/// Has the kernel send SIGCHLD to this process for each stop of a traced thread, whatever the program had set.
pub(super) fn accept_child_signals() {
    // The kernel's `struct sigaction`: handler (SIG_DFL), flags, restorer, mask.
    let action = [0_usize; 4];
    let arguments = [libc::SIGCHLD as usize, (&raw const action) as usize, 0, size_of::<u64>(), 0, 0];
    let _cannot_fail = call(libc::SYS_rt_sigaction, arguments);
}

/// Separates the calling process from the terminal: Ctrl-C and Ctrl-Z there do not reach it.
pub(super) fn new_session() {
    let _it_is_new = call(libc::SYS_setsid, [0; 6]);
}

pub(super) fn set_name(name: &std::ffi::CStr) {
    let _cannot_fail =
        call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name.as_ptr() as usize, 0, 0, 0, 0]);
}

/// Closes all descriptors but `kept`, which are in ascending order.
pub(super) fn close_others(kept: &[i32]) {
    let mut first = 0_i32;
    for descriptor in kept {
        if *descriptor > first {
            let last = descriptor.saturating_sub(1);
            let _needs_linux_5_9 = call(libc::SYS_close_range, [first as usize, last as usize, 0, 0, 0, 0]);
        }
        first = descriptor.saturating_add(1);
    }
    let _needs_linux_5_9 = call(libc::SYS_close_range, [first as usize, u32::MAX as usize, 0, 0, 0, 0]);
}

/// Gives the calling process a processor before all others, if it may have that: a thread that it has just resumed
/// would otherwise run instead of it while other threads are stopped.
pub(super) fn run_first(first: bool) {
    let priority = i32::from(first);
    let policy = if first { libc::SCHED_FIFO } else { libc::SCHED_OTHER };
    let arguments = [0, policy as usize, (&raw const priority) as usize, 0, 0, 0];
    let _needs_a_privilege = call(libc::SYS_sched_setscheduler, arguments);
}

/// Ends the calling process.
pub(super) fn exit(code: i32) -> ! {
    loop {
        let _does_not_return = call(libc::SYS_exit_group, [code as usize, 0, 0, 0, 0, 0]);
    }
}

/// Forks the calling process. Returns 0 in the child.
///
/// # Safety
/// The child makes no call that needs what another thread of the parent holds, and ends with [`exit`].
pub(super) unsafe fn fork() -> Result<i32, Errno> {
    // Without a signal at its end, so that the program's SIGCHLD handling and its `wait` do not see this child. Not by
    // libc's `fork`, which runs handlers of the program.
    call(libc::SYS_clone, [0; 6]).map(|pid| pid as i32)
}

/// Waits for a child that [`fork`] made. Returns whether it has ended.
pub(super) fn reap(pid: i32, block: bool) -> bool {
    let options = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        match call(libc::SYS_wait4, [pid as usize, 0, options as usize, 0, 0, 0]) {
            Ok(0) => return false,
            Err(libc::EINTR) => {}
            _ => return true,
        }
    }
}

/// Reads memory of another process.
pub(super) fn read_memory(memory: BorrowedFd<'_>, address: u64, buf: &mut [u8]) -> usize {
    let descriptor = memory.as_raw_fd() as usize;
    let arguments = [descriptor, buf.as_mut_ptr() as usize, buf.len(), address as usize, 0, 0];
    call(libc::SYS_pread64, arguments).unwrap_or(0)
}

/// Writes memory of another process. Returns whether all was written.
pub(super) fn write_memory(memory: BorrowedFd<'_>, address: u64, bytes: &[u8]) -> bool {
    let descriptor = memory.as_raw_fd() as usize;
    let arguments = [descriptor, bytes.as_ptr() as usize, bytes.len(), address as usize, 0, 0];
    call(libc::SYS_pwrite64, arguments) == Ok(bytes.len())
}

/// A timer of the kernel that kills the calling process by SIGKILL, whatever state it is in: also if it was stopped.
/// The kernel then resumes all threads that it holds.
pub(super) struct Watchdog(i32);

impl Watchdog {
    pub(super) fn new() -> Result<Self, Errno> {
        // SAFETY: zeroes are valid for integers and null pointers.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer = 0_i32;
        let (event, place) = ((&raw mut event) as usize, (&raw mut timer) as usize);
        call(libc::SYS_timer_create, [libc::CLOCK_MONOTONIC as usize, event, place, 0, 0, 0])?;
        Ok(Self(timer))
    }

    /// Kills the process after `time`; zero is never.
    pub(super) fn set(&self, time: Duration) {
        let nothing = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value =
            libc::timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as libc::c_long };
        let setting = libc::itimerspec { it_interval: nothing, it_value: value };
        let arguments = [self.0 as usize, 0, (&raw const setting) as usize, 0, 0, 0];
        let _cannot_fail = call(libc::SYS_timer_settime, arguments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_stop_is_decoded() {
        let cases = [
            (0x0080_057f, Stop::Interrupted),
            (0x0080_137f, Stop::Group),
            (0x0003_057f, Stop::Clone),
            (0x0000_857f, Stop::Call),
            (0x0000_0b7f, Stop::Signal(libc::SIGSEGV)),
            (0x0006_057f, Stop::Other),
            (0x0000_0009, Stop::Ended),
            (0x0000_0100, Stop::Ended),
        ];
        for (status, stop) in cases {
            assert_eq!(Stop::decode(status), stop, "{status:#x}");
        }
    }
}
