//! The signal frames of aarch64: one for the thread, and one below it for the image, because both return to the same address,
//! which is in x30.

use super::super::super::frame::{Frame, Gadgets, State, Writer};
use super::{LR, Registers};

/// A distance to what functions have on the stack. The ABI has no area below the stack pointer that they may use; a signal
/// handler's frame would be right there.
const GAP: u64 = 128;
/// `struct rt_sigframe` (arch/arm64/kernel/signal.c): a `siginfo` of 128 bytes, then the `ucontext`.
const CONTEXT: u64 = 128;
/// The signal mask in `struct ucontext` (asm/ucontext.h), after flags, link and stack.
const MASK: u64 = CONTEXT + 8 + 8 + 24;
/// `struct sigcontext` (asm/sigcontext.h), which is aligned to 16 bytes: the fault's address, then `struct user_pt_regs`.
const MACHINE: u64 = CONTEXT + 176;
const REGISTERS: u64 = MACHINE + 8;
/// The records that follow.
const RECORDS: u64 = MACHINE + 288;
/// `struct fpsimd_context`: a header of 8 bytes, fpsr, fpcr, v0 to v31.
const FLOATS: u64 = 528;
const FLOATS_MAGIC: u32 = 0x4650_8001;
/// v0 to v31.
const VECTORS: usize = 512;
/// With the record that ends the list, which is zero.
const SIZE: u64 = RECORDS + FLOATS + 16;
/// The size of all that is written.
pub(in super::super::super) const LARGEST: usize = 2 * SIZE as usize;

/// Writes the frames into `buf`. `None` if the state is of an unknown form.
pub(in super::super::super) fn build(
    state: &State<'_>,
    gadgets: Gadgets,
    buf: &mut [u8; LARGEST],
) -> Option<Frame> {
    let top = state.registers.sp.checked_sub(GAP)? & !15;
    let sp = top.checked_sub(SIZE)?;
    let child_sp = sp.checked_sub(SIZE)?;
    buf.fill(0);
    let mut writer = Writer { bytes: buf, base: child_sp };
    one(&mut writer, sp, state.registers, state)?;
    let mut exit = *state.registers;
    let [x0, _, _, _, _, _, _, _, x8, ..] = &mut exit.x;
    (*x0, *x8) = (0, libc::SYS_exit as u64);
    exit.x[LR] = 0;
    exit.pc = gadgets.exit;
    exit.sp = child_sp;
    one(&mut writer, child_sp, &exit, state)?;
    Some(Frame { base: child_sp, length: LARGEST, sp, child_sp })
}

/// Writes the frame at `start`, which restores `registers`. `uc_stack` stays zero: a stack of that size is refused, so that the
/// thread keeps its alternate signal stack.
///
/// The parts of vector registers that only SVE has are not in it: the thread is in a system call, where they have no value.
fn one(writer: &mut Writer<'_>, start: u64, registers: &Registers, state: &State<'_>) -> Option<()> {
    writer.word(start + MASK, state.blocked_signals)?;
    let Registers { x, sp, pc, pstate } = registers;
    for (place, word) in (start + REGISTERS..).step_by(8).zip(x.iter().chain([sp, pc, pstate])) {
        writer.word(place, *word)?;
    }
    let records = start + RECORDS;
    writer.word(records, u64::from(FLOATS_MAGIC) | FLOATS << 32)?;
    // In the register set, fpsr and fpcr come last.
    writer.copy(records + 8, state.extended.get(VECTORS..VECTORS + 8)?)?;
    writer.copy(records + 16, state.extended.get(..VECTORS)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> Registers {
        let mut x = std::array::from_fn(|index| index as u64);
        x[8] = libc::SYS_futex as u64;
        Registers { x, sp: 0xffff_1234_5670, pc: 0x1000, pstate: 0x6000_0000 }
    }

    #[test]
    fn two_frames_are_below_the_stack_pointer_and_aligned() {
        let (registers, mut extended) = (registers(), [0xaa; 528]);
        extended[VECTORS..VECTORS + 8].copy_from_slice(&0x11_0000_0022_u64.to_le_bytes());
        let state = State { registers: &registers, extended: &extended, blocked_signals: 0x11 };
        let gadgets = Gadgets { call: 4, restore: 8, exit: 12 };
        let mut bytes = [0xff; LARGEST];
        let frame = build(&state, gadgets, &mut bytes).unwrap();
        assert!(frame.base + frame.length as u64 <= registers.sp - GAP);
        assert_eq!((frame.sp % 16, frame.child_sp % 16), (0, 0));
        let word = |address: u64| {
            let at = (address - frame.base) as usize;
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        let register = |start: u64, index: u64| word(start + REGISTERS + 8 * index);
        let restored = [0, 8, 30, 31, 32, 33].map(|index| register(frame.sp, index));
        assert_eq!(restored, [0, 98, 30, registers.sp, 0x1000, 0x6000_0000]);
        let exit = [0, 8, 32].map(|index| register(frame.child_sp, index));
        assert_eq!(exit, [0, 93, 12]);
        for start in [frame.sp, frame.child_sp] {
            assert_eq!(word(start + MASK), 0x11);
            assert_eq!(word(start + RECORDS), 0x210_4650_8001);
            assert_eq!(word(start + RECORDS + 8), 0x11_0000_0022);
            assert_eq!(word(start + RECORDS + 16), 0xaaaa_aaaa_aaaa_aaaa);
            assert_eq!(word(start + RECORDS + FLOATS), 0, "the last record");
        }
    }

    #[test]
    fn states_of_unknown_form_and_stacks_at_the_lowest_address_are_refused() {
        let mut registers = registers();
        let gadgets = Gadgets { call: 4, restore: 8, exit: 12 };
        let mut bytes = [0; LARGEST];
        for length in [0, 100, VECTORS, VECTORS + 7] {
            let state = State { registers: &registers, extended: &[0; 528][..length], blocked_signals: 0 };
            assert!(build(&state, gadgets, &mut bytes).is_none(), "{length}");
        }
        registers.sp = 1000;
        let state = State { registers: &registers, extended: &[0; 528], blocked_signals: 0 };
        assert!(build(&state, gadgets, &mut bytes).is_none());
    }
}
