//! An ELF file on disk: its debug sections, symbols and segments.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use gimli::SectionId;

use super::object_file::ObjectFile;
pub(crate) use super::object_file::{LibraryTls, TlsSegment};
use super::separate;
use super::types::split;
use crate::snapshot::file_parts::Access;
use crate::snapshot::room::Shortage;
use crate::snapshot::shared_bytes::SharedBytes;
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
    /// Where that is looked for.
    package_path: PathBuf,
    /// `.dwo` files by their path (`split-debuginfo = "unpacked"`), each read when it is first asked for.
    objects: HashMap<PathBuf, OnceCell<Option<Box<Image>>>>,
}

/// Why a file gives no types.
#[derive(Debug)]
pub(crate) enum ImageError {
    /// It cannot be opened or mapped.
    Io(io::Error),
    /// It is no ELF file that we can read.
    Format,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read the file: {error}"),
            Self::Format => f.write_str("not an ELF file"),
        }
    }
}

/// A symbol of `.symtab`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol<'a> {
    /// Its mangled name.
    pub(crate) name: &'a [u8],
    /// Its address in the file; for thread locals, its offset in the TLS segment.
    pub(crate) address: u64,
}

impl Image {
    /// Parses `path`, and the files with its debug information where they are elsewhere: `.debug` by
    /// build-id or debuglink, `.dwp` beside it, or the `.dwo` files that it names.
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let _can_be_opened = std::fs::File::open(path).map_err(ImageError::Io)?;
        let object = ObjectFile::open(path, Access::Map).ok_or(ImageError::Format)?;
        let mut image = Self::of(object);
        // Its companions lie beside the file itself, not beside a link to it such as `/proc/self/exe`.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if image.section(SectionId::DebugInfo).is_empty() && image.shortage().is_none() {
            let found = separate::find(&path, &image.object.identity()).found;
            image.debug = found.and_then(|path| Self::alone(&path));
        }
        image.package_path = separate::dwp_path(&path);
        image.package = Self::alone(&image.package_path);
        if image.package.is_none() {
            let objects = split::object_files(&image).into_iter().take(MAX_OBJECTS);
            image.objects = objects.map(|path| (path, OnceCell::new())).collect();
        }
        Ok(image)
    }

    /// A file that is only part of another's debug information. Read, not mapped: rustc writes a `.dwp` in place,
    /// and a thread that reads a mapping of it just then gets SIGBUS.
    fn alone(path: &Path) -> Option<Box<Self>> {
        Some(Box::new(Self::of(ObjectFile::open(path, Access::Read)?)))
    }

    /// Parses the bytes of a file, and looks for no others.
    #[cfg(test)]
    pub(crate) fn parse(bytes: SharedBytes) -> Result<Self, ImageError> {
        ObjectFile::parse(bytes).map(Self::of).ok_or(ImageError::Format)
    }

    fn of(object: ObjectFile) -> Self {
        let symbols = object.symbol_table(".symtab");
        let section = |name| Some((name, object.section_bytes(name)?));
        let mut sections: HashMap<_, _> = SECTIONS.into_iter().filter_map(section).collect();
        if object.shortage().is_some() {
            // Some of them without the others say things that are not true.
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

    /// Says that some of it was not used, for what that would have taken.
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
        self.objects.get(path)?.get_or_init(|| Self::alone(path)).as_deref()
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

    /// All symbols that have a name and a definition.
    pub(crate) fn symbols(&self) -> Vec<Symbol<'_>> {
        let Some((entries, names)) = &self.with_debug().symbols else { return Vec::new() };
        entries.chunks_exact(SYMBOL).filter_map(|entry| symbol(entry, names)).collect()
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

    /// The addresses of a section in the file.
    pub(crate) fn section_range(&self, name: &str) -> Option<Range<u64>> {
        self.object.section_addresses(name)
    }

    /// What to add to an address in the file for the address in the process, if one of `mappings` holds
    /// this file's code at `path`.
    pub(crate) fn bias(&self, path: &Path, mappings: &[Mapping]) -> Option<u64> {
        let code = self.object.loads().iter().find(|load| load.execute)?;
        let offset = code.offset;
        let mapping = mappings.iter().find(|mapping| {
            mapping.execute
                && mapping.path.as_deref() == Some(path)
                && mapping.offset <= offset
                && offset - mapping.offset < mapping.range.end - mapping.range.start
        })?;
        Some((mapping.range.start + (offset - mapping.offset)).wrapping_sub(code.address))
    }

    /// Whether what lies in memory is of this build; `None` where that cannot be told.
    pub(crate) fn is_at(&self, bias: u64, snapshot: &dyn Snapshot) -> Option<bool> {
        const BUILD_ID: &str = ".note.gnu.build-id";
        let address = self.object.section_addresses(BUILD_ID)?.start;
        let expected = self.object.section_bytes(BUILD_ID).filter(|note| note.len() <= MAX_NOTE)?;
        let mut ran = vec![0; expected.len()];
        let read = snapshot.read(address.wrapping_add(bias), &mut ran);
        (read == ran.len()).then(|| ran == *expected)
    }
}

/// `Elf64_Sym`: st_name, st_info, st_other, st_shndx, st_value, st_size.
const SYMBOL: usize = 24;

/// A definition that has a name.
fn symbol<'a>(entry: &[u8], names: &'a [u8]) -> Option<Symbol<'a>> {
    use object::elf::{SHN_LORESERVE, SHN_UNDEF, SHN_XINDEX, STT_FUNC, STT_NOTYPE, STT_OBJECT, STT_TLS};
    let name = u32::from_le_bytes(*entry.first_chunk()?);
    let kind = entry.get(4)? & 0xf;
    let section = u16::from_le_bytes(*entry.get(6..)?.first_chunk()?);
    let address = u64::from_le_bytes(*entry.get(8..)?.first_chunk()?);
    let size = u64::from_le_bytes(*entry.get(16..)?.first_chunk()?);
    let is_placed = section != SHN_UNDEF.0 && (section < SHN_LORESERVE || section == SHN_XINDEX.0);
    let is_definition =
        is_placed && (kind == STT_FUNC.0 || kind == STT_OBJECT.0 || (kind == STT_NOTYPE.0 && size != 0));
    let name = names.get(usize::try_from(name).ok()?..)?;
    let end = memchr::memchr(0, name)?;
    (is_definition || kind == STT_TLS.0).then_some(Symbol { name: name.get(..end)?, address })
}

/// A build-id has 20 bytes, or 32.
const MAX_NOTE: usize = 256;

/// The sections that types are read from, in both forms.
const SECTIONS: [&str; 25] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_aranges",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
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
