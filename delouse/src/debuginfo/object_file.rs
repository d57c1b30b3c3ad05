//! An ELF file or image as symbols and unwinding need it: its sections and segments by name and address.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use object::elf::{
    DF_1_PIE, DT_FLAGS_1, ELF_NOTE_GNU, ET_DYN, FileHeader64, NT_GNU_BUILD_ID, PF_X, PT_GNU_EH_FRAME,
    PT_INTERP, PT_LOAD, PT_TLS, R_AARCH64_TLS_DTPMOD, R_X86_64_DTPMOD64, Rela64, SHF_COMPRESSED, SHT_NOBITS,
};
use object::pod::{Pod, slice_from_bytes};
use object::read::elf::{Dyn as _, FileHeader, Note, NoteIterator, ProgramHeader, SectionHeader};
use object::{LittleEndian, ReadRef};

use super::address::{FileAddress, LoadBias};
use super::bounded_file::BoundedFile;
use super::compressed;
use super::separate::Identity;
use crate::host::file_parts::{Access, FileParts, Missing};
use crate::host::memory_budget::Shortage;
use crate::host::shared_bytes::SharedBytes;
use crate::snapshot::{Address, FileOffset, Mapping};

/// A linked file has some dozens; more are ignored.
const MAX_SECTIONS: usize = 1 << 16;
/// A linked file has about a dozen; more are ignored.
const MAX_SEGMENTS: usize = 1 << 10;

/// A parsed ELF file of 64 bits, little endian. Of a file on disk, each section is in memory only while it is used.
#[derive(Debug, Clone)]
pub(crate) struct ObjectFile {
    source: Source,
    headers: Headers,
    /// Why something of it was not read.
    shortage: Arc<Mutex<Option<Shortage>>>,
}

#[derive(Debug, Clone)]
enum Source {
    Bytes(SharedBytes),
    File(Arc<FileParts>),
}

/// What the headers say.
#[derive(Debug, Clone)]
struct Headers {
    sections: Vec<Section>,
    loads: Vec<Load>,
    eh_frame_hdr: Option<Range<FileAddress>>,
    tls: Option<TlsSegment>,
    is_library: bool,
    entry: FileAddress,
}

/// The segment that thread locals of the executable are made from. [`Arch::thread_local`] says where they are.
///
/// [`Arch::thread_local`]: crate::snapshot::arch::Arch::thread_local
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
    /// The word that holds the number, which the loader writes.
    pub(crate) module: FileAddress,
}

/// One section.
#[derive(Debug, Clone)]
struct Section {
    name: String,
    addresses: Range<FileAddress>,
    /// Where the file has its bytes; empty for `.bss` and its like.
    stored: Range<u64>,
    compressed: bool,
}

/// One PT_LOAD segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Load {
    /// First address.
    pub(crate) address: FileAddress,
    /// Bytes in memory.
    pub(crate) memory_size: u64,
    /// Where the file has its first bytes.
    pub(crate) offset: FileOffset,
    /// Bytes in the file.
    pub(crate) file_size: u64,
    /// Whether it holds code.
    pub(crate) execute: bool,
}

impl Load {
    /// The bias of the file, of which `mapping` begins in this segment.
    pub(super) fn bias_in(&self, mapping: &Mapping) -> LoadBias {
        let start =
            mapping.range.start.get().wrapping_sub(mapping.offset.get()).wrapping_add(self.offset.get());
        LoadBias::between(self.address, Address::new(start))
    }
}

