//! A core file as a [`Snapshot`], written by gdb's `gcore`, by the kernel or by delouse.
//!
//! Core files leave out memory that equals the contents of a mapped file: code, constants, unmodified data. This memory is
//! read from these files, if they exist on this machine and are of the same build.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod backing;
#[cfg(target_os = "linux")]
pub(crate) mod compressed;
pub(super) mod notes;

use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf::{ET_CORE, FileHeader64, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};

use self::backing::BackingFiles;
use self::notes::{FileRange, Notes};
use crate::host::mapped_file::MappedFile;
use crate::snapshot::arch::{self, Arch};
use crate::snapshot::{Address, Capture, FileOffset, Mapping, Snapshot, Thread};

/// `vm.max_map_count` is 65,530 by default; a sparse core file has several segments for each mapping.
const MAX_SEGMENTS: usize = 1 << 20;
/// A thread has about six notes.
const MAX_NOTES: usize = 1 << 21;

const AT_ENTRY: u64 = 9;
const AT_RANDOM: u64 = 25;
const AT_SYSINFO_EHDR: u64 = 33;

/// Why a core file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoreError {
    /// It cannot be opened or mapped.
    #[error("cannot open the core file: {0}")]
    Io(#[from] io::Error),
    /// It is not a 64-bit little-endian ELF file.
    #[error("not a 64-bit ELF file")]
    NotElf,
    /// It is an ELF file, but not a core file.
    #[error("not a core file")]
    NotCore,
    /// It is a core file of an architecture that delouse does not support.
    #[error("a core file of an architecture that delouse does not support")]
    OtherMachine,
    /// Its program headers, or all of its notes, are outside the file.
    #[error("the core file is truncated or damaged")]
    Truncated,
}

/// A core file, open for reading.
pub(crate) struct CoreFile {
    memory: StoredMemory,
    ranges: Vec<FileRange>,
    files: BackingFiles,
    mappings: Vec<Mapping>,
    threads: Vec<Thread>,
    capture: Capture,
    arch: &'static dyn Arch,
    /// Where the program begins to run.
    entry: Option<Address>,
}

impl CoreFile {
    /// Maps the core file at `path`, which may be compressed, and the files that it names. Takes time and memory in proportion to the number of
    /// mappings and threads, not to the size of the core file.
    ///
    /// # Errors
    /// If the file cannot be mapped or is not a core file of a supported architecture. A damaged or truncated core file
    /// opens if it has its program headers and its notes; the capture's notes report what is missing.
    #[cfg(test)]
    pub(crate) fn open(path: &Path) -> Result<Self, CoreError> {
        Self::open_with(path, None)
    }

    /// The same with a copy of the executable, which is read instead of the file that the core file names.
    ///
    /// # Errors
    /// Those of [`CoreFile::open`]. A file of another build is not used.
    pub(crate) fn open_with(path: &Path, executable: Option<&Path>) -> Result<Self, CoreError> {
        let file = MappedFile::open(path)?;
        #[cfg(target_os = "linux")]
        if let Some(compression) = compressed::Compression::of(&file) {
            return Self::parse_with(Box::new(compressed::unpack(path, compression)?), executable);
        }
        Self::parse_with(Box::new(file), executable)
    }

    /// As [`CoreFile::open`], for bytes in memory.
    #[cfg(test)]
    pub(crate) fn parse(data: Box<dyn Deref<Target = [u8]> + Send + Sync>) -> Result<Self, CoreError> {
        Self::parse_with(data, None)
    }

    fn parse_with(
        data: Box<dyn Deref<Target = [u8]> + Send + Sync>,
        executable: Option<&Path>,
    ) -> Result<Self, CoreError> {
        let bytes: &[u8] = &data;
        let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|_| CoreError::NotElf)?;
        if header.endian().is_err() {
            return Err(CoreError::NotElf);
        }
        if header.e_type(LittleEndian) != ET_CORE {
            return Err(CoreError::NotCore);
        }
        let arch = arch::of_machine(header.e_machine(LittleEndian).0).ok_or(CoreError::OtherMachine)?;
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
            } else if kind == PT_NOTE {
                // Without them it is not known which program it is of, nor which threads that had.
                let iterator = program.notes(LittleEndian, bytes).map_err(|_| CoreError::Truncated)?;
                for note in iterator.into_iter().flat_map(|all| all.take(MAX_NOTES).map_while(Result::ok)) {
                    notes.add(arch, note.n_type(LittleEndian), note.name(), note.desc());
                }
            }
        }
        let threads = notes.take_threads();

        keep_disjoint(&mut loads, |l| l.range.clone());
        let mut ranges = std::mem::take(&mut notes.files);
        keep_disjoint(&mut ranges, |r| r.range.clone());

        let memory = StoredMemory { data, loads };
        let entry = notes.aux(AT_ENTRY).map(Address::new);
        if let (Some(copy), Some(entry)) = (executable, entry) {
            use_copy(copy, entry, &mut ranges, |address, buf| memory.read(address, buf));
        }
        let mut files = BackingFiles::open(&ranges, |address, buf| memory.read(address, buf));
        let mut capture =
            Capture { consistent: true, notes: std::mem::take(&mut files.notes), ..Capture::default() };
        capture.lacking = missing;
        if missing > 0 {
            capture.notes.push(format!(
                "the core file is truncated: {missing} bytes of memory are missing (disk full, or a limit on \
                 its size?)"
            ));
        }
        if threads.is_empty() {
            capture.notes.push("the core file has no registers of any thread".to_owned());
        }
        let mappings = mappings(&memory.loads, &ranges, &files, &notes);
        Ok(Self { memory, ranges, files, mappings, threads, capture, arch, entry })
    }

    /// The path of the executable when it ran, or that of its copy: the file with the program's entry point. `None` if the core
    /// file has no list of files, or no auxiliary vector.
    pub(crate) fn executable(&self) -> Option<&Path> {
        containing(&self.ranges, self.entry?, |range| range.range.clone()).map(|range| range.path.as_path())
    }

    /// Copies from the file that was mapped at `address`, up to the end of that mapping or to the next segment of the core
    /// file, which may have newer contents.
    fn read_file(&self, address: Address, buf: &mut [u8]) -> usize {
        let Some(range) = containing(&self.ranges, address, |r| r.range.clone()) else { return 0 };
        let next = self.memory.loads.partition_point(|l| l.range.start <= address);
        let until =
            self.memory.loads.get(next).map_or(range.range.end, |l| l.range.start.min(range.range.end));
        let n = clamp(until.offset_from(address).unwrap_or(0), buf.len());
        let Some(buf) = buf.get_mut(..n) else { return 0 };
        let writable = self.mapping(address).is_none_or(|m| m.write);
        let within = address.offset_from(range.range.start);
        let Some(offset) = within.and_then(|within| range.offset.checked_add(within)) else { return 0 };
        self.files.read(&range.path, offset, writable, buf)
    }
}

