//! aarch64.
//!
//! At a stop, the kernel has already prepared the repetition of a call that it restarts: the program counter is at the `svc`, and x0
//! has the first argument again (arch/arm64/kernel/signal.c, `do_signal`). So it needs no other register than these, and the
//! call is repeated by going there.

mod frame;

use super::super::frame::{Gadgets, Instructions};
use super::super::refusal::Refusal;
use super::super::sys;
use super::INTERRUPTED;
use crate::targets::other_process::arch::WORDS;
use crate::targets::other_process::task_files::Sleep;

pub(in super::super) use frame::{LARGEST as LARGEST_FRAME, build as build_frame};

/// The registers of a thread: `struct user_pt_regs` (asm/ptrace.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(in super::super) struct Registers {
    x: [u64; 31],
    sp: u64,
    pc: u64,
    pstate: u64,
}

const _: () = assert!(size_of::<Registers>() == 8 * WORDS);

/// `NT_PRFPREG` (linux/elf.h): `struct user_fpsimd_state`.
pub(in super::super) const EXTENDED_SET: usize = 2;
/// Its size.
pub(in super::super) const EXTENDED_ROOM: usize = 528;
/// The length of an instruction.
const INSTRUCTION: u64 = 4;
/// The link register.
const LR: usize = 30;

/// The call in which a runtime waits for events.
pub(in super::super) const EPOLL: i64 = libc::SYS_epoll_pwait;

/// The call that waits for several files, which the kernel restarts.
pub(super) const POLL: i64 = libc::SYS_ppoll;

/// Instructions that libc or the vDSO has.
pub(in super::super) const fn instructions() -> Instructions {
    const SVC: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
    Instructions {
        // `svc #0; ret`
        call: &[0x01, 0x00, 0x00, 0xd4, 0xc0, 0x03, 0x5f, 0xd6],
        // `mov x8, #139; svc #0`: in the vDSO (`__kernel_rt_sigreturn`), and in musl
        restore: &[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4],
        // The frame of the image has the number of the call.
        exit: &[SVC],
        alignment: INSTRUCTION as usize,
    }
}

pub(in super::super) fn stack_pointer(registers: &Registers) -> u64 {
    registers.sp
}

/// The thread pointer of a stopped thread.
pub(in super::super) fn thread_pointer(tid: i32) -> Option<u64> {
    /// `NT_ARM_TLS` (linux/elf.h). Newer kernels have a second word.
    const TLS: usize = 0x401;
    let mut words = [0; 16];
    let read = sys::register_set(tid, TLS, &mut words).ok()?;
    words.get(..read)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// Whether a stopped thread is where it slept: behind the call, or at the call that will be repeated.
pub(in super::super) fn sleeps_at(registers: &Registers, sleep: &Sleep) -> bool {
    let behind = registers.pc == sleep.pc;
    registers.sp == sleep.sp && (behind || registers.pc.checked_add(INSTRUCTION) == Some(sleep.pc))
}

/// Whether returns are checked by a guarded control stack (GCS).
pub(in super::super) fn checks_returns(tid: i32) -> bool {
    /// `NT_ARM_GCS` (linux/elf.h): `struct user_gcs`, whose first word has the enabled features.
    const GCS: usize = 0x410;
    let mut words = [0; 24];
    let read = sys::register_set(tid, GCS, &mut words);
    read.is_ok() && words.first_chunk() != Some(&[0; 8])
}

/// Whether a `FUTEX_WAIT` (0) or `FUTEX_WAIT_BITSET` (9) can be made again without an effect: the timeout of the former is
/// a duration, which would begin anew.
pub(in super::super) fn repeats(operation: u64, timeout: u64) -> bool {
    timeout == 0 || operation == 9
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
    let [x0, x1, x2, x3, x4, _, _, _, x8, ..] = &mut registers.x;
    [*x0, *x1, *x2, *x3] = arguments;
    (*x4, *x8) = (0, number as u64);
    registers.x[LR] = gadgets.restore;
    registers.pc = gadgets.call;
    registers.sp = sp;
    registers
}

/// The result of a call, at its end.
pub(in super::super) fn result(registers: &Registers) -> i64 {
    registers.x[0] as i64
}

/// The registers with which a stopped thread that waits in a futex or `epoll_pwait` repeats its call.
///
/// `sleep` is what `/proc` said before the stop: an `epoll_pwait` without a timeout, which would return EINTR, is made again
/// with the first argument from there, because the kernel does not show a tracer what x0 was.
pub(in super::super) fn waiting(registers: Registers, sleep: &Sleep) -> Result<Registers, Refusal> {
    if !is_same_call(&registers, sleep) {
        return Err(Refusal::Awake);
    }
    let is_repeated = registers.pc.checked_add(INSTRUCTION) == Some(sleep.pc);
    match sleep.number {
        libc::SYS_futex if is_repeated && registers.x[0] == sleep.arguments[0] => Ok(registers),
        libc::SYS_epoll_pwait if registers.pc == sleep.pc && is_eintr(&registers) => {
            let is_endless = sleep.arguments[3] as i32 == -1;
            Ok(if is_endless { again(registers, sleep) } else { registers })
        }
        _ => Err(Refusal::Awake),
    }
}

/// Registers with which a thread makes a call again that it was stopped on its way into, where it would return EINTR. `None`
/// if it does not, or if its first argument is not known: that of the call that the thread slept in before, which is taken for the
/// same one if all others are equal.
pub(in super::super) fn hide_interruption(registers: Registers, sleep: &Sleep) -> Option<Registers> {
    let is_hidden = INTERRUPTED.contains(&sleep.number)
        && is_same_call(&registers, sleep)
        && registers.pc == sleep.pc
        && is_eintr(&registers);
    is_hidden.then(|| again(registers, sleep))
}

/// The same stack, and the same call with the same arguments, except for the first.
fn is_same_call(registers: &Registers, sleep: &Sleep) -> bool {
    let [_, arguments @ ..] = &sleep.arguments;
    let [_, x1, x2, x3, x4, x5, _, _, x8, ..] = registers.x;
    registers.sp == sleep.sp && x8 as i64 == sleep.number && [x1, x2, x3, x4, x5] == *arguments
}

fn is_eintr(registers: &Registers) -> bool {
    registers.x[0] as i64 == -i64::from(libc::EINTR)
}

/// The registers of a thread that is behind a call, changed so that it makes the call again.
fn again(mut registers: Registers, sleep: &Sleep) -> Registers {
    let [x0, ..] = &mut registers.x;
    *x0 = sleep.arguments[0];
    registers.pc = registers.pc.wrapping_sub(INSTRUCTION);
    registers
}
