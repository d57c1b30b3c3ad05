//! An ELF file or image as symbols and unwinding need it: its sections and segments by name and address.

use std::ops::Range;

use object::elf::{FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_LOAD, SHF_COMPRESSED, SHT_NOBITS};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{CompressedData, LittleEndian};

use crate::snapshot::shared_bytes::SharedBytes;

/// A linked file has some dozens; more are ignored.
const MAX_SECTIONS: usize = 1 << 16;
/// A linked file has about a dozen; more are ignored.
const MAX_SEGMENTS: usize = 1 << 10;
/// What one compressed section may grow to, in bytes.
const MAX_UNCOMPRESSED: u64 = 1 << 30;
/// Deflate reaches 1,032 : 1; whatever claims more is damaged.
const MAX_RATIO: u64 = 1_100;

/// A parsed ELF file of 64 bits, little endian.
#[derive(Debug, Clone)]
pub(crate) struct ObjectFile {
    bytes: SharedBytes,
    sections: Vec<Section>,
    loads: Vec<Load>,
    eh_frame_hdr: Option<Range<u64>>,
}

/// One section.
#[derive(Debug, Clone)]
struct Section {
    name: String,
    /// Addresses as the file states them.
    addresses: Range<u64>,
    /// Where the file has its bytes; empty for `.bss` and its like.
    stored: Range<usize>,
    compressed: bool,
}

/// One PT_LOAD segment. Addresses are those that the file states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Load {
    /// First address.
    pub(crate) address: u64,
    /// Bytes in memory.
    pub(crate) memory_size: u64,
    /// Where the file has its first bytes.
    pub(crate) offset: u64,
    /// Bytes in the file.
    pub(crate) file_size: u64,
    /// Whether it holds code.
    pub(crate) execute: bool,
}

impl ObjectFile {
    /// Parses the headers; `None` for what is no ELF file of 64 bits, little endian. The section table may
    /// be missing (stripped files, images taken from memory).
    pub(crate) fn parse(bytes: SharedBytes) -> Option<Self> {
        let data: &[u8] = &bytes;
        let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
        header.endian().ok()?;
        let programs = header.program_headers(LittleEndian, data).unwrap_or_default();
        let loads = programs
            .iter()
            .take(MAX_SEGMENTS)
            .filter(|p| p.p_type(LittleEndian) == PT_LOAD)
            .map(|p| Load {
                address: p.p_vaddr(LittleEndian),
                memory_size: p.p_memsz(LittleEndian),
                offset: p.p_offset(LittleEndian),
                file_size: p.p_filesz(LittleEndian),
                execute: p.p_flags(LittleEndian).0 & PF_X.0 != 0,
            })
            .collect();
        let eh_frame_hdr =
            programs.iter().find(|p| p.p_type(LittleEndian) == PT_GNU_EH_FRAME).and_then(|p| {
                let start = p.p_vaddr(LittleEndian);
                Some(start..start.checked_add(p.p_memsz(LittleEndian))?)
            });
        let sections = match header.sections(LittleEndian, data) {
            Ok(table) => table
                .iter()
                .take(MAX_SECTIONS)
                .filter_map(|s| {
                    let name = table.section_name(LittleEndian, s).ok()?;
                    let address = s.sh_addr(LittleEndian);
                    let (offset, size) = (s.sh_offset(LittleEndian), s.sh_size(LittleEndian));
                    let stored = if s.sh_type(LittleEndian) == SHT_NOBITS {
                        0..0
                    } else {
                        usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(size)?).ok()?
                    };
                    Some(Section {
                        name: String::from_utf8_lossy(name.get(..name.len().min(256))?).into_owned(),
                        addresses: address..address.checked_add(size)?,
                        stored,
                        compressed: s.sh_flags(LittleEndian).0 & SHF_COMPRESSED.0 != 0,
                    })
                })
                .collect(),
            Err(_) => Vec::new(),
        };
        Some(Self { bytes, sections, loads, eh_frame_hdr })
    }

    /// All bytes of the file.
    pub(crate) fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// The PT_LOAD segments in the file's order.
    pub(crate) fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// The addresses that the segments span.
    pub(crate) fn span(&self) -> Option<Range<u64>> {
        let start = self.loads.iter().map(|l| l.address).min()?;
        let end = self.loads.iter().filter_map(|l| l.address.checked_add(l.memory_size)).max()?;
        (start < end).then_some(start..end)
    }

    /// The addresses of a section.
    pub(crate) fn section_addresses(&self, name: &str) -> Option<Range<u64>> {
        self.section(name).map(|s| s.addresses.clone())
    }

    /// The bytes of a section that is there and not empty, uncompressed.
    pub(crate) fn section_bytes(&self, name: &str) -> Option<SharedBytes> {
        let section = self.section(name)?;
        let stored = self.bytes.slice(section.stored.clone()).filter(|b| !b.is_empty())?;
        if section.compressed { decompress(&stored) } else { Some(stored) }
    }

    fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The bytes that the file has for an address range, up to the end of their segment at most.
    pub(crate) fn bytes_at(&self, addresses: Range<u64>) -> Option<SharedBytes> {
        let load = self
            .loads
            .iter()
            .find(|l| addresses.start >= l.address && addresses.start - l.address < l.file_size)?;
        let within = addresses.start - load.address;
        let size = addresses.end.checked_sub(addresses.start)?.min(load.file_size - within);
        let start = load.offset.checked_add(within)?;
        let range = usize::try_from(start).ok()?..usize::try_from(start.checked_add(size)?).ok()?;
        self.bytes.slice(range)
    }

    /// `.eh_frame_hdr` and `.eh_frame` with their addresses: by section, or by program header where the
    /// section table is missing.
    pub(crate) fn unwind_tables(&self) -> UnwindTables {
        let named = |name: &str| Some((self.section_bytes(name)?, self.section_addresses(name)?));
        if let Some(eh_frame) = named(".eh_frame") {
            return UnwindTables { eh_frame_hdr: named(".eh_frame_hdr"), eh_frame: Some(eh_frame) };
        }
        let found = || {
            let addresses = self.eh_frame_hdr.clone()?;
            let hdr = self.bytes_at(addresses.clone())?;
            let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(addresses.start);
            let parsed = gimli::EhFrameHdr::new(&hdr, gimli::LittleEndian).parse(&bases, 8).ok()?;
            let gimli::Pointer::Direct(start) = parsed.eh_frame_ptr() else { return None };
            // The header does not tell the size; the table ends with an entry of length zero.
            let eh_frame = self.bytes_at(start..u64::MAX)?;
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
    pub(crate) eh_frame_hdr: Option<(SharedBytes, Range<u64>)>,
    /// The tables.
    pub(crate) eh_frame: Option<(SharedBytes, Range<u64>)>,
}

fn decompress(stored: &SharedBytes) -> Option<SharedBytes> {
    // Elf64_Chdr: ch_type, ch_reserved, ch_size, ch_addralign.
    let kind = u32::from_le_bytes(stored.get(..4)?.try_into().ok()?);
    let size = u64::from_le_bytes(stored.get(8..16)?.try_into().ok()?);
    let data = stored.get(24..)?;
    if size > MAX_UNCOMPRESSED || size > (data.len() as u64).saturating_mul(MAX_RATIO) {
        return None;
    }
    let format = match kind {
        1 => object::CompressionFormat::Zlib,
        2 => object::CompressionFormat::Zstandard,
        _ => return None,
    };
    let bytes = CompressedData { format, data, uncompressed_size: size }.decompress().ok()?;
    Some(SharedBytes::new(bytes.into_owned()))
}
