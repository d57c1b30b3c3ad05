//! aarch64. Tested in a guest (tests/targets/aarch64.sh), not on hardware.

use std::array;

use framehop::aarch64::{PtrAuthMask, UnwindRegsAarch64, UnwinderAarch64};

use super::unwinding::{Framehop, UnwindRegisters};
use super::{Arch, Call, FrameLayout, Unwinding};
use crate::host::shared_bytes::SharedBytes;
use crate::snapshot::{Address, FutexWait, Hidden, Registers};

#[derive(Debug)]
pub(super) struct Aarch64;

impl Arch for Aarch64 {
    fn elf_machine(&self) -> u16 {
        object::elf::EM_AARCH64.0
    }

    fn system_call(&self) -> &'static [u8] {
        &[0x01, 0x00, 0x00, 0xd4]
    }

    fn futex(&self) -> u64 {
        98
    }

    fn restart_syscall(&self) -> u64 {
        128
    }

    fn dwarf_pointers(&self) -> [u16; 2] {
        [31, 29]
    }

    fn unwinding(&self) -> Box<dyn Unwinding> {
        Box::new(Framehop::<UnwinderAarch64<SharedBytes>>::default())
    }

    fn keeps_frame_pointers(&self) -> bool {
        true
    }

    /// Not analysed: functions keep a frame pointer on this architecture.
    fn frame_layout(&self, _code: &[u8], _start: u64, _at: u64) -> Option<FrameLayout> {
        None
    }

    /// `bl`; `blr`, also with pointer authentication (Arm Architecture Reference Manual, C4.1, branches).
    fn call_before(&self, code: &[u8], end: u64) -> Option<Call> {
        let word = u32::from_le_bytes(*code.last_chunk()?);
        let is_direct = word & 0xfc00_0000 == 0x9400_0000;
        let is_indirect = word & 0xffff_fc1f == 0xd63f_0000 || word & 0xfeff_f800 == 0xd63f_0800;
        // 26 bits, signed, in words.
        let offset = i64::from((word << 6) as i32 >> 4);
        let target = end.checked_sub(4).map(|at| at.wrapping_add_signed(offset));
        match (is_direct, is_indirect) {
            (true, _) => target.map(Call::Direct),
            (_, true) => Some(Call::Indirect),
            _ => None,
        }
    }

    fn never_returns(&self, _code: &[u8]) -> bool {
        false
    }

    /// The vDSO's `__kernel_rt_sigreturn`: `mov x8, #139; svc #0`.
    fn trampoline(&self) -> (&'static [u8], u64) {
        (&[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4], 4)
    }

    fn interrupted(&self, sp: Address, read: &dyn Fn(Address) -> Option<u64>) -> Option<Registers> {
        /// `struct rt_sigframe` begins with a `siginfo_t` of 128 bytes; `uc_mcontext` is 176 bytes into the `ucontext_t`
        /// (its alignment is 16), and the registers follow `fault_address`.
        const REGS: u64 = 128 + 176 + 8;
        let register = |index: u64| read(sp.checked_add(REGS + 8 * index)?);
        let [pc, sp] = [register(32)?, register(31)?].map(Address::new);
        let lr = register(30)?;
        Some(Registers { pc, sp, fp: Hidden::new(register(29)?), lr, ..Registers::default() })
    }

    /// `struct user_pt_regs` (asm/ptrace.h): x0 to x30, sp, pc, pstate. The thread pointer is in a separate note.
    fn core_registers(&self, word: &dyn Fn(usize) -> Option<u64>) -> Option<Registers> {
        Some(Registers {
            pc: Address::new(word(32)?),
            sp: Address::new(word(31)?),
            fp: Hidden::new(word(29)?),
            lr: word(30)?,
            futex: FutexWait::from_syscall(self, word(8)?, [word(0)?, word(1)?, word(2)?, word(3)?]),
            general: array::from_fn(|index| Hidden::new(word(index).unwrap_or(0))),
            ..Registers::default()
        })
    }

    /// Variant I of the ABI: the thread pointer points to two words, which the segment follows.
    fn thread_local(&self, address: u64, size: u64, align: u64) -> Option<i64> {
        let start = 16_u64.checked_next_multiple_of(align.max(1))?;
        i64::try_from(start.checked_add(address)?).ok().filter(|_| address <= size)
    }

    /// `tcbhead_t` (glibc, sysdeps/aarch64/nptl/tls.h): its first word.
    fn thread_local_vector(&self) -> u64 {
        0
    }
}

impl UnwindRegisters for UnwindRegsAarch64 {
    fn new(registers: &Registers, code_end: u64) -> Self {
        let mask = PtrAuthMask::from_max_known_address(code_end);
        Self::new_with_ptr_auth_mask(mask, registers.lr, registers.sp.get(), registers.fp.get())
    }

    fn registers(&self) -> Registers {
        Registers {
            sp: Address::new(self.sp()),
            fp: Hidden::new(self.fp()),
            lr: self.lr(),
            ..Registers::default()
        }
    }
}
