//! From registers and a stack to the return addresses on it.

use std::ops::Range;

use framehop::{FrameAddress, ModuleSectionInfo};

use super::address::FileAddress;
use super::frame_pointer::{self, Functions};
use super::modules::{Module, Modules};
use super::object_file::UnwindTables;
use crate::host::shared_bytes::SharedBytes;
use crate::snapshot::arch::{Arch, Unwinding};
use crate::snapshot::{Address, Hidden, Registers, Snapshot, StackCopy, Thread};

/// More frames than this are cut off: an endless recursion fills 8 MB with some hundred thousand of them.
pub(crate) const MAX_FRAMES: usize = 512;

/// A place in a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CodeAddress {
    /// The program counter, or the address that will be returned to.
    pub(crate) pc: Address,
    /// A return address lies behind its call, perhaps already in the next line or function.
    pub(crate) is_return: bool,
    /// The kernel put a signal's frame here; the frames above it are the handler's.
    pub(crate) is_signal: bool,
}

impl CodeAddress {
    /// An address inside of the instruction that is being executed.
    pub(crate) fn lookup(self) -> Address {
        if self.is_return { self.pc.saturating_sub(1) } else { self.pc }
    }
}

/// A place in a stack, with the registers that the code there has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StackPlace {
    pub(crate) at: CodeAddress,
    /// The stack pointer.
    pub(crate) sp: Address,
    /// The frame pointer, where the code keeps one.
    pub(crate) fp: Address,
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

/// Unwinds the threads of one snapshot. Reuse it: it learns.
pub(crate) struct Unwinder {
    unwinding: Box<dyn Unwinding>,
    functions: Functions,
}

impl Unwinder {
    /// Takes the unwind tables of `modules`. They are read the first time: about 1 ns for each function, more where a linker was
    /// told to leave the index `.eh_frame_hdr` out.
    pub(crate) fn new(modules: &Modules, arch: &dyn Arch) -> Self {
        let read = || {
            let mut tables = arch.unwinding();
            for module in modules.list() {
                let info = Sections::of(module);
                let base = module.bias.process_address(info.base);
                let range = Address::words(&module.range);
                tables.add_module(framehop::Module::new(module.name.clone(), range, base.get(), info));
            }
            tables
        };
        let unwinding = modules.tables.get_or_init(read).fresh();
        Self { unwinding, functions: Functions::of(modules) }
    }

    /// The stack of `thread`, innermost first; empty where it has no registers.
    pub(crate) fn unwind(
        &mut self,
        snapshot: &dyn Snapshot,
        thread: &Thread,
    ) -> (Vec<CodeAddress>, StackEnd) {
        let (places, end) = self.walk(snapshot, thread);
        (places.into_iter().map(|place| place.at).collect(), end)
    }

    /// The stack of `thread`, innermost first, with the registers of each place.
    pub(crate) fn places(&mut self, snapshot: &dyn Snapshot, thread: &Thread) -> Vec<StackPlace> {
        self.walk(snapshot, thread).0
    }

    /// A thread that was not stopped may have no frame pointer: where that matters, it is found by the stack.
    fn walk(&mut self, snapshot: &dyn Snapshot, thread: &Thread) -> (Vec<StackPlace>, StackEnd) {
        let Ok(registers) = thread.registers else { return (Vec::new(), StackEnd::NoUnwindInfo) };
        let known = self.walk_from(snapshot, thread, &registers);
        let missing = known.0.last().filter(|_| registers.fp.get() == 0);
        let find = |last: &StackPlace| {
            frame_pointer::find(snapshot, &self.functions, thread, last.at.lookup(), last.sp)
        };
        let Some(fp) = missing.and_then(find) else { return known };
        let completed = Registers { fp: Hidden::new(fp.get()), ..registers };
        let longer = self.walk_from(snapshot, thread, &completed);
        if longer.0.len() > known.0.len() { longer } else { known }
    }

    fn walk_from(
        &mut self,
        snapshot: &dyn Snapshot,
        thread: &Thread,
        registers: &Registers,
    ) -> (Vec<StackPlace>, StackEnd) {
        let mut places = Vec::new();
        let memory = Memory { snapshot, stack: thread.stack.as_ref() };
        self.unwinding.begin(registers);
        let mut missing = false;
        let mut read = |address: u64| {
            let word = memory.read_u64(Address::new(address));
            missing |= word.is_none();
            word.ok_or(())
        };
        let mut at = FrameAddress::from_instruction_pointer(registers.pc.get());
        let end = loop {
            if places.len() >= MAX_FRAMES {
                break StackEnd::TooDeep;
            }
            let pc = Address::new(at.address());
            let is_signal = memory.is_trampoline(pc);
            let code = CodeAddress { pc, is_return: at.is_return_address() && !is_signal, is_signal };
            let [sp, fp] = <[u64; 2]>::from(self.unwinding.pointers()).map(Address::new);
            places.push(StackPlace { at: code, sp, fp });
            if is_signal {
                let Some(interrupted) = memory.interrupted(sp) else { break StackEnd::MemoryEnds };
                self.unwinding.begin(&interrupted);
                at = FrameAddress::from_instruction_pointer(interrupted.pc.get());
                continue;
            }
            match self.unwinding.next(at, &mut read) {
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
        };
        (places, end)
    }
}

/// A thread's memory: its stack as it was copied with its registers, the rest as the snapshot has it.
struct Memory<'a> {
    snapshot: &'a dyn Snapshot,
    stack: Option<&'a StackCopy>,
}