impl Headers {
    /// `None` for what is no ELF file of 64 bits, little endian. The section table may be missing (stripped files, images
    /// taken from memory).
    fn parse<'d>(data: impl ReadRef<'d>) -> Option<Self> {
        let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
        header.endian().ok()?;
        let programs = header.program_headers(LittleEndian, data).unwrap_or_default();
        let loads = programs
            .iter()
            .take(MAX_SEGMENTS)
            .filter(|p| p.p_type(LittleEndian) == PT_LOAD)
            .map(|p| Load {
                address: FileAddress::new(p.p_vaddr(LittleEndian)),
                memory_size: p.p_memsz(LittleEndian),
                offset: FileOffset::new(p.p_offset(LittleEndian)),
                file_size: p.p_filesz(LittleEndian),
                execute: p.p_flags(LittleEndian).0 & PF_X.0 != 0,
            })
            .collect();
        let eh_frame_hdr =
            programs.iter().find(|p| p.p_type(LittleEndian) == PT_GNU_EH_FRAME).and_then(|p| {
                let start = FileAddress::new(p.p_vaddr(LittleEndian));
                Some(start..start.checked_add(p.p_memsz(LittleEndian))?)
            });
        let tls = programs.iter().find(|p| p.p_type(LittleEndian) == PT_TLS);
        let tls = tls.map(|p| TlsSegment { size: p.p_memsz(LittleEndian), align: p.p_align(LittleEndian) });
        // An executable has an interpreter, or is marked as position-independent by the linker (static-pie).
        let has_interpreter = programs.iter().any(|p| p.p_type(LittleEndian) == PT_INTERP);
        let dynamic = programs.iter().find_map(|p| p.dynamic(LittleEndian, data).ok().flatten());
        let is_pie = dynamic
            .into_iter()
            .flatten()
            .any(|entry| entry.tag(LittleEndian) == DT_FLAGS_1 && entry.val(LittleEndian) & DF_1_PIE.0 != 0);
        let is_library = header.e_type(LittleEndian) == ET_DYN && !has_interpreter && !is_pie;
        let sections = match header.sections(LittleEndian, data) {
            Ok(table) => table
                .iter()
                .take(MAX_SECTIONS)
                .filter_map(|s| {
                    let name = table.section_name(LittleEndian, s).ok()?;
                    let address = FileAddress::new(s.sh_addr(LittleEndian));
                    let (offset, size) = (s.sh_offset(LittleEndian), s.sh_size(LittleEndian));
                    let is_stored = s.sh_type(LittleEndian) != SHT_NOBITS;
                    Some(Section {
                        name: String::from_utf8_lossy(name.get(..name.len().min(256))?).into_owned(),
                        addresses: address..address.checked_add(size)?,
                        stored: if is_stored { offset..offset.checked_add(size)? } else { 0..0 },
                        compressed: s.sh_flags(LittleEndian).0 & SHF_COMPRESSED.0 != 0,
                    })
                })
                .collect(),
            Err(_) => Vec::new(),
        };
        let entry = FileAddress::new(header.e_entry(LittleEndian));
        Some(Self { sections, loads, eh_frame_hdr, tls, is_library, entry })
    }
}

impl ObjectFile {
    /// Parses the headers of a file, of which nothing else is read yet; `None` for what is no ELF file of 64 bits, little
    /// endian, and what cannot be read.
    pub(crate) fn open(path: &Path, access: Access) -> Option<Self> {
        let file = FileParts::open(path, access).ok()?;
        let headers = Headers::parse(&BoundedFile::open(path).ok()?)?;
        Some(Self { source: Source::File(file), headers, shortage: Arc::default() })
    }

    /// The same of bytes in memory.
    pub(crate) fn parse(bytes: SharedBytes) -> Option<Self> {
        let headers = Headers::parse(&*bytes)?;
        Some(Self { source: Source::Bytes(bytes), headers, shortage: Arc::default() })
    }

    /// The first `length` bytes of the file.
    pub(crate) fn first_bytes(&self, length: u64) -> Option<SharedBytes> {
        self.bytes(0..length).ok()
    }

