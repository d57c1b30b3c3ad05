//! From registers and a stack to the return addresses on it.

use std::ops::Range;

use framehop::{FrameAddress, ModuleSectionInfo, Unwinder as _};

use super::modules::{Module, Modules};
use super::object_file::UnwindTables;
use crate::snapshot::shared_bytes::SharedBytes;
use crate::snapshot::{Snapshot, StackCopy, Thread};

/// More frames than this are cut off: an endless recursion fills 8 MB with some hundred thousand of them.
pub(crate) const MAX_FRAMES: usize = 512;

/// A place in a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CodeAddress {
    /// The program counter, or the address that will be returned to.
    pub(crate) pc: u64,
    /// A return address lies behind its call, perhaps already in the next line or function.
    pub(crate) is_return: bool,
    /// The kernel put a signal's frame here; the frames above it are the handler's.
    pub(crate) is_signal: bool,
}

impl CodeAddress {
    /// An address inside of the instruction that is being executed.
    pub(crate) fn lookup(self) -> u64 {
        if self.is_return { self.pc.saturating_sub(1) } else { self.pc }
    }
}

/// A place in a stack, with the registers that the code there has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StackPlace {
    pub(crate) at: CodeAddress,
    /// The stack pointer.
    pub(crate) sp: u64,
    /// The frame pointer, where the code keeps one.
    pub(crate) fp: u64,
}

/// How a stack ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StackEnd {
    /// At the thread's first function.
    Complete,
    /// After [`MAX_FRAMES`].
    TooDeep,
    /// Where the copy of the stack, or readable memory, ends.
    MemoryEnds,
    /// Where nothing tells how to go on: code without unwind tables, or a stack that has been overwritten.
    NoUnwindInfo,
    /// At the instruction that was being executed: its tables lead to no caller. So it is for a few
    /// instructions at the end of `_Unwind_Resume`, where registers are those of the landing pad already
    /// and the stack pointer is not.
    Between,
}

/// The unwind tables of all modules.
pub(super) type Tables = framehop::UnwinderNative<SharedBytes, framehop::MayAllocateDuringUnwind>;

/// Unwinds the threads of one snapshot. Reuse it: it learns.
pub(crate) struct Unwinder {
    inner: Tables,
    cache: framehop::CacheNative<framehop::MayAllocateDuringUnwind>,
}

impl Unwinder {
    /// Takes the unwind tables of `modules`: the first time about 1 ns for each function of theirs (more
    /// where a linker was told to leave the index `.eh_frame_hdr` out), later nothing.
    pub(crate) fn new(modules: &Modules) -> Self {
        let inner = modules.tables.get_or_init(|| {
            let mut tables = Tables::new();
            for module in modules.list() {
                let info = Sections::of(module);
                let base = module.bias.wrapping_add(info.base);
                tables.add_module(framehop::Module::new(
                    module.name.clone(),
                    module.range.clone(),
                    base,
                    info,
                ));
            }
            tables
        });
        Self { inner: inner.clone(), cache: framehop::CacheNative::new() }
    }

    /// The stack of `thread`, innermost first; empty where it has no registers.
    pub(crate) fn unwind(
        &mut self,
        snapshot: &dyn Snapshot,
        thread: &Thread,
    ) -> (Vec<CodeAddress>, StackEnd) {
        let mut frames = Vec::new();
        let end = self.each_place(snapshot, thread, |place| frames.push(place.at));
        (frames, end)
    }

    /// The stack of `thread`, innermost first, with the registers of each place.
    pub(crate) fn places(&mut self, snapshot: &dyn Snapshot, thread: &Thread) -> Vec<StackPlace> {
        let mut places = Vec::new();
        self.each_place(snapshot, thread, |place| places.push(place));
        places
    }

