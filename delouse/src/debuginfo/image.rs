//! An ELF file on disk: its debug sections, symbols and segments.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gimli::SectionId;
use object::LittleEndian;
use object::elf::{
    SHN_LORESERVE, SHN_UNDEF, SHN_XINDEX, STT_FUNC, STT_NOTYPE, STT_OBJECT, STT_TLS, Sym64, SymbolType,
};

use super::address::{FileAddress, LoadBias};
use super::entries::bytes;
pub(crate) use super::object_file::{LibraryTls, TlsSegment};
use super::object_file::{ObjectFile, records};
use super::separate;
use super::types::dwo;
use crate::host::file_parts::Access;
use crate::host::memory_budget::Shortage;
use crate::host::shared_bytes::SharedBytes;
use crate::snapshot::{Mapping, Snapshot};

/// More `.dwo` files than a program has.
const MAX_OBJECTS: usize = 1 << 14;

/// An executable or library with the files that its debug information was put into.
///
/// Opening costs a few milliseconds, plus the unpacking of compressed debug sections. Everything that is
/// read from it borrows from it, so that nothing is copied. What would take too much of the memory that is left to the
/// program is not there, as if the file had been built without: see [`Image::shortage`].
pub(crate) struct Image {
    object: ObjectFile,
    sections: HashMap<&'static str, SharedBytes>,
    /// `.symtab` and its names.
    symbols: Option<(SharedBytes, SharedBytes)>,
    /// The `.debug` file, where this one was stripped.
    debug: Option<Box<Image>>,
    /// The `.dwp` file (`split-debuginfo = "packed"`).
    package: Option<Box<Image>>,
    /// Where the `.dwp` file is looked for.
    package_path: PathBuf,
    /// `.dwo` files by their path (`split-debuginfo = "unpacked"`), each read when it is first asked for.
    objects: HashMap<PathBuf, OnceLock<Option<Box<Image>>>>,
}

/// Why a file gives no types.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// It cannot be opened or mapped.
    #[error("cannot read the file: {0}")]
    Io(#[from] io::Error),
    /// It is no ELF file that we can read.
    #[error("not an ELF file")]
    Format,
}

/// A symbol of `.symtab` that is no thread local.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol<'a> {
    /// Its mangled name.
    pub(crate) name: &'a [u8],
    pub(crate) address: FileAddress,
}