    /// Why something of it was not read for lack of memory.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        *self.shortage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self, range: Range<u64>) -> Result<SharedBytes, Missing> {
        match &self.source {
            Source::File(file) => file.part(range),
            Source::Bytes(bytes) => {
                let start = usize::try_from(range.start).map_err(|_| Missing::Absent)?;
                let end = usize::try_from(range.end).map_err(|_| Missing::Absent)?;
                bytes.slice(start..end).filter(|bytes| !bytes.is_empty()).ok_or(Missing::Absent)
            }
        }
    }

    /// What is missing, once it is noted.
    fn noted<T>(&self, found: Result<T, Missing>) -> Option<T> {
        found
            .map_err(|missing| {
                if let Missing::Short(shortage) = missing {
                    self.note(shortage);
                }
            })
            .ok()
    }

    /// Has [`shortage`](Self::shortage) tell of something that belongs to this file and was not read.
    pub(crate) fn note(&self, shortage: Shortage) {
        self.shortage.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(shortage);
    }

    /// The segment that thread locals are made from.
    pub(crate) fn tls(&self) -> Option<TlsSegment> {
        self.headers.tls
    }

    /// Where a shared library keeps its thread locals; `None` for an executable, and where it does not say.
    pub(crate) fn library_tls(&self) -> Option<LibraryTls> {
        let relocations = self.section_bytes(".rela.dyn").filter(|_| self.is_library())?;
        // Of a symbol (the upper half) it may be the number of another library.
        // The numbers of the two architectures are not used by the other one.
        let own = [R_X86_64_DTPMOD64, R_AARCH64_TLS_DTPMOD].map(|kind| u64::from(kind.0));
        let is_own = |entry: &&Rela64<_>| own.contains(&entry.r_info.get(LittleEndian));
        let entry = records(&relocations).iter().find(is_own)?;
        Some(LibraryTls { module: FileAddress::new(entry.r_offset.get(LittleEndian)) })
    }

    /// Whether this is a shared library rather than an executable.
    pub(crate) fn is_library(&self) -> bool {
        self.headers.is_library
    }

    /// The first instruction of an executable; 0 if the header has none.
    pub(crate) fn entry(&self) -> FileAddress {
        self.headers.entry
    }

    /// What a separate file with debug information must match.
    pub(crate) fn identity(&self) -> Identity {
        let build_id = self.section_bytes(".note.gnu.build-id");
        let debuglink = self.section_bytes(".gnu_debuglink");
        Identity {
            build_id: build_id.and_then(|note| build_id_in(&note).map(<[u8]>::to_vec)),
            debuglink: debuglink.and_then(|link| {
                let name = link.split(|byte| *byte == 0).next()?.to_vec();
                // After the name, its end and padding.
                let crc = link.get((name.len() + 1).next_multiple_of(4)..)?.first_chunk()?;
                Some((name, u32::from_le_bytes(*crc)))
            }),
        }
    }

    /// The PT_LOAD segments in the file's order.
    pub(crate) fn loads(&self) -> &[Load] {
        &self.headers.loads
    }

    /// The addresses that the segments span.
    pub(crate) fn span(&self) -> Option<Range<FileAddress>> {
        let start = self.headers.loads.iter().map(|l| l.address).min()?;
        let end = self.headers.loads.iter().filter_map(|l| l.address.checked_add(l.memory_size)).max()?;
        (start < end).then_some(start..end)
    }

    /// The addresses of a section.
    pub(crate) fn section_addresses(&self, name: &str) -> Option<Range<FileAddress>> {
        self.section(name).map(|s| s.addresses.clone())
    }

    /// The addresses of the section that contains `address`. Sections that are not in memory have the address 0.
    pub(crate) fn section_containing(&self, address: FileAddress) -> Option<Range<FileAddress>> {
        let mut ranges = self.headers.sections.iter().map(|s| &s.addresses);
        ranges.find(|range| range.start != FileAddress::default() && range.contains(&address)).cloned()
    }

    /// The bytes of a section that is there and not empty, uncompressed.
    pub(crate) fn section_bytes(&self, name: &str) -> Option<SharedBytes> {
        let section = self.section(name)?;
        let stored = section.stored.clone();
        let bytes = match &self.source {
            Source::File(file) if section.compressed => file.unpacked(stored, compressed::unpack),
            _ if section.compressed => self.bytes(stored).and_then(|stored| compressed::unpack(&stored)),
            _ => self.bytes(stored),
        };
        self.noted(bytes)
    }

    fn section(&self, name: &str) -> Option<&Section> {
        self.headers.sections.iter().find(|s| s.name == name)
    }

    /// The bytes that the file has for an address range, up to the end of their segment at most.
    pub(crate) fn bytes_at(&self, addresses: Range<FileAddress>) -> Option<SharedBytes> {
        let (load, within) = self.headers.loads.iter().find_map(|load| {
            let within = addresses.start.offset_from(load.address)?;
            (within < load.file_size).then_some((load, within))
        })?;
        let size = addresses.end.offset_from(addresses.start)?.min(load.file_size - within);
        let start = load.offset.get().checked_add(within)?;
        self.noted(self.bytes(start..start.checked_add(size)?))
    }

    /// `.eh_frame_hdr` and `.eh_frame` with their addresses: by section, or by program header where the
    /// section table is missing.
    pub(crate) fn unwind_tables(&self) -> UnwindTables {
        let named = |name: &str| Some((self.section_bytes(name)?, self.section_addresses(name)?));
        if let Some(eh_frame) = named(".eh_frame") {
            return UnwindTables { eh_frame_hdr: named(".eh_frame_hdr"), eh_frame: Some(eh_frame) };
        }
        let found = || {
            let addresses = self.headers.eh_frame_hdr.clone()?;
            let hdr = self.bytes_at(addresses.clone())?;
            let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(addresses.start.get());
            let parsed = gimli::EhFrameHdr::new(&hdr, gimli::LittleEndian).parse(&bases, 8).ok()?;
            let gimli::Pointer::Direct(start) = parsed.eh_frame_ptr() else { return None };
            // The header does not tell the size; the table ends with an entry of length zero.
            let start = FileAddress::new(start);
            let eh_frame = self.bytes_at(start..FileAddress::new(u64::MAX))?;
            let end = start.checked_add(eh_frame.len() as u64)?;
            Some(UnwindTables {
                eh_frame_hdr: Some((hdr, addresses)),
                eh_frame: Some((eh_frame, start..end)),
            })
        };
        found().unwrap_or_default()
    }

    /// The symbol table `name` (`.symtab`, `.dynsym`) with its strings.
    pub(crate) fn symbol_table(&self, name: &str) -> Option<(SharedBytes, SharedBytes)> {
        let strings = if name == ".dynsym" { ".dynstr" } else { ".strtab" };
        Some((self.section_bytes(name)?, self.section_bytes(strings)?))
    }
}

/// Bytes and addresses of the unwind sections.
#[derive(Debug, Default)]
pub(crate) struct UnwindTables {
    /// The sorted index, where there is one.
    pub(crate) eh_frame_hdr: Option<(SharedBytes, Range<FileAddress>)>,
    /// The tables.
    pub(crate) eh_frame: Option<(SharedBytes, Range<FileAddress>)>,
}

/// The description of the first note that is a build-id.
fn build_id_in(notes: &[u8]) -> Option<&[u8]> {
    let notes = NoteIterator::<FileHeader64<LittleEndian>>::new(LittleEndian, 4, notes);
    let is_build_id = |note: &Note<'_, FileHeader64<LittleEndian>>| {
        note.n_type(LittleEndian) == NT_GNU_BUILD_ID && note.name() == ELF_NOTE_GNU
    };
    notes.ok()?.map_while(Result::ok).find(is_build_id).map(|note| note.desc())
}

/// The entries of a table; without the rest of an incomplete one.
pub(super) fn records<T: Pod>(table: &[u8]) -> &[T] {
    slice_from_bytes(table, table.len() / size_of::<T>()).map_or(&[], |(entries, _)| entries)
}