/// Replaces the path of the executable, which has the entry point, by that of a copy, unless the copy is known to be of another
/// build, or is another file of the program.
fn use_copy(
    copy: &Path,
    entry: Address,
    ranges: &mut [FileRange],
    read: impl Fn(Address, &mut [u8]) -> usize,
) {
    let Ok(copy) = copy.canonicalize() else { return };
    let Some(named) = containing(ranges, entry, |range| range.range.clone()).map(|range| range.path.clone())
    else {
        return;
    };
    let start = ranges.iter().find(|range| range.path == named && range.offset == FileOffset::default());
    let start = start.map(|range| range.range.start);
    if ranges.iter().any(|range| range.path == copy) || backing::is_of_another_build(&copy, start, read) {
        return;
    }
    for range in ranges.iter_mut().filter(|range| range.path == named) {
        range.path.clone_from(&copy);
    }
}

impl Snapshot for CoreFile {
    fn read(&self, address: Address, buf: &mut [u8]) -> usize {
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

    fn arch(&self) -> &'static dyn Arch {
        self.arch
    }
}

/// One PT_LOAD segment.
#[derive(Debug, Clone)]
struct Load {
    range: Range<Address>,
    /// The part of the core file that contains the first bytes of `range`, clamped to the size of the file.
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
            range: Address::range(start..start + size),
            stored: from..from.saturating_add(filesz).min(len),
            read: flags & PF_R.0 != 0,
            write: flags & PF_W.0 != 0,
            execute: flags & PF_X.0 != 0,
        }
    }
}

/// The memory that is stored in the core file.
struct StoredMemory {
    data: Box<dyn Deref<Target = [u8]> + Send + Sync>,
    /// Ordered by address, disjoint.
    loads: Vec<Load>,
}

impl StoredMemory {
    /// Copies memory that starts at `address`, up to the end of its segment.
    fn read(&self, address: Address, buf: &mut [u8]) -> usize {
        let Some(load) = containing(&self.loads, address, |l| l.range.clone()) else { return 0 };
        let within = address.offset_from(load.range.start).unwrap_or(0);
        let from = load.stored.start.saturating_add(within);
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

/// The element of an ordered list of disjoint ranges that contains `address`.
fn containing<T>(list: &[T], address: Address, range: impl Fn(&T) -> Range<Address>) -> Option<&T> {
    let after = list.partition_point(|item| range(item).start <= address);
    list.get(after.checked_sub(1)?).filter(|item| range(item).contains(&address))
}

/// Sorts `list` by address and removes elements that are empty or overlap their predecessor.
fn keep_disjoint<T>(list: &mut Vec<T>, range: impl Fn(&T) -> Range<Address>) {
    list.sort_by_key(|item| range(item).start);
    let mut end = Address::default();
    list.retain(|item| {
        let range = range(item);
        let keep = range.start < range.end && range.start >= end;
        if keep {
            end = range.end;
        }
        keep
    });
}

/// Merges segments and file ranges into mappings. gcore writes no segment for memory that it does not dump; such a mapping
/// is only listed in NT_FILE.
fn mappings(loads: &[Load], ranges: &[FileRange], files: &BackingFiles, notes: &Notes) -> Vec<Mapping> {
    let mut bounds: Vec<Address> = loads
        .iter()
        .flat_map(|l| [l.range.start, l.range.end])
        .chain(ranges.iter().flat_map(|r| [r.range.start, r.range.end]))
        .collect();
    bounds.sort_unstable();
    bounds.dedup();
    let mut mappings = Vec::new();
    for pair in bounds.windows(2) {
        let &[start, end] = pair else { continue };
        let load = containing(loads, start, |l| l.range.clone());
        let file = containing(ranges, start, |r| r.range.clone());
        if load.is_none() && file.is_none() {
            continue;
        }
        let offset = file.map_or(FileOffset::default(), |f| {
            f.offset.saturating_add(start.offset_from(f.range.start).unwrap_or(0))
        });
        let (write, execute) = match (load, file) {
            (Some(load), _) => (load.write, load.execute),
            (None, Some(file)) => files.permissions(&file.path, offset).unwrap_or((false, false)),
            (None, None) => (false, false),
        };
        let range = start..end;
        let special = |key, name: &str| {
            notes
                .aux(key)
                .is_some_and(|address| range.contains(&Address::new(address)))
                .then(|| PathBuf::from(name))
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