    fn each_place(
        &mut self,
        snapshot: &dyn Snapshot,
        thread: &Thread,
        mut visit: impl FnMut(StackPlace),
    ) -> StackEnd {
        let Ok(registers) = thread.registers else { return StackEnd::NoUnwindInfo };
        let memory = Memory { snapshot, stack: thread.stack.as_ref() };
        let mut regs = arch::unwind_registers(&registers, self.inner.max_known_code_address());
        let mut missing = false;
        let mut read = |address: u64| {
            let word = memory.read_u64(address);
            missing |= word.is_none();
            word.ok_or(())
        };
        let mut count = 0;
        let mut at = FrameAddress::from_instruction_pointer(registers.pc);
        loop {
            if count >= MAX_FRAMES {
                break StackEnd::TooDeep;
            }
            count += 1;
            let pc = at.address();
            let is_signal = memory.is_trampoline(pc);
            let code = CodeAddress { pc, is_return: at.is_return_address() && !is_signal, is_signal };
            visit(StackPlace { at: code, sp: arch::sp(&regs), fp: arch::fp(&regs) });
            if is_signal {
                let sp = arch::sp(&regs);
                let Some(interrupted) = arch::interrupted(sp, |a| memory.read_u64(a)) else {
                    break StackEnd::MemoryEnds;
                };
                regs = arch::unwind_registers(&interrupted, self.inner.max_known_code_address());
                at = FrameAddress::from_instruction_pointer(interrupted.pc);
                continue;
            }
            match self.inner.unwind_frame(at, &mut regs, &mut self.cache, &mut read) {
                Ok(Some(address)) => match FrameAddress::from_return_address(address) {
                    Some(next) => at = next,
                    None => break StackEnd::Complete,
                },
                Ok(None) => break StackEnd::Complete,
                Err(framehop::Error::ReturnAddressIsNull) if at.is_return_address() => {
                    break StackEnd::Complete;
                }
                Err(framehop::Error::ReturnAddressIsNull) => break StackEnd::Between,
                Err(_) if missing => break StackEnd::MemoryEnds,
                Err(_) => break StackEnd::NoUnwindInfo,
            }
        }
    }
}

/// A thread's memory: its stack as it was copied with its registers, the rest as the snapshot has it.
struct Memory<'a> {
    snapshot: &'a dyn Snapshot,
    stack: Option<&'a StackCopy>,
}

impl Memory<'_> {
    fn read_u64(&self, address: u64) -> Option<u64> {
        let copied = self.stack.and_then(|copy| copy.word(address));
        copied.or_else(|| self.snapshot.read_u64(address))
    }

    /// Whether a handler that returns to `pc` returns to the code the kernel or libc put there to end a
    /// signal's delivery. No unwind table describes what lies below it.
    fn is_trampoline(&self, pc: u64) -> bool {
        let mut code = [0; arch::TRAMPOLINE.len()];
        let matches =
            |at: u64, code: &mut [u8]| self.snapshot.read(at, code) == code.len() && code == arch::TRAMPOLINE;
        matches(pc, &mut code)
            || pc.checked_sub(arch::TRAMPOLINE_MIDDLE).is_some_and(|at| matches(at, &mut code))
    }
}

/// What framehop asks of a module.
struct Sections {
    base: u64,
    tables: UnwindTables,
    text: Option<Range<u64>>,
    got: Option<Range<u64>>,
}

impl Sections {
    fn of(module: &Module) -> Self {
        let object = &module.object;
        let mut tables = object.unwind_tables();
        if let (Some(index), Some((_, eh_frame))) = (&tables.eh_frame_hdr, &tables.eh_frame)
            && !is_sound(index, eh_frame)
        {
            // framehop makes an index of its own then.
            tables.eh_frame_hdr = None;
        }
        Self {
            base: object.span().map_or(0, |span| span.start),
            tables,
            text: object.section_addresses(".text"),
            got: object.section_addresses(".got"),
        }
    }
}

