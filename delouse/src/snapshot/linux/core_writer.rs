//! An image as a core file, written as a stream: it is never in memory as a whole.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use super::core_notes::Notes;
use super::core_plan::{Plan, Segment};
use super::image::Image;
use super::{arch, examine, headroom, maps, page_size, sys};
use crate::snapshot::{Prediction, Snapshot, SnapshotError};

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Size of the core file.
    pub(crate) bytes: u64,
    /// Parts of the address space that it describes.
    pub(crate) segments: usize,
    /// Threads with registers.
    pub(crate) threads: usize,
    /// Mappings whose memory is missing: more than a terabyte of address space is not looked through.
    pub(crate) left_out: usize,
}

/// What a core file of now would cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Estimate {
    /// About its size in bytes, uncompressed.
    pub(crate) bytes: u64,
    /// The stop, and the memory that it takes.
    pub(crate) prediction: Prediction,
}

/// Why a core file is not complete.
#[derive(Debug)]
pub(crate) enum CoreError {
    /// The receiving side failed.
    Write(io::Error),
    /// The image failed.
    Image(SnapshotError),
}

impl fmt::Display for CoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(error) => write!(f, "the core file could not be written: {error}"),
            Self::Image(error) => write!(f, "the core file is not complete: {error}"),
        }
    }
}

impl std::error::Error for CoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Write(error) => Some(error),
            Self::Image(error) => Some(error),
        }
    }
}

impl From<io::Error> for CoreError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Memory copied at once.
const CHUNK: usize = 256 << 10;
const HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const SECTION_HEADER_BYTES: u64 = 64;
/// This many program headers or more: their number is in the first section header (elf(5), PN_XNUM).
const PN_XNUM: u64 = 0xffff;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// A thread's notes: general, floating-point and vector registers.
const NOTE_BYTES_PER_THREAD: u64 = 4 << 10;

/// How large a core file would be, and what it would cost the program. Stops nobody.
///
/// Costs a look at the page tables: about 10 ms for a gigabyte.
pub(crate) fn estimate() -> Result<Estimate, SnapshotError> {
    let threads = examine::list()?.len();
    let prediction = headroom::predict(examine::count_of_others()?)?;
    let pagemap = File::open("/proc/self/pagemap").ok();
    let plan = Plan::new(&maps::own()?, pagemap.as_ref(), pagemap.as_ref());
    let headers = (plan.segments.len() as u64).saturating_mul(PROGRAM_HEADER_BYTES);
    let notes = (threads as u64).saturating_mul(NOTE_BYTES_PER_THREAD);
    Ok(Estimate { bytes: plan.bytes.saturating_add(headers).saturating_add(notes), prediction })
}

/// Writes `image`, made by [`super::freeze_fork_thaw`], as a core file that gdb and lldb open.
///
/// Left out, as the kernel does by default: pages of files that the program did not change.
pub(crate) fn write(image: &Image, out: &mut dyn Write) -> Result<Stats, CoreError> {
    let own = image.pagemap();
    let living = File::open("/proc/self/pagemap").ok();
    let plan = Plan::new(image.mappings(), own, living.as_ref());
    let auxv = std::fs::read("/proc/self/auxv").unwrap_or_default();
    let notes = Notes { image, contexts: image.contexts(), auxv: &auxv, pid: sys::getpid() };
    let mut notes_len = Counter(0);
    notes.write(&mut notes_len)?;

    let layout = Layout::new(plan.segments.len() as u64, notes_len.0);
    // Headers come in small pieces; memory goes past the buffer.
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
    // Memory that could not be read has become zeroes; a child that was killed is another matter.
    image.intact().map_err(CoreError::Image)?;
    Ok(Stats {
        bytes: layout.data.saturating_add(plan.bytes),
        segments: plan.segments.len(),
        threads: image.contexts().len(),
        left_out: plan.left_out,
    })
}

/// Where everything is in the file.
struct Layout {
    /// One for the notes, one for each segment.
    program_headers: u64,
    notes: u64,
    notes_len: u64,
    data: u64,
}

