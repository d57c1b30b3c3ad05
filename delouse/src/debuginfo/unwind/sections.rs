//! The unwind tables of a module in the form in which framehop takes them.

use std::ops::Range;

use framehop::ModuleSectionInfo;

use crate::debuginfo::address::FileAddress;
use crate::debuginfo::module::Module;
use crate::debuginfo::object_file::{ObjectFile, UnwindTables};
use crate::host::shared_bytes::SharedBytes;
use crate::snapshot::Address;

const DEBUG_FRAME: &str = ".debug_frame";

/// What framehop asks of a module.
pub(super) struct Sections {
    base: FileAddress,
    tables: UnwindTables,
    debug_frame: Option<SharedBytes>,
    text: Option<Range<FileAddress>>,
    got: Option<Range<FileAddress>>,
}

impl Sections {
    /// With `.eh_frame`, the tables that programs unwind by themselves.
    pub(super) fn of(module: &Module) -> Self {
        let tables = Self::sound_tables(&module.object);
        Self::with(module, tables, None)
    }

    /// `.eh_frame` with its index, if the index is sound.
    pub(super) fn sound_tables(object: &ObjectFile) -> UnwindTables {
        let mut tables = object.unwind_tables();
        if let (Some(index), Some((_, eh_frame))) = (&tables.eh_frame_hdr, &tables.eh_frame)
            && !is_sound(index, eh_frame)
        {
            // framehop makes an index of its own then.
            tables.eh_frame_hdr = None;
        }
        tables
    }

    /// With `.debug_frame`, the tables for debuggers; `None` if the file has none.
    pub(super) fn of_debug_frame(module: &Module) -> Option<Self> {
        let debug_frame = module.object.section_bytes(DEBUG_FRAME)?;
        Some(Self::with(module, UnwindTables::default(), Some(debug_frame)))
    }

    fn with(module: &Module, tables: UnwindTables, debug_frame: Option<SharedBytes>) -> Self {
        let object = &module.object;
        Self {
            base: object.span().map_or(FileAddress::default(), |span| span.start),
            tables,
            debug_frame,
            text: object.section_addresses(".text"),
            got: object.section_addresses(".got"),
        }
    }

    /// Bytes and address of `.eh_frame_hdr` and of `.eh_frame`.
    pub(super) fn tables(&self) -> &UnwindTables {
        &self.tables
    }

    /// The bytes of `.debug_frame`.
    pub(super) fn debug_frame(&self) -> Option<&SharedBytes> {
        self.debug_frame.as_ref()
    }

    /// The module as framehop takes it.
    pub(super) fn module(self, module: &Module) -> framehop::Module<SharedBytes> {
        let base = module.bias.process_address(self.base);
        framehop::Module::new(module.name.clone(), Address::words(&module.range), base.get(), self)
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
            b".debug_frame" => self.debug_frame.clone(),
            _ => None,
        }
    }
}