/// Whether `.eh_frame_hdr` is in the form that linkers write, with entries that lead into `.eh_frame`: gimli
/// 0.33 subtracts their addresses unchecked. Costs about 1 ns for each function of the module.
fn is_sound((bytes, addresses): &(SharedBytes, Range<u64>), eh_frame: &Range<u64>) -> bool {
    /// Version; encodings: eh_frame_ptr pcrel sdata4, fde_count udata4, table datarel sdata4 (LSB core 10.6).
    const USUAL: &[u8] = &[1, 0x1b, 0x03, 0x3b];
    const HEADER: usize = 12;
    let word = |at: usize| Some(i32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let (Some(relative), Some(count), Some(table)) = (word(4), word(8), bytes.get(HEADER..)) else {
        return false;
    };
    let start = addresses.start.wrapping_add(4).wrapping_add_signed(i64::from(relative));
    let entries = table.len() / 8;
    let leads_inside = |entry: &[u8]| {
        let to = entry.get(4..8).and_then(|b| b.try_into().ok()).map(i32::from_le_bytes);
        to.is_some_and(|to| eh_frame.contains(&addresses.start.wrapping_add_signed(i64::from(to))))
    };
    bytes.starts_with(USUAL)
        && start == eh_frame.start
        && usize::try_from(count)
            .is_ok_and(|n| 0 < n && n <= entries && table.chunks_exact(8).take(n).all(leads_inside))
}

impl ModuleSectionInfo<SharedBytes> for Sections {
    fn base_svma(&self) -> u64 {
        self.base
    }

    fn section_svma_range(&mut self, name: &[u8]) -> Option<Range<u64>> {
        let addresses = |table: &Option<(SharedBytes, Range<u64>)>| table.as_ref().map(|(_, a)| a.clone());
        match name {
            b".text" => self.text.clone(),
            b".got" => self.got.clone(),
            b".eh_frame" => addresses(&self.tables.eh_frame),
            b".eh_frame_hdr" => addresses(&self.tables.eh_frame_hdr),
            _ => None,
        }
    }

    fn section_data(&mut self, name: &[u8]) -> Option<SharedBytes> {
        let bytes = |table: &Option<(SharedBytes, Range<u64>)>| table.as_ref().map(|(b, _)| b.clone());
        match name {
            b".eh_frame" => bytes(&self.tables.eh_frame),
            b".eh_frame_hdr" => bytes(&self.tables.eh_frame_hdr),
            _ => None,
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use framehop::x86_64::UnwindRegsX86_64;

    use crate::snapshot::{Hidden, Registers};

    /// `__restore_rt` of glibc and musl: `mov $15, %rax; syscall` (rt_sigreturn). gdb knows it by the same
    /// bytes.
    pub(super) const TRAMPOLINE: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05];
    /// Where its second instruction begins.
    pub(super) const TRAMPOLINE_MIDDLE: u64 = 7;

    /// Offset of `uc_mcontext.gregs` in `ucontext_t` (asm/ucontext.h: flags, link and stack come first).
    const GREGS: u64 = 40;
    const REG_RBP: u64 = 10;
    const REG_RSP: u64 = 15;
    const REG_RIP: u64 = 16;

    pub(super) fn unwind_registers(registers: &Registers, _code_end: u64) -> UnwindRegsX86_64 {
        UnwindRegsX86_64::new(registers.pc, registers.sp, registers.fp.get())
    }

    pub(super) fn sp(regs: &UnwindRegsX86_64) -> u64 {
        regs.sp()
    }

    pub(super) fn fp(regs: &UnwindRegsX86_64) -> u64 {
        regs.bp()
    }

    /// The registers of the code that the signal interrupted. In the trampoline the stack pointer points
    /// at the `ucontext_t` (struct rt_sigframe, after its return address).
    pub(super) fn interrupted(sp: u64, read: impl Fn(u64) -> Option<u64>) -> Option<Registers> {
        let register = |index: u64| read(sp.checked_add(GREGS + 8 * index)?);
        Some(Registers {
            pc: register(REG_RIP)?,
            sp: register(REG_RSP)?,
            fp: Hidden::new(register(REG_RBP)?),
            ..Registers::default()
        })
    }
}

/// Reasoned from the headers, not yet run.
#[cfg(target_arch = "aarch64")]
mod arch {
    use framehop::aarch64::{PtrAuthMask, UnwindRegsAarch64};

    use crate::snapshot::{Hidden, Registers};

    /// The vDSO's `__kernel_rt_sigreturn`: `mov x8, #139; svc #0`.
    pub(super) const TRAMPOLINE: [u8; 8] = [0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
    /// Where its second instruction begins.
    pub(super) const TRAMPOLINE_MIDDLE: u64 = 4;

    /// `struct rt_sigframe` begins with a `siginfo_t` of 128 bytes; `uc_mcontext` lies 176 bytes into the
    /// `ucontext_t` (its alignment is 16), and the registers follow `fault_address`.
    const REGS: u64 = 128 + 176 + 8;

    /// Return addresses may be signed; the bits above the highest code address are not part of them.
    pub(super) fn unwind_registers(registers: &Registers, code_end: u64) -> UnwindRegsAarch64 {
        let mask = PtrAuthMask::from_max_known_address(code_end);
        UnwindRegsAarch64::new_with_ptr_auth_mask(mask, registers.lr, registers.sp, registers.fp.get())
    }

    pub(super) fn sp(regs: &UnwindRegsAarch64) -> u64 {
        regs.sp()
    }

    pub(super) fn fp(regs: &UnwindRegsAarch64) -> u64 {
        regs.fp()
    }

    /// See the x86_64 module.
    pub(super) fn interrupted(sp: u64, read: impl Fn(u64) -> Option<u64>) -> Option<Registers> {
        let register = |index: u64| read(sp.checked_add(REGS + 8 * index)?);
        let (pc, sp, lr) = (register(32)?, register(31)?, register(30)?);
        Some(Registers { pc, sp, fp: Hidden::new(register(29)?), lr, ..Registers::default() })
    }
}
