//! The headers of an ELF file, of either class and byte order, in one shape.

use std::io;
use std::path::Path;

use object::read::elf::{
    CompressionHeader, Dyn as _, FileHeader, NoteIterator, ProgramHeader as _, SectionHeader as _,
};
use object::{Endian as _, Endianness, ReadRef, elf};

use crate::debuginfo::address::FileAddress;
use crate::debuginfo::bounded_file::BoundedFile;
use crate::snapshot::FileOffset;

/// More sections than any linker writes for a program; the rest is left out.
const MAX_SECTIONS: usize = 4096;
const MAX_SEGMENTS: usize = 1024;
const MAX_DYNAMIC: usize = 4096;
/// The longest text that is taken from a file: a path, a library's name.
const MAX_TEXT: usize = 4096;

/// Why a file could not be read as ELF at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElfError {
    /// The file could not be opened or read.
    #[error("cannot read the file: {0}")]
    Io(#[from] io::Error),
    /// It does not begin with an ELF header.
    #[error("not an ELF file")]
    NotElf,
    /// It begins with one that is cut short or makes no sense.
    #[error("the ELF header is damaged or cut short")]
    Header,
}

/// A program header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) kind: elf::ProgramType,
    pub(crate) executable: bool,
    pub(crate) address: FileAddress,
    pub(crate) offset: FileOffset,
    pub(crate) file_size: u64,
}

/// A section header.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) kind: elf::SectionType,
    pub(crate) flags: u64,
    pub(crate) address: u64,
    pub(crate) offset: u64,
    /// Bytes in the file, or in memory where the section has none in the file.
    pub(crate) size: u64,
    pub(crate) compression: Option<Compression>,
}

/// The header in front of a compressed section's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compression {
    pub(crate) kind: elf::CompressionType,
    /// Bytes of the header itself.
    pub(crate) header: u64,
}

/// An open ELF file with its headers.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) file: BoundedFile,
    pub(crate) endian: Endianness,
    pub(crate) is_64: bool,
    pub(crate) kind: elf::FileType,
    pub(crate) machine: elf::Machine,
    pub(crate) entry: u64,
    pub(crate) segments: Vec<Segment>,
    pub(crate) sections: Vec<Section>,
    /// Tags and values of the dynamic table, up to `DT_NULL`.
    pub(crate) dynamic: Vec<(i64, u64)>,
    pub(crate) interpreter: Option<String>,
    pub(crate) build_id: Option<Vec<u8>>,
    /// What was damaged, in words.
    pub(crate) problems: Vec<String>,
}

impl Image {
    /// Reads the headers: a few KiB whatever the file's size.
    pub(crate) fn open(path: &Path) -> Result<Image, ElfError> {
        let file = BoundedFile::open(path)?;
        let mut ident = Vec::new();
        let ident = file.window(0..16, &mut ident)?;
        let class = match ident {
            [0x7f, b'E', b'L', b'F', class, ..] => Some(*class),
            _ => None,
        };
        match class {
            None => Err(ElfError::NotElf),
            Some(1) => Self::parse::<elf::FileHeader32<Endianness>>(file),
            Some(2) => Self::parse::<elf::FileHeader64<Endianness>>(file),
            Some(_) => Err(ElfError::Header),
        }
    }

    fn parse<Elf: FileHeader<Endian = Endianness>>(file: BoundedFile) -> Result<Image, ElfError> {
        let mut facts = Facts::default();
        let header = Elf::parse(&file).map_err(|_| ElfError::Header)?;
        let endian = header.endian().map_err(|_| ElfError::Header)?;
        facts.segments(header, endian, &file);
        facts.sections(header, endian, &file);
        let Facts { segments, sections, dynamic, interpreter, build_id, problems } = facts;
        Ok(Image {
            endian,
            is_64: header.is_class_64(),
            kind: header.e_type(endian),
            machine: header.e_machine(endian),
            entry: header.e_entry(endian).into(),
            segments,
            sections,
            dynamic,
            interpreter,
            build_id,
            problems,
            file,
        })
    }

    /// The first section of that name.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// Where the file has what is at `address`.
    pub(crate) fn file_offset(&self, address: FileAddress) -> Option<FileOffset> {
        self.segments.iter().filter(|s| s.kind == elf::PT_LOAD).find_map(|segment| {
            let within = address.offset_from(segment.address).filter(|within| *within < segment.file_size)?;
            segment.offset.checked_add(within)
        })
    }

    /// The text that ends with a NUL at `offset` of the file.
    pub(crate) fn text_at(&self, offset: FileOffset) -> Option<String> {
        let offset = offset.get();
        let mut buf = Vec::new();
        let bytes = self.file.window(offset..offset.saturating_add(MAX_TEXT as u64), &mut buf).ok()?;
        let end = bytes.iter().position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(bytes.get(..end)?).into_owned())
    }

    /// `.gnu_debuglink`: a file name and the CRC-32 of that file.
    pub(crate) fn debuglink(&self) -> Option<(Vec<u8>, u32)> {
        let section = self.section(".gnu_debuglink")?;
        let mut buf = Vec::new();
        let end = section.offset.saturating_add(section.size.min(MAX_TEXT as u64));
        let bytes = self.file.window(section.offset..end, &mut buf).ok()?;
        let name = bytes.split(|&b| b == 0).next().filter(|name| !name.is_empty())?;
        let crc: [u8; 4] = bytes.get((name.len() + 4) & !3..)?.get(..4)?.try_into().ok()?;
        Some((name.to_vec(), self.endian.read_u32(crc)))
    }
}

