//! Processor architectures: properties that are needed to interpret the memory and the registers of a captured process.
//!
//! Each snapshot has an architecture, because a core file may come from another machine. Code that captures the running
//! process is in `targets/this_process/arch`.

mod aarch64;
mod code;
mod unwinding;
mod x86_64;
mod x86_code;

use std::fmt;

use super::{Address, Registers};
pub(crate) use code::{Call, CallerFp, CallerSp, FrameLayout};
pub(crate) use unwinding::Unwinding;

/// One architecture.
pub(crate) trait Arch: fmt::Debug + Send + Sync {
    /// `e_machine` of its ELF files.
    fn elf_machine(&self) -> u16;

    /// The instruction of a system call.
    fn system_call(&self) -> &'static [u8];

    /// The system call number of futex(2).
    fn futex(&self) -> u64;

    /// The system call number of restart_syscall(2).
    fn restart_syscall(&self) -> u64;

    /// DWARF's numbers of the stack pointer and of the frame pointer.
    fn dwarf_pointers(&self) -> [u16; 2];

    /// An unwinder without tables.
    fn unwinding(&self) -> Box<dyn Unwinding>;

    /// Whether compilers let each function that calls others keep a frame pointer.
    fn keeps_frame_pointers(&self) -> bool;

    /// How the frame is laid out at the instruction that contains `at`, by the `code` of its function, which starts at
    /// `start`; `None` if the code does not tell.
    fn frame_layout(&self, code: &[u8], start: u64, at: u64) -> Option<FrameLayout>;

    /// The call instruction that `code` ends with. `end` is the address after it.
    fn call_before(&self, code: &[u8], end: u64) -> Option<Call>;

    /// Whether `code`, to which a call returns, ends the thread.
    fn never_returns(&self, code: &[u8]) -> bool;

    /// The code to which a signal handler returns, and the offset of its second instruction.
    fn trampoline(&self) -> (&'static [u8], u64);

    /// The registers of the code that a signal interrupted. `sp` is the stack pointer in the trampoline.
    fn interrupted(&self, sp: Address, read: &dyn Fn(Address) -> Option<u64>) -> Option<Registers>;

    /// The registers in a core file's `elf_gregset_t`. `word` reads its word at an index.
    fn core_registers(&self, word: &dyn Fn(usize) -> Option<u64>) -> Option<Registers>;

    /// The offset from the thread pointer of a thread local of the executable. `address` is its offset in the segment
    /// `PT_TLS`, which has the given size and alignment.
    fn thread_local(&self, address: u64, size: u64, align: u64) -> Option<i64>;

    /// The offset from the thread pointer of the pointer to the thread's vector of thread-local blocks (glibc's `dtv`).
    fn thread_local_vector(&self) -> u64;
}

/// The largest number of general registers of any architecture.
pub(crate) const MOST_GENERAL: usize = 31;

static ALL: [&dyn Arch; 2] = [X86_64, AARCH64];
pub(crate) const X86_64: &dyn Arch = &x86_64::X86_64;
pub(crate) const AARCH64: &dyn Arch = &aarch64::Aarch64;

/// The architecture whose ELF files have this `e_machine`.
pub(crate) fn of_machine(machine: u16) -> Option<&'static dyn Arch> {
    ALL.into_iter().find(|arch| arch.elf_machine() == machine)
}

/// The architecture that this code is compiled for. If it is not one of [`ALL`], nothing can be captured, and the result
/// is not used.
pub(crate) fn host() -> &'static dyn Arch {
    if cfg!(target_arch = "aarch64") { AARCH64 } else { X86_64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_locals_are_below_or_above_the_thread_pointer() {
        // By Drepper, ELF Handling For Thread-Local Storage, 3.4: a segment of 0x14 bytes, aligned to 16.
        assert_eq!(X86_64.thread_local(4, 0x14, 16), Some(4 - 0x20));
        assert_eq!(AARCH64.thread_local(4, 0x14, 16), Some(16 + 4));
        assert_eq!(AARCH64.thread_local(4, 0x14, 64), Some(64 + 4));
        assert_eq!(X86_64.thread_local(0x21, 0x14, 16), None, "outside of the segment");
        assert_eq!(X86_64.thread_local(4, u64::MAX, 16), None);
    }

    #[test]
    fn each_is_found_by_its_number() {
        for arch in ALL {
            assert_eq!(of_machine(arch.elf_machine()).map(Arch::elf_machine), Some(arch.elf_machine()));
        }
        assert!(of_machine(0).is_none());
    }
}