impl Memory<'_> {
    fn read_u64(&self, address: Address) -> Option<u64> {
        let copied = self.stack.and_then(|copy| copy.word(address));
        copied.or_else(|| self.snapshot.read_u64(address))
    }

    /// The registers of the code that a signal interrupted: see [`Arch::interrupted`].
    fn interrupted(&self, sp: Address) -> Option<Registers> {
        self.snapshot.arch().interrupted(sp, &|address| self.read_u64(address))
    }

    /// Whether a handler that returns to `pc` returns to the code the kernel or libc put there to end a
    /// signal's delivery. No unwind table describes the frames below it.
    fn is_trampoline(&self, pc: Address) -> bool {
        let (trampoline, middle) = self.snapshot.arch().trampoline();
        let mut buffer = [0; 16];
        let Some(code) = buffer.get_mut(..trampoline.len()) else { return false };
        let mut matches = |at: Address| self.snapshot.read(at, code) == code.len() && code == trampoline;
        matches(pc) || pc.checked_sub(middle).is_some_and(matches)
    }
}

/// What framehop asks of a module.
struct Sections {
    base: FileAddress,
    tables: UnwindTables,
    text: Option<Range<FileAddress>>,
    got: Option<Range<FileAddress>>,
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
            base: object.span().map_or(FileAddress::default(), |span| span.start),
            tables,
            text: object.section_addresses(".text"),
            got: object.section_addresses(".got"),
        }
    }
}

/// Whether `.eh_frame_hdr` is in the form that linkers write, with entries that lead into `.eh_frame`: gimli
/// 0.33 subtracts their addresses unchecked. Costs about 1 ns for each function of the module.
fn is_sound((bytes, addresses): &(SharedBytes, Range<FileAddress>), eh_frame: &Range<FileAddress>) -> bool {
    /// Version; encodings: eh_frame_ptr pcrel sdata4, fde_count udata4, table datarel sdata4 (LSB core 10.6).
    const USUAL: &[u8] = &[1, 0x1b, 0x03, 0x3b];
    const HEADER: usize = 12;
    let word = |at: usize| Some(i32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let (Some(relative), Some(count), Some(table)) = (word(4), word(8), bytes.get(HEADER..)) else {
        return false;
    };
    let at = |offset: i32| FileAddress::new(addresses.start.get().wrapping_add_signed(i64::from(offset)));
    let entries = table.len() / 8;
    let leads_inside = |entry: &[u8]| {
        let to = entry.get(4..8).and_then(|b| b.try_into().ok()).map(i32::from_le_bytes);
        to.is_some_and(|to| eh_frame.contains(&at(to)))
    };
    bytes.starts_with(USUAL)
        && relative.checked_add(4).is_some_and(|start| at(start) == eh_frame.start)
        && usize::try_from(count)
            .is_ok_and(|n| 0 < n && n <= entries && table.chunks_exact(8).take(n).all(leads_inside))
}

impl ModuleSectionInfo<SharedBytes> for Sections {
    fn base_svma(&self) -> u64 {
        self.base.get()
    }

    fn section_svma_range(&mut self, name: &[u8]) -> Option<Range<u64>> {
        let addresses = |table: &Option<_>| table.as_ref().map(|(_, a): &(SharedBytes, _)| Range::clone(a));
        let range = match name {
            b".text" => self.text.clone(),
            b".got" => self.got.clone(),
            b".eh_frame" => addresses(&self.tables.eh_frame),
            b".eh_frame_hdr" => addresses(&self.tables.eh_frame_hdr),
            _ => None,
        }?;
        Some(range.start.get()..range.end.get())
    }

    fn section_data(&mut self, name: &[u8]) -> Option<SharedBytes> {
        let bytes =
            |table: &Option<(SharedBytes, Range<FileAddress>)>| table.as_ref().map(|(b, _)| b.clone());
        match name {
            b".eh_frame" => bytes(&self.tables.eh_frame),
            b".eh_frame_hdr" => bytes(&self.tables.eh_frame_hdr),
            _ => None,
        }
    }
}