impl Layout {
    fn new(segments: u64, notes_len: u64) -> Self {
        let mut layout = Self { program_headers: segments.saturating_add(1), notes: 0, notes_len, data: 0 };
        let section = if layout.extended() { SECTION_HEADER_BYTES } else { 0 };
        layout.notes = layout.section_header().saturating_add(section);
        layout.data = layout.notes.saturating_add(notes_len).next_multiple_of(page_size() as u64);
        layout
    }

    fn extended(&self) -> bool {
        self.program_headers >= PN_XNUM
    }

    fn section_header(&self) -> u64 {
        HEADER_BYTES.saturating_add(self.program_headers.saturating_mul(PROGRAM_HEADER_BYTES))
    }
}

/// `Elf64_Ehdr`.
fn write_header(out: &mut dyn Write, layout: &Layout) -> io::Result<()> {
    let (section_offset, section_count) =
        if layout.extended() { (layout.section_header(), 1) } else { (0, 0) };
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    // 64 bits, little-endian, version 1, System V.
    header.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_CORE.
    header.extend_from_slice(&4_u16.to_le_bytes());
    header.extend_from_slice(&arch::ELF_MACHINE.to_le_bytes());
    header.extend_from_slice(&1_u32.to_le_bytes());
    for number in [0, HEADER_BYTES, section_offset] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(&0_u32.to_le_bytes());
    let headers = layout.program_headers.min(PN_XNUM);
    let section_header = if section_count == 0 { 0 } else { SECTION_HEADER_BYTES };
    for number in [HEADER_BYTES, PROGRAM_HEADER_BYTES, headers, section_header, section_count, 0] {
        header.extend_from_slice(&(number as u16).to_le_bytes());
    }
    out.write_all(&header)
}

fn write_program_headers(out: &mut dyn Write, layout: &Layout, segments: &[Segment]) -> io::Result<()> {
    write_program_header(out, PT_NOTE, 4, [layout.notes, 0, 0, layout.notes_len, 0, 4])?;
    let mut offset = layout.data;
    for segment in segments {
        let flags = u32::from(segment.execute) | u32::from(segment.write) << 1 | u32::from(segment.read) << 2;
        let &Segment { start, file_len, memory_len, .. } = segment;
        write_program_header(
            out,
            PT_LOAD,
            flags,
            [offset, start, 0, file_len, memory_len, page_size() as u64],
        )?;
        offset = offset.saturating_add(file_len);
    }
    Ok(())
}

/// `Elf64_Phdr`: offset, address, physical address, size in the file, size in memory, alignment.
fn write_program_header(out: &mut dyn Write, kind: u32, flags: u32, words: [u64; 6]) -> io::Result<()> {
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&flags.to_le_bytes())?;
    words.iter().try_for_each(|word| out.write_all(&word.to_le_bytes()))
}

/// The one section header, of no section: `sh_info` is the number of program headers.
fn write_section_header(out: &mut dyn Write, layout: &Layout) -> io::Result<()> {
    let count = u32::try_from(layout.program_headers).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut header = [0; SECTION_HEADER_BYTES as usize];
    // sh_info is at 44 of Elf64_Shdr.
    if let Some(info) = header.get_mut(44..48) {
        info.copy_from_slice(&count.to_le_bytes());
    }
    out.write_all(&header)
}

/// The first `file_len` bytes of a segment. What cannot be read is written as zeroes, so that all that
/// follows is in its place.
fn write_memory(
    out: &mut dyn Write,
    image: &Image,
    segment: &Segment,
    chunk: &mut [u8],
) -> Result<(), CoreError> {
    let mut done = 0;
    while done < segment.file_len {
        let left = segment.file_len - done;
        let len = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        let Some(buf) = chunk.get_mut(..len) else { break };
        let mut read = image.read(segment.start.saturating_add(done), buf);
        if read == 0 {
            image.intact().map_err(CoreError::Image)?;
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

/// Counts what is written.
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
            let layout = Layout::new(segments, 1000);
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
            // Another program's reading of it.
            let parsed = object::elf::FileHeader64::<object::LittleEndian>::parse(&*file).unwrap();
            use object::read::elf::FileHeader;
            let headers = parsed.program_headers(object::LittleEndian, &*file).unwrap();
            assert_eq!(headers.len() as u64, segments + 1);
        }
    }
}
