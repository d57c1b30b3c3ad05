//! x86_64.

mod frame;

use super::super::frame::{Gadgets, Instructions};
use super::super::refusal::Refusal;
use super::INTERRUPTED;
use crate::targets::other_process::arch::WORDS;
use crate::targets::other_process::task_files::Sleep;

pub(in super::super) use frame::{LARGEST as LARGEST_FRAME, build as build_frame};

/// The registers of a thread.
pub(in super::super) type Registers = libc::user_regs_struct;

const _: () = assert!(size_of::<Registers>() == 8 * WORDS);

/// `NT_X86_XSTATE` (linux/elf.h): the registers for floating point and vectors, in the layout of XSAVE.
pub(in super::super) const EXTENDED_SET: usize = 0x202;
/// Room for them: 11 KB with AMX.
pub(in super::super) const EXTENDED_ROOM: usize = 12 << 10;
/// The selector of 64-bit code (asm/segment.h).
const CODE_64: u64 = 0x33;

/// The call in which a runtime waits for events.
pub(in super::super) const EPOLL: i64 = libc::SYS_epoll_wait;

/// The call that waits for several files, which the kernel restarts.
pub(super) const POLL: i64 = libc::SYS_poll;

/// Instructions that libc has.
pub(in super::super) const fn instructions() -> Instructions {
    Instructions {
        // `syscall; ret`
        call: &[0x0f, 0x05, 0xc3],
        // `mov $15, %rax; syscall`, the same bytes in glibc and musl
        restore: &[0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05],
        // `mov $60, %eax; syscall`, or with 231
        exit: &[&[0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05], &[0xb8, 0xe7, 0x00, 0x00, 0x00, 0x0f, 0x05]],
        alignment: 1,
    }
}

pub(in super::super) fn stack_pointer(registers: &Registers) -> u64 {
    registers.rsp
}

/// Always `None`: the thread pointer is one of the registers.
pub(in super::super) fn thread_pointer(_tid: i32) -> Option<u64> {
    None
}

/// Whether a stopped thread is where it slept.
pub(in super::super) fn sleeps_at(registers: &Registers, sleep: &Sleep) -> bool {
    (registers.rsp, registers.rip) == (sleep.sp, sleep.pc)
}

/// Whether returns are checked by a shadow stack. `/proc/PID/status` says so on this architecture.
pub(in super::super) fn checks_returns(_tid: i32) -> bool {
    false
}

/// Whether a `FUTEX_WAIT` (0) or `FUTEX_WAIT_BITSET` (9) can be interrupted without an effect.
pub(in super::super) fn repeats(_operation: u64, _timeout: u64) -> bool {
    true
}

/// The registers with which a thread enters the call `number`.
pub(in super::super) fn call(
    original: &Registers,
    gadgets: Gadgets,
    sp: u64,
    number: libc::c_long,
    arguments: [u64; 4],
) -> Registers {
    let mut registers = *original;
    [registers.rdi, registers.rsi, registers.rdx, registers.r10] = arguments;
    registers.r8 = 0;
    registers.rip = gadgets.call;
    registers.rsp = sp;
    registers.rax = number as u64;
    // No call is to be restarted.
    registers.orig_rax = u64::MAX;
    registers
}

/// The result of a call, at its end.
pub(in super::super) fn result(registers: &Registers) -> i64 {
    registers.rax as i64
}

/// The registers with which a stopped thread that waits in a futex or `epoll_wait` repeats its call.
///
/// An `epoll_wait` without a timeout would return EINTR: with ERESTARTNOHAND, it still does if a signal is handled meanwhile.
pub(in super::super) fn waiting(registers: Registers, _sleep: &Sleep) -> Result<Registers, Refusal> {
    const ERESTARTNOHAND: i64 = 514;
    if registers.cs != CODE_64 {
        return Err(Refusal::Foreign);
    }
    let is_eintr = registers.rax as i64 == -i64::from(libc::EINTR);
    let in_epoll = registers.orig_rax == libc::SYS_epoll_wait as u64;
    let is_endless = registers.r10 as i32 == -1;
    let registers = if in_epoll && is_endless && is_eintr {
        Registers { rax: -ERESTARTNOHAND as u64, ..registers }
    } else {
        registers
    };
    let is_restarted = matches!(-(registers.rax as i64), 512..=514 | 516);
    let in_futex = registers.orig_rax == libc::SYS_futex as u64;
    if is_restarted && (in_futex || in_epoll) || in_epoll && is_eintr {
        Ok(registers)
    } else {
        Err(Refusal::Awake)
    }
}

/// Registers with which the kernel restarts a call that a thread was stopped on its way into, where it would return EINTR.
/// `None` if it does not.
pub(in super::super) fn hide_interruption(mut registers: Registers, _sleep: &Sleep) -> Option<Registers> {
    /// ERESTARTNOHAND (linux/errno.h): a handler of a signal still causes EINTR.
    const RESTART: i64 = -514;
    let is_eintr = registers.rax as i64 == -i64::from(libc::EINTR);
    (INTERRUPTED.contains(&(registers.orig_rax as i64)) && is_eintr).then(|| {
        registers.rax = RESTART as u64;
        registers
    })
}
