//! A core file as a [`Snapshot`]: one of gdb's `gcore`, of the kernel, or of delouse's own writer.
//!
//! What a core leaves out (code, constants, untouched data) is read from the files that it names, where
//! they are on this machine and of the same build.

mod backing;
mod notes;

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(delouse_portable)
))]
pub(super) use notes::{DELOUSE, NT_DELOUSE_THREADS};

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf::{ET_CORE, FileHeader64, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};

use self::backing::Files;
use self::notes::{FileRange, Notes};
use super::mapped_file::MappedFile;
use super::{Capture, Mapping, Snapshot, Thread};

/// `vm.max_map_count` is 65,530 by default; a sparse core has some segments for each mapping.
const MAX_SEGMENTS: usize = 1 << 20;
/// A thread has about six notes.
const MAX_NOTES: usize = 1 << 21;

#[cfg(target_arch = "aarch64")]
const MACHINE: object::elf::Machine = object::elf::EM_AARCH64;
#[cfg(not(target_arch = "aarch64"))]
const MACHINE: object::elf::Machine = object::elf::EM_X86_64;

const AT_RANDOM: u64 = 25;
const AT_SYSINFO_EHDR: u64 = 33;

/// Why a core file cannot be read.
#[derive(Debug)]
pub(crate) enum CoreError {
    /// It cannot be opened or mapped.
    Io(io::Error),
    /// It is no ELF file of 64 bits and this byte order.
    NotElf,
    /// It is an ELF file, but no core.
    NotCore,
    /// It is a core of another architecture.
    OtherMachine,
    /// Its program headers lie outside of it.
    Truncated,
}

impl fmt::Display for CoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot open the core file: {error}"),
            Self::NotElf => f.write_str("not an ELF file of 64 bits"),
            Self::NotCore => f.write_str("not a core file"),
            Self::OtherMachine => f.write_str("a core file of another architecture"),
            Self::Truncated => f.write_str("the core file is cut short or damaged"),
        }
    }
}

impl std::error::Error for CoreError {}

impl From<io::Error> for CoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A core file, open for reading.
pub(crate) struct CoreFile {
    memory: Memory,
    ranges: Vec<FileRange>,
    files: Files,
    mappings: Vec<Mapping>,
    threads: Vec<Thread>,
    capture: Capture,
}

impl CoreFile {
    /// Maps the core at `path` and the files it names. Costs time and memory in proportion to the number
    /// of mappings and threads, not to the core's size.
    ///
    /// # Errors
    /// Where the file cannot be mapped or is no core of this architecture. A damaged or cut core that
    /// still has its program headers opens, and has less in it.
    pub(crate) fn open(path: &Path) -> Result<Self, CoreError> {
        Self::parse(Box::new(MappedFile::open(path)?))
    }

    /// See [`CoreFile::open`].
    pub(crate) fn parse(data: Box<dyn Deref<Target = [u8]> + Send + Sync>) -> Result<Self, CoreError> {
        let bytes: &[u8] = &data;
        let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|_| CoreError::NotElf)?;
        if header.endian().is_err() {
            return Err(CoreError::NotElf);
        }
        if header.e_type(LittleEndian) != ET_CORE {
            return Err(CoreError::NotCore);
        }
        if header.e_machine(LittleEndian) != MACHINE {
            return Err(CoreError::OtherMachine);
        }
        let programs = header.program_headers(LittleEndian, bytes).map_err(|_| CoreError::Truncated)?;

        let mut notes = Notes::default();
        let mut loads = Vec::new();
        let mut missing = 0_u64;
        for program in programs.iter().take(MAX_SEGMENTS) {
            let kind = program.p_type(LittleEndian);
            if kind == PT_LOAD {
                let load = Load::new(program, bytes.len() as u64);
                let absent =
                    program.p_filesz(LittleEndian).saturating_sub(load.stored.end - load.stored.start);
                missing = missing.saturating_add(absent);
                loads.push(load);
            } else if kind == PT_NOTE
                && let Ok(Some(iterator)) = program.notes(LittleEndian, bytes)
            {
                for note in iterator.take(MAX_NOTES).map_while(Result::ok) {
                    notes.add(note.n_type(LittleEndian).0, note.name(), note.desc());
                }
            }
        }
        let threads = notes.take_threads();

        keep_disjoint(&mut loads, |l| l.range.clone());
        let mut ranges = std::mem::take(&mut notes.files);
        keep_disjoint(&mut ranges, |r| r.start..r.end);

        let memory = Memory { data, loads };
        let mut files = Files::open(&ranges, |address, buf| memory.read(address, buf));
        let mut capture =
            Capture { consistent: true, notes: std::mem::take(&mut files.notes), ..Capture::default() };
        if missing > 0 {
            capture.notes.push(format!(
                "the core file is cut short: {missing} bytes of memory are missing (disk full, or a limit on \
                 its size?)"
            ));
        }
        if threads.is_empty() {
            capture.notes.push("the core file has no registers of any thread".to_owned());
        }
        let mappings = mappings(&memory.loads, &ranges, &files, &notes);
        Ok(Self { memory, ranges, files, mappings, threads, capture })
    }

    /// Copies from the file that is mapped at `address`, up to the end of that mapping.
    fn read_file(&self, address: u64, buf: &mut [u8]) -> usize {
        let Some(range) = containing(&self.ranges, address, |r| r.start..r.end) else { return 0 };
        // A core may hold a part of the mapping: the file answers only up to where the core does again.
        let next = self.memory.loads.partition_point(|l| l.range.start <= address);
        let until = self.memory.loads.get(next).map_or(range.end, |l| l.range.start.min(range.end));
        let n = clamp(until - address, buf.len());
        let Some(buf) = buf.get_mut(..n) else { return 0 };
        let writable = self.mapping(address).is_none_or(|m| m.write);
        let Some(offset) = range.offset.checked_add(address - range.start) else { return 0 };
        self.files.read(&range.path, offset, writable, buf)
    }
}

