//! The signal frame of x86_64.

use std::arch::x86_64::__cpuid_count;

use super::super::super::frame::{Frame, Gadgets, State, Writer};
use super::Registers;

/// The area that functions may use below the stack pointer (System V ABI).
const RED_ZONE: u64 = 128;
/// `struct rt_sigframe` (asm/sigframe.h): return address, `ucontext`, `siginfo`.
const FRAME: usize = 8 + CONTEXT + 128;
/// `struct ucontext`: flags, link, stack, `sigcontext_64`, signal mask.
const CONTEXT: usize = MACHINE as usize + SIGNAL_MASK as usize + 8;
/// Where `sigcontext_64` begins in it.
const MACHINE: u64 = 8 + 8 + 24;
/// Where `sigcontext_64` has the address of the extended state, and where it ends.
const EXTENDED_STATE: u64 = 184;
const SIGNAL_MASK: u64 = 256;
/// `UC_FP_XSTATE`, `UC_SIGCONTEXT_SS`, `UC_STRICT_RESTORE_SS` (asm/ucontext.h).
const CONTEXT_FLAGS: u64 = 7;
/// Where FXSAVE leaves room for software: `struct _fpx_sw_bytes` (asm/sigcontext.h).
const SOFTWARE: usize = 464;
const MAGIC_1: u32 = 0x4650_5853;
const MAGIC_2: u32 = 0x4650_5845;
/// The legacy area of XSAVE, and its header.
const LEGACY: usize = 512;
const LEAST_EXTENDED: usize = LEGACY + 64;
/// The tiles of AMX: 8 KB, which a kernel accepts in a frame only if the process has asked for them.
const AMX: u64 = 3 << 17;
/// Space for the word on which a forked image would start to run.
const CHILD: u64 = 64;
/// The largest frame, with AMX.
pub(in super::super::super) const LARGEST: usize = 13 << 10;

/// The registers with which the interrupted call is repeated after `rt_sigreturn`, which does not restart calls.
fn registers_after(registers: &Registers) -> Registers {
    let mut after = *registers;
    match -(registers.rax as i64) {
        // ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND
        512..=514 if registers.orig_rax as i64 >= 0 => {
            after.rip = registers.rip.wrapping_sub(2);
            after.rax = registers.orig_rax;
        }
        // ERESTART_RESTARTBLOCK: the kernel forgets the rest of the timeout at `rt_sigreturn`.
        516 => after.rax = -i64::from(libc::EINTR) as u64,
        _ => {}
    }
    after
}

/// Writes the frame into `buf`. `None` if the state is of an unknown form.
pub(in super::super::super) fn build(
    state: &State<'_>,
    gadgets: Gadgets,
    buf: &mut [u8; LARGEST],
) -> Option<Frame> {
    let features = features(state.extended)?;
    let extended = extended_size(features, state.extended.len())?;
    let top = state.registers.rsp.checked_sub(RED_ZONE)? & !63;
    // Aligned as XRSTOR requires it.
    let fp = top.checked_sub(extended as u64 + 8)? & !63;
    let sp = (fp.checked_sub(FRAME as u64)? & !15).checked_sub(8)?;
    let base = (sp & !63).checked_sub(CHILD)?;
    let length = usize::try_from(top.checked_sub(base)?).ok()?;
    let mut frame = Writer { bytes: buf.get_mut(..length)?, base };
    frame.bytes.fill(0);

    frame.word(base, gadgets.exit)?;
    frame.word(sp, gadgets.restore)?;
    let context = sp + 8;
    frame.word(context, CONTEXT_FLAGS)?;
    // `uc_stack` stays zero: a stack of that size is refused, so that the thread keeps its alternate signal stack.
    let after = registers_after(state.registers);
    let machine = context + MACHINE;
    let general = [
        after.r8,
        after.r9,
        after.r10,
        after.r11,
        after.r12,
        after.r13,
        after.r14,
        after.r15,
        after.rdi,
        after.rsi,
        after.rbp,
        after.rbx,
        after.rdx,
        after.rax,
        after.rcx,
        after.rsp,
        after.rip,
        after.eflags,
    ];
    let mut at = machine;
    for word in general {
        frame.word(at, word)?;
        at += 8;
    }
    frame.word(at, after.cs & 0xffff | (after.ss & 0xffff) << 48)?;
    frame.word(machine + EXTENDED_STATE, fp)?;
    frame.word(machine + SIGNAL_MASK, state.blocked_signals)?;

    frame.copy(fp, state.extended.get(..extended)?)?;
    let size = extended as u64;
    frame.word(fp + SOFTWARE as u64, u64::from(MAGIC_1) | (size + 4) << 32)?;
    frame.word(fp + SOFTWARE as u64 + 8, features)?;
    frame.word(fp + SOFTWARE as u64 + 16, size)?;
    for word in 3..6 {
        frame.word(fp + SOFTWARE as u64 + 8 * word, 0)?;
    }
    frame.copy(fp + size, &MAGIC_2.to_le_bytes())?;
    Some(Frame { base, length, sp, child_sp: base })
}

