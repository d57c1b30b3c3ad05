//! The unwind tables of all modules of a snapshot.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::coverage::Coverage;
use super::sections::Sections;
use crate::debuginfo::address::{FileAddress, LoadBias};
use crate::debuginfo::module::Module;
use crate::debuginfo::object_file::ObjectFile;
use crate::debuginfo::symbols::SymbolTable;
use crate::snapshot::Address;
use crate::snapshot::arch::{Arch, Unwinding};

/// How far from the entry point of an executable its first function extends.
const FIRST_FUNCTION: u64 = 64;

/// The tables, and what serves in their place where they are missing.
pub(in crate::debuginfo) struct Tables {
    /// `.eh_frame` of all modules.
    pub(super) unwinding: Box<dyn Unwinding>,
    /// `.debug_frame` of all modules that have it.
    pub(super) debug_frames: Box<dyn Unwinding>,
    modules: Vec<ModuleTables>,
}

/// What is known about the code of one module.
struct ModuleTables {
    range: Range<Address>,
    bias: LoadBias,
    object: Arc<ObjectFile>,
    eh_frame: Coverage,
    debug_frame: Option<Coverage>,
    symbols: OnceLock<SymbolTable>,
}

/// The table that describes a piece of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    EhFrame,
    DebugFrame,
    None,
}

impl Tables {
    /// Reads the tables' headers; whole tables where a linker left out the index.
    pub(super) fn of(modules: &[Module], arch: &dyn Arch) -> Self {
        let mut tables =
            Self { unwinding: arch.unwinding(), debug_frames: arch.unwinding(), modules: Vec::new() };
        for module in modules {
            tables.add(module);
        }
        tables
    }

    fn add(&mut self, module: &Module) {
        let sections = Sections::of(module);
        let eh_frame = Coverage::of_eh_frame(sections.tables());
        self.unwinding.add_module(sections.module(module));
        let debug_sections = Sections::of_debug_frame(module);
        let debug_frame = debug_sections.map(|sections| {
            let coverage = Coverage::of_debug_frame(sections.debug_frame().map_or(&[], |bytes| bytes));
            self.debug_frames.add_module(sections.module(module));
            coverage
        });
        self.modules.push(ModuleTables {
            range: module.range.clone(),
            bias: module.bias,
            object: module.object.clone(),
            eh_frame,
            debug_frame,
            symbols: OnceLock::new(),
        });
    }

    fn module(&self, address: Address) -> Option<(&ModuleTables, FileAddress)> {
        let module = self.modules.iter().find(|module| module.range.contains(&address))?;
        Some((module, module.bias.file_address(address)))
    }

    /// The table that describes the code at `address`.
    pub(super) fn table(&self, address: Address) -> Table {
        let Some((module, address)) = self.module(address) else { return Table::None };
        let by_debugger = || module.debug_frame.as_ref().is_some_and(|table| table.contains(address));
        match module.eh_frame.contains(address) {
            true => Table::EhFrame,
            false if by_debugger() => Table::DebugFrame,
            false => Table::None,
        }
    }

    /// The function that contains `address`, by the symbol table.
    pub(super) fn function(&self, address: Address) -> Option<Range<Address>> {
        let (module, address) = self.module(address)?;
        let symbols = module.symbols.get_or_init(|| SymbolTable::of_object(&module.object));
        Some(module.bias.process_range(&symbols.function(address)?))
    }

    /// Whether `address` is in the first function of an executable, which has no caller.
    pub(super) fn is_first_function(&self, address: Address) -> bool {
        self.module(address).is_some_and(|(module, address)| {
            let entry = module.object.entry();
            entry != FileAddress::default()
                && !module.object.is_library()
                && address.offset_from(entry).is_some_and(|within| within < FIRST_FUNCTION)
        })
    }
}
