//! framehop's unwinders, whose types depend on the architecture, behind one trait.

use framehop::{Error, FrameAddress, Module, Unwinder};

use crate::host::shared_bytes::SharedBytes;
use crate::snapshot::Registers;

/// Unwinds stacks, one frame after the other. Reuse it: it caches what it finds in unwind tables.
pub(crate) trait Unwinding: Send + Sync {
    /// The same tables with an empty cache.
    fn fresh(&self) -> Box<dyn Unwinding>;

    fn add_module(&mut self, module: Module<SharedBytes>);

    /// Begins with the frame that has these registers.
    fn begin(&mut self, registers: &Registers);

    /// The registers of the current frame, as far as they are known.
    fn registers(&self) -> Registers;

    /// Continues with the caller of the current frame, which is at `address`. Returns its return address; `None` after the
    /// last frame.
    fn next(
        &mut self,
        address: FrameAddress,
        read: &mut dyn FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Option<u64>, Error>;
}

/// framehop's registers of one architecture.
pub(super) trait UnwindRegisters: Send + Sync {
    /// Return addresses may be signed (aarch64): the bits above `code_end` are not part of them.
    fn new(registers: &Registers, code_end: u64) -> Self;

    /// Stack pointer, frame pointer and link register; also the program counter, if framehop keeps it.
    fn registers(&self) -> Registers;
}

/// framehop's unwinder of one architecture.
pub(super) struct Framehop<U: Unwinder> {
    tables: U,
    cache: U::Cache,
    registers: Option<U::UnwindRegs>,
}

impl<U: Unwinder<Cache: Default> + Default> Default for Framehop<U> {
    fn default() -> Self {
        Self { tables: U::default(), cache: U::Cache::default(), registers: None }
    }
}

impl<U> Unwinding for Framehop<U>
where
    U: Unwinder<Module = Module<SharedBytes>, Cache: Default + Send + Sync, UnwindRegs: UnwindRegisters>
        + Send
        + Sync
        + 'static,
{
    fn fresh(&self) -> Box<dyn Unwinding> {
        Box::new(Self { tables: self.tables.clone(), cache: U::Cache::default(), registers: None })
    }

    fn add_module(&mut self, module: Module<SharedBytes>) {
        self.tables.add_module(module);
    }

    fn begin(&mut self, registers: &Registers) {
        self.registers = Some(U::UnwindRegs::new(registers, self.tables.max_known_code_address()));
    }

    fn registers(&self) -> Registers {
        self.registers.as_ref().map_or_else(Registers::default, U::UnwindRegs::registers)
    }

    fn next(
        &mut self,
        address: FrameAddress,
        mut read: &mut dyn FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Option<u64>, Error> {
        match &mut self.registers {
            Some(registers) => self.tables.unwind_frame(address, registers, &mut self.cache, &mut read),
            None => Ok(None),
        }
    }
}