impl Snapshot for CoreFile {
    fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(at) = address.checked_add(done as u64) else { break };
            let n = match self.memory.read(at, rest) {
                0 => self.read_file(at, rest),
                n => n,
            };
            if n == 0 {
                break;
            }
            done += n;
        }
        done
    }

    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn threads(&self) -> &[Thread] {
        &self.threads
    }

    fn capture(&self) -> &Capture {
        &self.capture
    }
}

/// One PT_LOAD segment.
#[derive(Debug, Clone)]
struct Load {
    /// Addresses.
    range: Range<u64>,
    /// Which part of the core file holds the first bytes of `range`; clamped to the file.
    stored: Range<u64>,
    read: bool,
    write: bool,
    execute: bool,
}

impl Load {
    fn new(program: &object::elf::ProgramHeader64<LittleEndian>, len: u64) -> Self {
        let start = program.p_vaddr(LittleEndian);
        let size = program.p_memsz(LittleEndian).min(u64::MAX - start);
        let from = program.p_offset(LittleEndian).min(len);
        let filesz = program.p_filesz(LittleEndian).min(size);
        let flags = program.p_flags(LittleEndian).0;
        Self {
            range: start..start + size,
            stored: from..from.saturating_add(filesz).min(len),
            read: flags & PF_R.0 != 0,
            write: flags & PF_W.0 != 0,
            execute: flags & PF_X.0 != 0,
        }
    }
}

/// The memory that the core itself holds.
struct Memory {
    data: Box<dyn Deref<Target = [u8]> + Send + Sync>,
    /// Ordered, disjoint.
    loads: Vec<Load>,
}

impl Memory {
    /// Copies what one segment holds from `address` on.
    fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        let Some(load) = containing(&self.loads, address, |l| l.range.clone()) else { return 0 };
        let from = load.stored.start.saturating_add(address - load.range.start);
        if from >= load.stored.end {
            return 0;
        }
        let n = clamp(load.stored.end - from, buf.len());
        let bytes = usize::try_from(from).ok().and_then(|from| self.data.get(from..from + n));
        match (bytes, buf.get_mut(..n)) {
            (Some(bytes), Some(buf)) => {
                buf.copy_from_slice(bytes);
                n
            }
            _ => 0,
        }
    }
}

fn clamp(n: u64, limit: usize) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX).min(limit)
}

/// The element of an ordered list of disjoint ranges that holds `address`.
fn containing<T>(list: &[T], address: u64, range: impl Fn(&T) -> Range<u64>) -> Option<&T> {
    let after = list.partition_point(|item| range(item).start <= address);
    list.get(after.checked_sub(1)?).filter(|item| range(item).contains(&address))
}

/// Orders `list` by address and drops what is empty or overlaps its predecessor.
fn keep_disjoint<T>(list: &mut Vec<T>, range: impl Fn(&T) -> Range<u64>) {
    list.sort_by_key(|item| range(item).start);
    let mut end = 0;
    list.retain(|item| {
        let range = range(item);
        let keep = range.start < range.end && range.start >= end;
        if keep {
            end = range.end;
        }
        keep
    });
}

/// Segments and file ranges together: gcore leaves out the segments of what it does not dump, and only
/// NT_FILE tells that something was mapped there.
fn mappings(loads: &[Load], ranges: &[FileRange], files: &Files, notes: &Notes) -> Vec<Mapping> {
    let mut bounds: Vec<u64> = loads
        .iter()
        .flat_map(|l| [l.range.start, l.range.end])
        .chain(ranges.iter().flat_map(|r| [r.start, r.end]))
        .collect();
    bounds.sort_unstable();
    bounds.dedup();
    let mut mappings = Vec::new();
    for pair in bounds.windows(2) {
        let &[start, end] = pair else { continue };
        let load = containing(loads, start, |l| l.range.clone());
        let file = containing(ranges, start, |r| r.start..r.end);
        if load.is_none() && file.is_none() {
            continue;
        }
        let offset = file.map_or(0, |f| f.offset.saturating_add(start - f.start));
        let (write, execute) = match (load, file) {
            (Some(load), _) => (load.write, load.execute),
            (None, Some(file)) => files.permissions(&file.path, offset).unwrap_or((false, false)),
            (None, None) => (false, false),
        };
        let range = start..end;
        let special = |key, name: &str| {
            notes.aux(key).is_some_and(|address| range.contains(&address)).then(|| PathBuf::from(name))
        };
        let path = file
            .map(|f| f.path.clone())
            .or_else(|| special(AT_SYSINFO_EHDR, "[vdso]"))
            .or_else(|| special(AT_RANDOM, "[stack]"));
        mappings.push(Mapping {
            read: load.is_none_or(|l| l.read),
            write,
            execute,
            shared: false,
            offset,
            device: 0,
            inode: 0,
            path,
            range,
        });
    }
    mappings
}

#[cfg(test)]
mod tests;