/// What is gathered while the file is borrowed.
#[derive(Default)]
struct Facts {
    segments: Vec<Segment>,
    sections: Vec<Section>,
    dynamic: Vec<(i64, u64)>,
    interpreter: Option<String>,
    build_id: Option<Vec<u8>>,
    problems: Vec<String>,
}

impl Facts {
    fn segments<Elf: FileHeader<Endian = Endianness>>(
        &mut self,
        header: &Elf,
        endian: Endianness,
        data: &BoundedFile,
    ) {
        let segments = match header.program_headers(endian, data) {
            Ok(segments) => segments,
            Err(e) => return self.problems.push(format!("program headers: {e}")),
        };
        if segments.len() > MAX_SEGMENTS {
            self.problems.push(format!("{} program headers, {MAX_SEGMENTS} looked at", segments.len()));
        }
        for segment in segments.iter().take(MAX_SEGMENTS) {
            let (offset, file_size) = segment.file_range(endian);
            self.segments.push(Segment {
                kind: segment.p_type(endian),
                executable: segment.p_flags(endian).0 & elf::PF_X.0 != 0,
                address: FileAddress::new(segment.p_vaddr(endian).into()),
                offset: FileOffset::new(offset),
                file_size,
            });
            match segment.dynamic(endian, data) {
                Ok(Some(entries)) => {
                    let entries = entries.iter().map(|d| (d.d_tag(endian).0, d.d_val(endian).into()));
                    self.dynamic = entries.take_while(|(tag, _)| *tag != 0).take(MAX_DYNAMIC).collect();
                }
                Ok(None) => {}
                Err(e) => self.problems.push(format!("dynamic table: {e}")),
            }
            match segment.interpreter(endian, data) {
                Ok(Some(path)) => {
                    let path = path.get(..path.len().min(MAX_TEXT)).unwrap_or_default();
                    self.interpreter = Some(String::from_utf8_lossy(path).into_owned());
                }
                Ok(None) => {}
                Err(e) => self.problems.push(format!("interpreter: {e}")),
            }
            match segment.notes(endian, data) {
                Ok(Some(notes)) => self.build_id::<Elf>(notes, endian),
                Ok(None) => {}
                Err(e) => self.problems.push(format!("notes: {e}")),
            }
        }
    }

    fn build_id<Elf: FileHeader<Endian = Endianness>>(
        &mut self,
        mut notes: NoteIterator<'_, Elf>,
        endian: Endianness,
    ) {
        // A core file has thousands of notes; a build-id is among the first few of its segment.
        for _ in 0..64 {
            match notes.next() {
                Ok(Some(note)) => {
                    if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                        let id = note.desc();
                        if self.build_id.is_none() && !id.is_empty() && id.len() <= 64 {
                            self.build_id = Some(id.to_vec());
                        }
                    }
                }
                Ok(None) => return,
                Err(e) => return self.problems.push(format!("notes: {e}")),
            }
        }
    }

    fn sections<Elf: FileHeader<Endian = Endianness>>(
        &mut self,
        header: &Elf,
        endian: Endianness,
        data: &BoundedFile,
    ) {
        let sections = match header.section_headers(endian, data) {
            Ok(sections) => sections,
            Err(e) => return self.problems.push(format!("section headers: {e}")),
        };
        let names = match header.section_strings_index(endian, data) {
            Ok(index) => sections.get(index.0).and_then(|s| s.file_range(endian)),
            Err(_) => None,
        };
        let names = names.and_then(|(at, size)| data.read_bytes_at(at, size).ok());
        if names.is_none() && !sections.is_empty() {
            self.problems.push("the table of section names is missing or damaged".to_owned());
        }
        let names = names.unwrap_or_default();
        if sections.len() > MAX_SECTIONS {
            self.problems.push(format!("{} sections, {MAX_SECTIONS} looked at", sections.len()));
        }
        // The first header is the reserved null section.
        for section in sections.iter().take(MAX_SECTIONS).skip(1) {
            let name = names.get(section.sh_name(endian) as usize..).unwrap_or_default();
            let name = name.iter().take(MAX_TEXT).take_while(|&&b| b != 0).copied().collect::<Vec<_>>();
            let name = String::from_utf8_lossy(&name).into_owned();
            let (offset, size) = match section.file_range(endian) {
                Some((offset, size)) => {
                    if offset.checked_add(size).is_none_or(|end| end > data.size()) {
                        self.problems.push(format!("section {name} lies outside the file"));
                    }
                    (offset, size)
                }
                None => (0, section.sh_size(endian).into()),
            };
            let flags = section.sh_flags(endian).0;
            if section.sh_type(endian) == elf::SHT_NOTE {
                // A separate debug file has the note's section but no bytes under its segment.
                if let (None, Ok(Some(notes))) = (&self.build_id, section.notes(endian, data)) {
                    self.build_id::<Elf>(notes, endian);
                }
            }
            let compression = match flags & elf::SHF_COMPRESSED.0 {
                0 => None,
                _ => match data.read_at::<Elf::CompressionHeader>(offset) {
                    Ok(header) => Some(Compression {
                        kind: header.ch_type(endian),
                        header: size_of::<Elf::CompressionHeader>() as u64,
                    }),
                    Err(()) => {
                        self.problems.push(format!("section {name}: its compression header is cut short"));
                        None
                    }
                },
            };
            let kind = section.sh_type(endian);
            let address = section.sh_addr(endian).into();
            self.sections.push(Section { name, kind, flags, address, offset, size, compression });
        }
        // A damaged table would repeat itself.
        self.problems.truncate(32);
    }
}