/// The parts of the extended state that the frame has: those that the processor supports, without AMX's unless the thread
/// uses them.
fn features(extended: &[u8]) -> Option<u64> {
    let word = |at: usize| extended.get(at..)?.first_chunk::<8>().map(|word| u64::from_le_bytes(*word));
    let (supported, used) = (word(SOFTWARE)?, word(LEGACY)?);
    let features = if used & AMX == 0 { supported & !AMX } else { supported };
    // Floating point and SSE are always there.
    (features & 3 == 3).then_some(features)
}

/// The size of the extended state with `features`, by the processor's own description of its layout.
fn extended_size(features: u64, available: usize) -> Option<usize> {
    let mut size = LEAST_EXTENDED;
    for feature in (2..63).filter(|feature| features >> feature & 1 == 1) {
        #[allow(unused_unsafe, reason = "safe in newer versions of Rust")]
        // SAFETY: every x86_64 processor has the instruction, which only reads.
        let part = unsafe { __cpuid_count(0xd, feature) };
        size = size.max((part.eax as usize).checked_add(part.ebx as usize)?);
    }
    (size <= available).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> Registers {
        // SAFETY: integers.
        let mut registers: Registers = unsafe { std::mem::zeroed() };
        registers.rsp = 0x7fff_1234_5678;
        registers.rip = 0x1002;
        registers.rax = -512_i64 as u64;
        registers.orig_rax = 202;
        registers.cs = 0x33;
        registers.ss = 0x2b;
        registers
    }

    fn extended() -> Vec<u8> {
        let mut extended = vec![0xaa; 4096];
        extended[SOFTWARE..SOFTWARE + 8].copy_from_slice(&3_u64.to_le_bytes());
        extended[LEGACY..LEGACY + 8].copy_from_slice(&3_u64.to_le_bytes());
        extended
    }

    #[test]
    fn a_frame_is_below_the_red_zone_and_aligned() {
        let (registers, extended) = (registers(), extended());
        let state = State { registers: &registers, extended: &extended, blocked_signals: 0x11 };
        let gadgets = Gadgets { call: 1, restore: 2, exit: 3 };
        let mut bytes = [0xff; LARGEST];
        let frame = build(&state, gadgets, &mut bytes).unwrap();
        assert!(frame.base + frame.length as u64 <= registers.rsp - RED_ZONE);
        assert_eq!((frame.sp + 8) % 16, 0);
        let word = |address: u64| {
            let at = (address - frame.base) as usize;
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        assert_eq!((word(frame.child_sp), word(frame.sp)), (3, 2));
        let machine = frame.sp + 8 + 40;
        assert_eq!(word(machine + 13 * 8), 202, "the call is repeated");
        assert_eq!(word(machine + 16 * 8), 0x1000);
        assert_eq!(word(machine + 18 * 8), 0x002b_0000_0000_0033);
        assert_eq!(word(machine + 256), 0x11);
        let fp = word(machine + 184);
        assert_eq!(fp % 64, 0);
        assert_eq!(word(fp + SOFTWARE as u64) as u32, MAGIC_1);
        assert_eq!(word(fp + word(fp + SOFTWARE as u64 + 16)) as u32, MAGIC_2);
    }

    #[test]
    fn a_call_with_a_timeout_returns_eintr_only_in_an_emergency() {
        let mut registers = registers();
        registers.rax = -516_i64 as u64;
        let after = registers_after(&registers);
        assert_eq!((after.rax as i64, after.rip), (-4, registers.rip));
        registers.rax = 7;
        assert_eq!(registers_after(&registers).rax, 7);
    }

    #[test]
    fn states_of_unknown_form_and_stacks_at_the_lowest_address_are_refused() {
        let (mut registers, extended) = (registers(), extended());
        let gadgets = Gadgets { call: 1, restore: 2, exit: 3 };
        let mut bytes = [0; LARGEST];
        for length in [0, 100, SOFTWARE, LEGACY + 8] {
            let state = State { registers: &registers, extended: &extended[..length], blocked_signals: 0 };
            assert!(build(&state, gadgets, &mut bytes).is_none(), "{length}");
        }
        registers.rsp = 4096;
        let state = State { registers: &registers, extended: &extended, blocked_signals: 0 };
        assert!(build(&state, gadgets, &mut bytes).is_none_or(|frame| frame.base < 4096));
        registers.rsp = 64;
        let state = State { registers: &registers, extended: &extended, blocked_signals: 0 };
        assert!(build(&state, gadgets, &mut bytes).is_none());
    }
}
