//! From registers and a stack to the return addresses on it.
//!
//! Each frame is unwound by the best of these: `.eh_frame`; `.debug_frame`; the instructions of the function up to the
//! frame's place ([`without_tables`]); a search for a return address, whose result is marked as a guess.

mod coverage;
mod sections;
mod survey;
mod tables;
mod without_tables;

use std::sync::Arc;

use framehop::FrameAddress;
use rustc_hash::FxHashMap;

use super::frame_pointer::{self, Functions};
use super::modules::Modules;
use crate::snapshot::arch::{Arch, Unwinding};
use crate::snapshot::{Address, Hidden, Registers, Snapshot, StackCopy, Thread};
pub(super) use survey::TableSurvey;
use tables::Table;
pub(super) use tables::Tables;
use without_tables::{Caller, Guesses};

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
    /// It was found by a search for a return address. Frames outside of it depend on it.
    pub(crate) is_guess: bool,
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
    tables: Arc<Tables>,
    eh_frames: Box<dyn Unwinding>,
    debug_frames: Box<dyn Unwinding>,
    functions: Functions,
    known: FxHashMap<Address, Table>,
}

impl Unwinder {
    /// Takes the unwind tables of `modules`. They are read the first time: about 1 ns for each function, more where a linker was
    /// told to leave the index `.eh_frame_hdr` out.
    pub(crate) fn new(modules: &Modules, arch: &dyn Arch) -> Self {
        let tables = modules.tables.get_or_init(|| Arc::new(Tables::of(modules.list(), arch))).clone();
        Self {
            eh_frames: tables.unwinding.fresh(),
            debug_frames: tables.debug_frames.fresh(),
            tables,
            functions: Functions::of(modules),
            known: FxHashMap::default(),
        }
    }

    /// The stack of `thread`, innermost first; empty where it has no registers.
    pub(crate) fn unwind(
        &mut self,
        snapshot: &dyn Snapshot,
        thread: &Thread,
    ) -> (Vec<CodeAddress>, StackEnd) {
        let (places, end) = self.walk(snapshot, thread, Guesses::Allowed);
        (places.into_iter().map(|place| place.at).collect(), end)
    }

    /// The stack of `thread`, innermost first, with the registers of each place; up to the first that would be a guess.
    pub(crate) fn places(&mut self, snapshot: &dyn Snapshot, thread: &Thread) -> Vec<StackPlace> {
        self.walk(snapshot, thread, Guesses::None).0
    }

    /// A thread that was not stopped may have no frame pointer: where that matters, it is found by the stack.
    fn walk(
        &mut self,
        snapshot: &dyn Snapshot,
        thread: &Thread,
        guesses: Guesses,
    ) -> (Vec<StackPlace>, StackEnd) {
        let Ok(registers) = thread.registers else { return (Vec::new(), StackEnd::NoUnwindInfo) };
        if registers.fp.get() != 0 {
            return self.walk_from(snapshot, thread, &registers, guesses);
        }
        let known = self.walk_from(snapshot, thread, &registers, Guesses::None);
        let find = |last: &StackPlace| {
            frame_pointer::find(snapshot, &self.functions, thread, last.at.lookup(), last.sp)
        };
        let longer = match known.0.last().and_then(find) {
            Some(fp) => {
                let completed = Registers { fp: Hidden::new(fp.get()), ..registers };
                Some(self.walk_from(snapshot, thread, &completed, guesses))
            }
            None => None,
        };
        let best = longer.filter(|longer| longer.0.len() > known.0.len()).unwrap_or(known);
        if guesses == Guesses::None || best.1 == StackEnd::Complete {
            return best;
        }
        let guessed = self.walk_from(snapshot, thread, &registers, guesses);
        if guessed.0.len() > best.0.len() { guessed } else { best }
    }

