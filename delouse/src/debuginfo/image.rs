//! An ELF file on disk: its debug sections, symbols and segments.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use gimli::SectionId;
use object::{
    CompressionFormat, Object, ObjectSection, ObjectSegment, ObjectSymbol, RelocationFlags, RelocationTarget,
    SegmentFlags,
};

use super::separate::{self, Identity};
use super::types::split;
use crate::snapshot::shared_bytes::SharedBytes;
use crate::snapshot::{Mapping, Snapshot};

/// No debug section of a file may unpack to more than this.
const MAX_SECTION: u64 = 4 << 30;

/// A larger file of debug information is left out, in bytes: it has to fit into memory.
const MAX_COMPANION: u64 = 2 << 30;
/// More `.dwo` files than a program has.
const MAX_OBJECTS: usize = 1 << 14;

/// An executable or library, mapped, with the files that its debug information was put into.
///
/// Opening costs a few milliseconds, plus the unpacking of compressed debug sections. Everything that is
/// read from it borrows from it, so that nothing is copied.
pub(crate) struct Image {
    map: SharedBytes,
    sections: HashMap<&'static str, Content>,
    /// The `.debug` file, where this one was stripped.
    debug: Option<Box<Image>>,
    /// The `.dwp` file (`split-debuginfo = "packed"`).
    package: Option<Box<Image>>,
    /// Where that is looked for.
    package_path: PathBuf,
    /// `.dwo` files by their path (`split-debuginfo = "unpacked"`).
    objects: HashMap<PathBuf, Image>,
}

enum Content {
    Mapped(Range<usize>),
    Unpacked(Vec<u8>),
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

/// Where thread locals of the executable lie, below the thread pointer on x86_64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TlsSegment {
    /// Size in memory, in bytes.
    pub(crate) size: u64,
    /// Alignment, in bytes.
    pub(crate) align: u64,
}

