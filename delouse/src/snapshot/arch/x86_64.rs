//! x86_64.

use std::array;

use framehop::x86_64::{UnwindRegsX86_64, UnwinderX86_64};

use super::unwinding::{Framehop, UnwindRegisters};
use super::{Arch, Call, FrameLayout, Unwinding, x86_code};
use crate::host::shared_bytes::SharedBytes;
use crate::snapshot::{Address, FutexWait, Hidden, Registers};

#[derive(Debug)]
pub(super) struct X86_64;

/// The number of general registers in `struct user_regs_struct` (sys/user.h), without the stack pointer: r15 to rdi.
const GENERAL: usize = 15;

impl Arch for X86_64 {
    fn elf_machine(&self) -> u16 {
        object::elf::EM_X86_64.0
    }

    fn system_call(&self) -> &'static [u8] {
        &[0x0f, 0x05]
    }

    fn futex(&self) -> u64 {
        202
    }

    fn restart_syscall(&self) -> u64 {
        219
    }

    fn dwarf_pointers(&self) -> [u16; 2] {
        [7, 6]
    }

    fn unwinding(&self) -> Box<dyn Unwinding> {
        Box::new(Framehop::<UnwinderX86_64<SharedBytes>>::default())
    }

    fn keeps_frame_pointers(&self) -> bool {
        false
    }

    fn frame_layout(&self, code: &[u8], start: u64, at: u64) -> Option<FrameLayout> {
        x86_code::frame_layout(code, start, at)
    }

    fn call_before(&self, code: &[u8], end: u64) -> Option<Call> {
        x86_code::call_before(code, end)
    }

    fn never_returns(&self, code: &[u8]) -> bool {
        x86_code::never_returns(code)
    }

    /// `__restore_rt` of glibc and musl: `mov $15, %rax; syscall` (rt_sigreturn). gdb recognises it by the same bytes.
    fn trampoline(&self) -> (&'static [u8], u64) {
        (&[0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05], 7)
    }

    /// The stack pointer is the address of the `ucontext_t` (struct rt_sigframe, after its return address).
    fn interrupted(&self, sp: Address, read: &dyn Fn(Address) -> Option<u64>) -> Option<Registers> {
        /// Offset of `uc_mcontext.gregs` in `ucontext_t` (asm/ucontext.h: flags, link and stack come first).
        const GREGS: u64 = 40;
        const REG_RBP: u64 = 10;
        const REG_RSP: u64 = 15;
        const REG_RIP: u64 = 16;
        let register = |index: u64| read(sp.checked_add(GREGS + 8 * index)?);
        Some(Registers {
            pc: Address::new(register(REG_RIP)?),
            sp: Address::new(register(REG_RSP)?),
            fp: Hidden::new(register(REG_RBP)?),
            ..Registers::default()
        })
    }

    /// `struct user_regs_struct` (sys/user.h).
    fn core_registers(&self, word: &dyn Fn(usize) -> Option<u64>) -> Option<Registers> {
        const RBP: usize = 4;
        const R10: usize = 7;
        const RAX: usize = 10;
        const RDX: usize = 12;
        const RSI: usize = 13;
        const RDI: usize = 14;
        const ORIG_RAX: usize = 15;
        const RIP: usize = 16;
        const RSP: usize = 19;
        const FS_BASE: usize = 21;
        // The kernel and gcore record the number of a thread's system call in orig_rax, and its result in rax: an
        // interrupted wait without timeout will be restarted (ERESTARTSYS). In delouse's own core files, orig_rax is -1,
        // and rax contains the number of a call that will be restarted.
        const ERESTARTSYS: u64 = -512_i64 as u64;
        let call = match (word(ORIG_RAX)?, word(RAX)?) {
            (call, ERESTARTSYS) => call,
            (u64::MAX, call) => call,
            _ => u64::MAX,
        };
        let general = |index: usize| if index < GENERAL { word(index).unwrap_or(0) } else { 0 };
        Some(Registers {
            pc: Address::new(word(RIP)?),
            sp: Address::new(word(RSP)?),
            fp: Hidden::new(word(RBP)?),
            lr: 0,
            tls: Address::new(word(FS_BASE)?),
            futex: FutexWait::from_syscall(self, call, [word(RDI)?, word(RSI)?, word(RDX)?, word(R10)?]),
            general: array::from_fn(|index| Hidden::new(general(index))),
        })
    }

    /// Variant II of the ABI: the segment ends at the thread pointer.
    fn thread_local(&self, address: u64, size: u64, align: u64) -> Option<i64> {
        let size = size.checked_next_multiple_of(align.max(1))?;
        i64::try_from(size.checked_sub(address)?).ok()?.checked_neg()
    }

    /// `tcbhead_t` (glibc, sysdeps/x86_64/nptl/tls.h): its second word.
    fn thread_local_vector(&self) -> u64 {
        8
    }
}

impl UnwindRegisters for UnwindRegsX86_64 {
    fn new(registers: &Registers, _code_end: u64) -> Self {
        Self::new(registers.pc.get(), registers.sp.get(), registers.fp.get())
    }

    fn registers(&self) -> Registers {
        Registers {
            pc: Address::new(self.ip()),
            sp: Address::new(self.sp()),
            fp: Hidden::new(self.bp()),
            ..Registers::default()
        }
    }
}
