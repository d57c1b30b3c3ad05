//! Writes an image as a core file. The output is a stream: the file is never in memory as a whole.

use std::io::{self, BufWriter, Write};

use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, ELFOSABI_NONE, ET_CORE, EV_CURRENT, FileFlags, FileHeader64, Ident,
    Machine, PF_R, PN_XNUM, PT_LOAD, PT_NOTE, ProgramFlags, ProgramHeader64, SHN_UNDEF, SectionHeader64,
};
use object::pod::{bytes_of, from_bytes_mut};
use object::{LittleEndian as LE, U16, U32, U64};

use super::image::CoreImage;
use super::notes::NoteWriter;
use super::plan::{Segment, SegmentPlan};
use crate::host::heap::page_size;
use crate::snapshot::Address;
use crate::snapshot::arch;
use crate::targets::SnapshotError;

/// Statistics of a written core file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Size of the core file.
    pub(crate) bytes: u64,
    pub(crate) segments: usize,
    /// Threads with registers.
    pub(crate) threads: usize,
    /// Mappings whose memory is missing, because at most a terabyte of address space is scanned.
    pub(crate) left_out: usize,
}

/// Why a core file is not complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoreError {
    /// Writing the output failed.
    #[error("the core file could not be written: {0}")]
    Write(#[from] io::Error),
    /// The image ended.
    #[error("the core file is not complete: {0}")]
    Image(#[from] SnapshotError),
}

/// Bytes of memory copied at a time.
const CHUNK: usize = 256 << 10;
const HEADER_BYTES: u64 = size_of::<FileHeader64<LE>>() as u64;
pub(in crate::targets) const PROGRAM_HEADER_BYTES: u64 = size_of::<ProgramHeader64<LE>>() as u64;
const SECTION_HEADER_BYTES: u64 = size_of::<SectionHeader64<LE>>() as u64;
/// A thread's notes: general, floating-point and vector registers.
pub(in crate::targets) const NOTE_BYTES_PER_THREAD: u64 = 4 << 10;

/// Writes `image` as a core file for gdb and lldb.
///
/// As the kernel does by default, leaves out unmodified pages of files.
pub(crate) fn write(image: &dyn CoreImage, out: &mut dyn Write) -> Result<Stats, CoreError> {
    let living = image.living_pagemap();
    let plan = SegmentPlan::new(image.listed_mappings(), image.pagemap(), living.as_ref());
    let notes = NoteWriter::new(image);
    let mut notes_len = Counter(0);
    notes.write(&mut notes_len)?;

    let layout = FileLayout::new(plan.segments.len() as u64, notes_len.0);
    // Headers are written in small pieces. Writes of memory are larger than the buffer and bypass it.
    let mut out = BufWriter::with_capacity(64 << 10, out);
    write_header(&mut out, &layout)?;
    write_program_headers(&mut out, &layout, &plan.segments)?;
    if layout.extended() {
        write_section_header(&mut out, &layout)?;
    }
    notes.write(&mut out)?;
    write_zeroes(&mut out, layout.data - layout.notes - layout.notes_len)?;
    let mut chunk = vec![0; CHUNK];
    for segment in &plan.segments {
        write_memory(&mut out, image, segment, &mut chunk)?;
    }
    out.flush()?;
    // Unreadable memory is written as zeroes, which would hide that the child was killed.
    image.intact()?;
    Ok(Stats {
        bytes: layout.data.saturating_add(plan.bytes),
        segments: plan.segments.len(),
        threads: notes.threads(),
        left_out: plan.left_out,
    })
}

/// The offsets and sizes of the file's parts.
struct FileLayout {
    /// Number of program headers: one for the notes, one for each segment.
    program_headers: u64,
    notes: u64,
    notes_len: u64,
    data: u64,
}

impl FileLayout {
    fn new(segments: u64, notes_len: u64) -> Self {
        let mut layout = Self { program_headers: segments.saturating_add(1), notes: 0, notes_len, data: 0 };
        let section = if layout.extended() { SECTION_HEADER_BYTES } else { 0 };
        layout.notes = layout.section_header().saturating_add(section);
        layout.data = layout.notes.saturating_add(notes_len).next_multiple_of(page_size() as u64);
        layout
    }

    fn extended(&self) -> bool {
        self.program_headers >= u64::from(PN_XNUM)
    }

    fn section_header(&self) -> u64 {
        HEADER_BYTES.saturating_add(self.program_headers.saturating_mul(PROGRAM_HEADER_BYTES))
    }
}

fn write_header(out: &mut dyn Write, layout: &FileLayout) -> io::Result<()> {
    let (section_offset, section_count, section_size) =
        if layout.extended() { (layout.section_header(), 1, SECTION_HEADER_BYTES) } else { (0, 0, 0) };
    let half = |number: u64| U16::new(LE, number as u16);
    out.write_all(bytes_of(&FileHeader64 {
        e_ident: Ident {
            magic: ELFMAG,
            class: ELFCLASS64,
            data: ELFDATA2LSB,
            version: EV_CURRENT,
            os_abi: ELFOSABI_NONE,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, ET_CORE),
        e_machine: U16::new(LE, Machine(arch::host().elf_machine())),
        e_version: U32::new(LE, EV_CURRENT.0.into()),
        e_entry: U64::new(LE, 0),
        e_phoff: U64::new(LE, HEADER_BYTES),
        e_shoff: U64::new(LE, section_offset),
        e_flags: U32::new(LE, FileFlags(0)),
        e_ehsize: half(HEADER_BYTES),
        e_phentsize: half(PROGRAM_HEADER_BYTES),
        // If there are this many or more, their number is stored in the first section header (elf(5)).
        e_phnum: half(layout.program_headers.min(PN_XNUM.into())),
        e_shentsize: half(section_size),
        e_shnum: half(section_count),
        e_shstrndx: U16::new(LE, SHN_UNDEF),
    }))
}

fn write_program_headers(out: &mut dyn Write, layout: &FileLayout, segments: &[Segment]) -> io::Result<()> {
    let mut write = |kind, flags, [offset, address, file_len, memory_len, align]: [u64; 5]| {
        out.write_all(bytes_of(&ProgramHeader64 {
            p_type: U32::new(LE, kind),
            p_flags: U32::new(LE, flags),
            p_offset: U64::new(LE, offset),
            p_vaddr: U64::new(LE, address),
            p_paddr: U64::new(LE, 0),
            p_filesz: U64::new(LE, file_len),
            p_memsz: U64::new(LE, memory_len),
            p_align: U64::new(LE, align),
        }))
    };
    write(PT_NOTE, PF_R, [layout.notes, 0, layout.notes_len, 0, 4])?;
    let mut offset = layout.data;
    for segment in segments {
        let flags = u32::from(segment.execute) | u32::from(segment.write) << 1 | u32::from(segment.read) << 2;
        let &Segment { start, file_len, memory_len, .. } = segment;
        write(PT_LOAD, ProgramFlags(flags), [offset, start, file_len, memory_len, page_size() as u64])?;
        offset = offset.saturating_add(file_len);
    }
    Ok(())
}

/// The section header of the null section, whose `sh_info` is the number of program headers.
fn write_section_header(out: &mut dyn Write, layout: &FileLayout) -> io::Result<()> {
    let count = u32::try_from(layout.program_headers).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut header = [0; SECTION_HEADER_BYTES as usize];
    if let Ok((header, _)) = from_bytes_mut::<SectionHeader64<LE>>(&mut header) {
        header.sh_info.set(LE, count);
    }
    out.write_all(&header)
}

/// Writes the first `file_len` bytes of a segment. Writes zeroes for unreadable memory, so that the offsets of all later
/// data are correct.
fn write_memory(
    out: &mut dyn Write,
    image: &dyn CoreImage,
    segment: &Segment,
    chunk: &mut [u8],
) -> Result<(), CoreError> {
    let mut done = 0;
    while done < segment.file_len {
        let left = segment.file_len - done;
        let len = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        let Some(buf) = chunk.get_mut(..len) else { break };
        let mut read = image.read(Address::new(segment.start.saturating_add(done)), buf);
        if read == 0 {
            image.intact()?;
            read = len.min(page_size());
            buf.iter_mut().take(read).for_each(|byte| *byte = 0);
        }
        out.write_all(buf.get(..read).unwrap_or_default())?;
        done = done.saturating_add(read as u64);
    }
    Ok(())
}

fn write_zeroes(out: &mut dyn Write, count: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), count), out).map(|_| ())
}