/// Where thread locals of a shared library lie (Drepper, "ELF Handling For Thread-Local Storage", the general dynamic
/// model): in a block of each thread's, which the thread's vector of blocks has at the number of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LibraryTls {
    /// The address in the file of the word that holds the number, which the loader writes.
    pub(crate) module: u64,
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
    /// Maps and parses `path`, and the files with its debug information where they are elsewhere: `.debug` by
    /// build-id or debuglink, `.dwp` beside it, or the `.dwo` files that it names.
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let mut image = Self::parse(SharedBytes::map(path).map_err(ImageError::Io)?)?;
        // Its companions lie beside the file itself, not beside a link to it such as `/proc/self/exe`.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if image.section(SectionId::DebugInfo).is_empty() {
            let identity = image.file().map(|file| Identity::of(&file)).unwrap_or_default();
            image.debug = separate::find(&path, &identity).found.and_then(|path| Self::alone(&path));
        }
        image.package_path = separate::dwp_path(&path);
        image.package = Self::alone(&image.package_path);
        if image.package.is_none() {
            let objects = split::object_files(&image);
            let objects = objects.into_iter().take(MAX_OBJECTS);
            image.objects = objects.filter_map(|path| Some((path.clone(), *Self::alone(&path)?))).collect();
        }
        Ok(image)
    }

    /// A file that is only part of another's debug information. Read, not mapped: rustc writes a `.dwp` in place,
    /// and who reads a mapping of it just then gets SIGBUS.
    fn alone(path: &Path) -> Option<Box<Self>> {
        Self::parse(SharedBytes::read(path, MAX_COMPANION).ok()?).ok().map(Box::new)
    }

    /// Parses the bytes of a file, and looks for no others.
    pub(crate) fn parse(map: SharedBytes) -> Result<Self, ImageError> {
        let file = object::File::parse(&*map).map_err(|_| ImageError::Format)?;
        let mut sections = HashMap::new();
        for id in SECTIONS {
            let Some(section) = file.section_by_name(id) else { continue };
            let Ok(range) = section.compressed_file_range() else { continue };
            let content = if range.format == CompressionFormat::None {
                let start = range.offset as usize;
                Content::Mapped(start..start.saturating_add(range.uncompressed_size as usize))
            } else if range.uncompressed_size <= MAX_SECTION {
                let Ok(data) = section.uncompressed_data() else { continue };
                Content::Unpacked(data.into_owned())
            } else {
                continue;
            };
            sections.insert(id, content);
        }
        Ok(Self {
            map,
            sections,
            debug: None,
            package: None,
            package_path: PathBuf::new(),
            objects: HashMap::new(),
        })
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
        self.objects.get(path)
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
        match self.sections.get(name) {
            Some(Content::Mapped(range)) => self.map.get(range.clone()).unwrap_or_default(),
            Some(Content::Unpacked(bytes)) => bytes,
            None => &[],
        }
    }

    /// All symbols that have a name and a definition.
    pub(crate) fn symbols(&self) -> Vec<Symbol<'_>> {
        let Some(file) = self.with_debug().file() else { return Vec::new() };
        file.symbols()
            .filter(|symbol| symbol.is_definition() || symbol.kind() == object::SymbolKind::Tls)
            .filter_map(|symbol| Some(Symbol { name: symbol.name_bytes().ok()?, address: symbol.address() }))
            .collect()
    }

    /// The segment that thread locals are made from.
    pub(crate) fn tls(&self) -> Option<TlsSegment> {
        use object::read::elf::{FileHeader as _, ProgramHeader as _};
        let header = object::elf::FileHeader64::<object::LittleEndian>::parse(&*self.map).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, &*self.map).ok()?;
        let tls = segments.iter().find(|s| s.p_type(endian) == object::elf::PT_TLS)?;
        Some(TlsSegment { size: tls.p_memsz(endian), align: tls.p_align(endian) })
    }

    /// Where a shared library keeps its thread locals; `None` for an executable, and where it does not say.
    pub(crate) fn library_tls(&self) -> Option<LibraryTls> {
        let file = self.file().filter(is_library)?;
        let module = file.dynamic_relocations()?.find(|(_, relocation)| {
            let RelocationFlags::Elf { r_type } = relocation.flags() else { return false };
            // Of a symbol it may be the number of another library.
            r_type == object::elf::R_X86_64_DTPMOD64 && relocation.target() == RelocationTarget::Absolute
        })?;
        Some(LibraryTls { module: module.0 })
    }

    /// Whether this is a shared library rather than an executable.
    pub(crate) fn is_library(&self) -> bool {
        self.file().is_some_and(|file| is_library(&file))
    }

    /// The addresses of a section in the file.
    pub(crate) fn section_range(&self, name: &str) -> Option<Range<u64>> {
        let file = self.file()?;
        let section = file.section_by_name(name)?;
        Some(section.address()..section.address().checked_add(section.size())?)
    }

    /// What to add to an address in the file for the address in the process, if one of `mappings` holds
    /// this file's code at `path`.
    pub(crate) fn bias(&self, path: &Path, mappings: &[Mapping]) -> Option<u64> {
        let file = self.file()?;
        let code = file.segments().find(|segment| {
            matches!(segment.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags.0 & object::elf::PF_X.0 != 0)
        })?;
        let (offset, _) = code.file_range();
        let mapping = mappings.iter().find(|mapping| {
            mapping.execute
                && mapping.path.as_deref() == Some(path)
                && mapping.offset <= offset
                && offset - mapping.offset < mapping.range.end - mapping.range.start
        })?;
        Some((mapping.range.start + (offset - mapping.offset)).wrapping_sub(code.address()))
    }

    /// Whether what lies in memory is of this build; `None` where that cannot be told.
    pub(crate) fn is_at(&self, bias: u64, snapshot: &dyn Snapshot) -> Option<bool> {
        let file = self.file()?;
        let section = file.section_by_name(".note.gnu.build-id")?;
        let expected = section.data().ok().filter(|note| note.len() <= MAX_NOTE)?;
        let mut ran = vec![0; expected.len()];
        let read = snapshot.read(section.address().wrapping_add(bias), &mut ran);
        (read == ran.len()).then(|| ran == expected)
    }

    fn file(&self) -> Option<object::File<'_>> {
        object::File::parse(&*self.map).ok()
    }
}

/// An executable has an interpreter, or is marked as position-independent by the linker (static-pie).
fn is_library(file: &object::File<'_>) -> bool {
    use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
    let object::File::Elf64(file) = file else { return false };
    let (header, endian, data) = (file.elf_header(), file.endian(), file.data());
    let interpreter =
        |segment: &&_| object::read::elf::ProgramHeader::p_type(*segment, endian) == object::elf::PT_INTERP;
    let segments = file.elf_program_headers();
    let dynamic = segments.iter().find_map(|segment| segment.dynamic(endian, data).ok().flatten());
    let is_pie = dynamic.into_iter().flatten().any(|entry| {
        entry.tag(endian) == object::elf::DT_FLAGS_1 && entry.val(endian) & object::elf::DF_1_PIE.0 != 0
    });
    header.e_type(endian) == object::elf::ET_DYN && !segments.iter().any(|s| interpreter(&s)) && !is_pie
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