    fn walk_from(
        &mut self,
        snapshot: &dyn Snapshot,
        thread: &Thread,
        registers: &Registers,
        guesses: Guesses,
    ) -> (Vec<StackPlace>, StackEnd) {
        let mut places = Vec::new();
        let memory = Memory { snapshot, stack: thread.stack.as_ref() };
        self.eh_frames.begin(registers);
        let mut at = FrameAddress::from_instruction_pointer(registers.pc.get());
        let (mut is_guess, mut fp_is_known) = (false, registers.fp.get() != 0);
        let end = loop {
            if places.len() >= MAX_FRAMES {
                break StackEnd::TooDeep;
            }
            let pc = Address::new(at.address());
            let is_signal = memory.is_trampoline(pc);
            let code =
                CodeAddress { pc, is_return: at.is_return_address() && !is_signal, is_signal, is_guess };
            let current = self.eh_frames.registers();
            let place = StackPlace { at: code, sp: current.sp, fp: Address::new(current.fp.get()) };
            places.push(place);
            is_guess = false;
            if is_signal {
                let Some(interrupted) = memory.interrupted(place.sp) else { break StackEnd::MemoryEnds };
                self.eh_frames.begin(&interrupted);
                at = FrameAddress::from_instruction_pointer(interrupted.pc.get());
                fp_is_known = true;
                continue;
            }
            let table = self.table(code.lookup());
            let by_table = match table {
                Table::EhFrame => Some(self.by_eh_frame(at, &memory)),
                Table::DebugFrame => Some(self.by_debug_frame(at, &memory)),
                Table::None if snapshot.arch().keeps_frame_pointers() => {
                    Some(self.by_eh_frame(at, &memory).and_then(|caller| guessed(caller, guesses)))
                }
                Table::None => None,
            };
            // A frame pointer that is not known leads the tables astray.
            let caller = match by_table {
                Some(Err(_)) if !fp_is_known && guesses == Guesses::Allowed => None,
                by_table => by_table,
            };
            let caller = match caller {
                Some(caller) => caller,
                None => without_tables::caller(&memory, &self.tables, &place, table, guesses),
            };
            match caller {
                Ok(Caller::ByTable { address, is_guess: guessed }) => {
                    let Some(next) = FrameAddress::from_return_address(address) else {
                        break StackEnd::Complete;
                    };
                    (at, is_guess) = (next, guessed);
                }
                Ok(Caller::Found { pc, sp, fp, is_guess: guessed, fp_is_known: known }) => {
                    let Some(next) = FrameAddress::from_return_address(pc.get()) else {
                        break StackEnd::Complete;
                    };
                    self.eh_frames.begin(&Registers {
                        pc,
                        sp,
                        fp: Hidden::new(fp.get()),
                        ..Registers::default()
                    });
                    (at, is_guess, fp_is_known) = (next, guessed, known && (fp_is_known || fp != place.fp));
                }
                Err(end) => break end,
            }
        };
        (places, end)
    }

    /// The table that describes the code at `address`.
    fn table(&mut self, address: Address) -> Table {
        *self.known.entry(address).or_insert_with(|| self.tables.table(address))
    }

    /// The caller of the frame at `at`.
    fn by_eh_frame(&mut self, at: FrameAddress, memory: &Memory<'_>) -> Result<Caller, StackEnd> {
        by_table(self.eh_frames.as_mut(), at, memory)
    }

    /// The same by the other tables, which begin with the registers that these have arrived at.
    fn by_debug_frame(&mut self, at: FrameAddress, memory: &Memory<'_>) -> Result<Caller, StackEnd> {
        self.debug_frames.begin(&self.eh_frames.registers());
        let caller = by_table(self.debug_frames.as_mut(), at, memory);
        self.eh_frames.begin(&self.debug_frames.registers());
        caller
    }
}

/// Marks a caller that was found by the frame pointer alone.
fn guessed(caller: Caller, guesses: Guesses) -> Result<Caller, StackEnd> {
    match caller {
        Caller::ByTable { address, .. } if guesses == Guesses::Allowed => {
            Ok(Caller::ByTable { address, is_guess: true })
        }
        _ => Err(StackEnd::NoUnwindInfo),
    }
}

fn by_table(
    unwinding: &mut dyn Unwinding,
    at: FrameAddress,
    memory: &Memory<'_>,
) -> Result<Caller, StackEnd> {
    let mut missing = false;
    let mut read = |address: u64| {
        let word = memory.read_u64(Address::new(address));
        missing |= word.is_none();
        word.ok_or(())
    };
    match unwinding.next(at, &mut read) {
        Ok(Some(address)) if memory.is_code(Address::new(address)) => {
            Ok(Caller::ByTable { address, is_guess: false })
        }
        Ok(Some(_)) => Err(StackEnd::NoUnwindInfo),
        Ok(None) => Err(StackEnd::Complete),
        Err(framehop::Error::ReturnAddressIsNull) if at.is_return_address() => Err(StackEnd::Complete),
        Err(framehop::Error::ReturnAddressIsNull) => Err(StackEnd::Between),
        Err(_) if missing => Err(StackEnd::MemoryEnds),
        Err(_) => Err(StackEnd::NoUnwindInfo),
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

    /// Copies memory that starts at `address`, and returns how many bytes: as many as the copied stack has, if it has the
    /// first.
    fn read_some(&self, address: Address, buf: &mut [u8]) -> usize {
        let copied = self.stack.and_then(|copy| {
            let within = usize::try_from(address.offset_from(copy.base)?).ok()?;
            copy.bytes.get(within..).filter(|bytes| !bytes.is_empty())
        });
        let Some(copied) = copied else { return self.snapshot.read(address, buf) };
        buf.iter_mut().zip(copied).for_each(|(to, from)| *to = *from);
        buf.len().min(copied.len())
    }

    /// Whether `address` is in memory that may be executed.
    fn is_code(&self, address: Address) -> bool {
        self.snapshot.mapping(address).is_some_and(|mapping| mapping.execute)
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