impl Image {
    /// Parses `path`, and the files with its debug information where they are elsewhere: `.debug` by
    /// build-id or debuglink, `.dwp` beside it, or the `.dwo` files that it names.
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let _can_be_opened = std::fs::File::open(path)?;
        let mut image = Self::open_with(path, &SECTIONS)?;
        // Its companions lie beside the file itself, not beside a link to it such as `/proc/self/exe`.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        image.find_separate(&path, &SECTIONS);
        image.find_split_units(&path);
        Ok(image)
    }

    /// Opens `path` for its symbols alone, without debug sections, whose unpacking may take long.
    pub(crate) fn open_for_symbols(path: &Path) -> Result<Self, ImageError> {
        let mut image = Self::open_with(path, &[])?;
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        image.find_separate(&path, &[]);
        Ok(image)
    }

    fn open_with(path: &Path, sections: &[&'static str]) -> Result<Self, ImageError> {
        let object = ObjectFile::open(path, Access::Map).ok_or(ImageError::Format)?;
        Ok(Self::of(object, sections))
    }

    /// Searches for a `.debug` file, where there is no debug information in this one.
    fn find_separate(&mut self, path: &Path, sections: &[&'static str]) {
        if self.object.section_addresses(".debug_info").is_none() && self.shortage().is_none() {
            let found = separate::find(path, &self.object.identity()).found;
            self.debug = found.and_then(|path| Self::alone(&path, sections));
        }
    }

    /// The file at `path`, which was opened before, with what lines and functions are read from, and with its split units,
    /// but without a search for a `.debug` file.
    pub(super) fn with_lines(object: ObjectFile, path: &Path) -> Self {
        let mut image = Self::of(object, &LINE_SECTIONS);
        image.find_split_units(path);
        image
    }

    fn find_split_units(&mut self, path: &Path) {
        self.package_path = separate::dwp_path(path);
        self.package = Self::alone(&self.package_path, &SECTIONS);
        if self.package.is_none() {
            let objects = dwo::object_files(|id| self.section(id)).into_iter().take(MAX_OBJECTS);
            self.objects = objects.map(|path| (path, OnceLock::new())).collect();
        }
    }

    /// A file that is only part of another's debug information. Read, not mapped: rustc writes a `.dwp` in place,
    /// and a thread that reads a mapping of it just then gets SIGBUS.
    fn alone(path: &Path, sections: &[&'static str]) -> Option<Box<Self>> {
        Some(Box::new(Self::of(ObjectFile::open(path, Access::Read)?, sections)))
    }

    /// Parses the bytes of a file, and looks for no others.
    #[cfg(test)]
    pub(crate) fn parse(bytes: SharedBytes) -> Result<Self, ImageError> {
        ObjectFile::parse(bytes).map(|object| Self::of(object, &SECTIONS)).ok_or(ImageError::Format)
    }

    fn of(object: ObjectFile, sections: &[&'static str]) -> Self {
        let symbols = object.symbol_table(".symtab");
        let section = |name: &&'static str| Some((*name, object.section_bytes(name)?));
        let mut sections: HashMap<_, _> = sections.iter().filter_map(section).collect();
        if object.shortage().is_some() {
            // A part of the sections would give wrong answers.
            sections.clear();
        }
        Self {
            object,
            sections,
            symbols,
            debug: None,
            package: None,
            package_path: PathBuf::new(),
            objects: HashMap::new(),
        }
    }

    /// Why debug information that is there was not read.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        let companions = [&self.debug, &self.package].into_iter().flatten();
        let objects = self.objects.values().filter_map(|object| object.get()?.as_ref());
        let mut all = companions.chain(objects).map(|image| image.object.shortage());
        self.object.shortage().or_else(|| all.find_map(|shortage| shortage))
    }

    /// Notes that some debug information was not used, because of the memory that it would have taken.
    pub(crate) fn note(&self, shortage: Shortage) {
        self.object.note(shortage);
    }

    /// The file with the debug sections: this one, or its `.debug` file.
    fn with_debug(&self) -> &Self {
        self.debug.as_deref().unwrap_or(self)
    }

    /// The package of split units.
    pub(crate) fn package(&self) -> Option<&Self> {
        self.package.as_deref()
    }

    /// Where the package of split units is, or would be.
    pub(crate) fn package_path(&self) -> &Path {
        &self.package_path
    }

    /// The `.dwo` file at `path`.
    pub(crate) fn object(&self, path: &Path) -> Option<&Self> {
        self.objects.get(path)?.get_or_init(|| Self::alone(path, &SECTIONS)).as_deref()
    }

    /// The bytes of a debug section, empty where the file has none.
    pub(crate) fn section(&self, id: SectionId) -> &[u8] {
        self.with_debug().named(id.name())
    }

    /// The same for the `.dwo` form of a section.
    pub(crate) fn dwo_section(&self, id: SectionId) -> &[u8] {
        id.dwo_name().map_or(&[], |name| self.named(name))
    }

    fn named(&self, name: &str) -> &[u8] {
        self.sections.get(name).map_or(&[], |bytes| bytes)
    }

    /// All symbols that have a name and a definition, without thread locals.
    pub(crate) fn symbols(&self) -> Vec<Symbol<'_>> {
        let placed = self.definitions().filter(|(kind, ..)| *kind != STT_TLS);
        placed.map(|(_, name, value)| Symbol { name, address: FileAddress::new(value) }).collect()
    }

    /// The section that the names of symbols are in.
    pub(crate) fn symbol_names(&self) -> &[u8] {
        self.with_debug().symbols.as_ref().map_or(&[], |(_, names)| names)
    }

    /// The names of all thread locals, with their offsets in the TLS segment. Reads the whole symbol table.
    pub(crate) fn thread_locals(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.definitions().filter(|(kind, ..)| *kind == STT_TLS).map(|(_, name, offset)| (name, offset))
    }

    /// Kind, name and value of each symbol that has a name and a definition.
    fn definitions(&self) -> impl Iterator<Item = (SymbolType, &[u8], u64)> {
        let tables = self.with_debug().symbols.iter();
        tables
            .flat_map(|(entries, names)| records(entries).iter().filter_map(|entry| definition(entry, names)))
    }

    /// The segment that thread locals are made from.
    pub(crate) fn tls(&self) -> Option<TlsSegment> {
        self.object.tls()
    }

    /// Where a shared library keeps its thread locals; `None` for an executable, and where it does not say.
    pub(crate) fn library_tls(&self) -> Option<LibraryTls> {
        self.object.library_tls()
    }

    /// Whether this is a shared library rather than an executable.
    pub(crate) fn is_library(&self) -> bool {
        self.object.is_library()
    }

    /// The addresses of a section.
    pub(crate) fn section_range(&self, name: &str) -> Option<Range<FileAddress>> {
        self.object.section_addresses(name)
    }

    /// The bias of this file, if one of `mappings` holds its code at `path`.
    pub(crate) fn bias(&self, path: &Path, mappings: &[Mapping]) -> Option<LoadBias> {
        let code = self.object.loads().iter().find(|load| load.execute)?;
        let mapping = mappings.iter().find(|mapping| {
            mapping.execute
                && mapping.path.as_deref() == Some(path)
                && code.offset.offset_from(mapping.offset).is_some_and(|within| within < mapping.size())
        })?;
        Some(code.bias_in(mapping))
    }

    /// Whether what lies in memory is of this build; `None` where that cannot be told.
    pub(crate) fn is_at(&self, bias: LoadBias, snapshot: &dyn Snapshot) -> Option<bool> {
        const BUILD_ID: &str = ".note.gnu.build-id";
        let address = self.object.section_addresses(BUILD_ID)?.start;
        let expected = self.object.section_bytes(BUILD_ID).filter(|note| note.len() <= MAX_NOTE)?;
        let mut ran = vec![0; expected.len()];
        let read = snapshot.read(bias.process_address(address), &mut ran);
        (read == ran.len()).then(|| ran == *expected)
    }
}

/// Kind, name and value of a definition that has a name.
fn definition<'a>(entry: &Sym64<LittleEndian>, names: &'a [u8]) -> Option<(SymbolType, &'a [u8], u64)> {
    let (kind, section) = (entry.st_type(), entry.st_shndx.get(LittleEndian));
    let is_placed = section != SHN_UNDEF && (section.0 < SHN_LORESERVE || section == SHN_XINDEX);
    let is_definition = match kind {
        STT_NOTYPE => entry.st_size.get(LittleEndian) != 0,
        kind => matches!(kind, STT_FUNC | STT_OBJECT | STT_TLS),
    };
    if !is_placed || !is_definition {
        return None;
    }
    let name = names.get(usize::try_from(entry.st_name.get(LittleEndian)).ok()?..)?;
    let name = bytes::until_zero(name);
    Some((kind, name, entry.st_value.get(LittleEndian)))
}

/// A build-id has 20 bytes, or 32.
const MAX_NOTE: usize = 256;

/// The sections that functions and lines are read from.
const LINE_SECTIONS: [&str; 10] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_aranges",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
];

/// The sections that types are read from, in both forms.
const SECTIONS: [&str; 26] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_aranges",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_loc",
    ".debug_loclists",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
    ".debug_types",
    ".debug_abbrev.dwo",
    ".debug_cu_index",
    ".debug_info.dwo",
    ".debug_line.dwo",
    // Not read, but a package that has them must show them all.
    ".debug_loc.dwo",
    ".debug_macinfo.dwo",
    ".debug_macro.dwo",
    ".debug_loclists.dwo",
    ".debug_rnglists.dwo",
    ".debug_str.dwo",
    ".debug_str_offsets.dwo",
    ".debug_tu_index",
    ".debug_types.dwo",
];