/// Counts bytes.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(buf.len() as u64);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_segments_than_the_header_can_count() {
        for (segments, counted, extended) in
            [(10_u64, 11_u16, false), (65_533, 65_534, false), (65_534, 0xffff, true)]
        {
            let layout = FileLayout::new(segments, 1000);
            assert_eq!(layout.extended(), extended);
            let plan = vec![
                Segment {
                    start: 0,
                    file_len: 0,
                    memory_len: 1,
                    read: true,
                    write: false,
                    execute: false
                };
                segments as usize
            ];
            let mut file = Vec::new();
            write_header(&mut file, &layout).unwrap();
            assert_eq!(u16::from_le_bytes(file[56..58].try_into().unwrap()), counted);
            write_program_headers(&mut file, &layout, &plan).unwrap();
            assert_eq!(file.len() as u64, layout.section_header());
            if extended {
                write_section_header(&mut file, &layout).unwrap();
            }
            assert_eq!(file.len() as u64, layout.notes);
            // Read by another implementation.
            let parsed = FileHeader64::<LE>::parse(&*file).unwrap();
            use object::read::elf::FileHeader;
            let headers = parsed.program_headers(object::LittleEndian, &*file).unwrap();
            assert_eq!(headers.len() as u64, segments + 1);
        }
    }
}
