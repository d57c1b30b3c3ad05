//! The files that the process had mapped. A core file leaves out memory that can be read from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf::{FileHeader64, NT_GNU_BUILD_ID, PF_W, PF_X, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};

use super::notes::FileRange;
use crate::host::mapped_file::MappedFile;
use crate::snapshot::{Address, FileOffset};

/// A process maps some dozens of files; damaged core files may claim more.
const MAX_FILES: usize = 4096;
const MAX_NOTES: usize = 64;

/// A file of this machine that is read in place of memory that the core file leaves out.
#[derive(Debug)]
pub(super) struct Backing {
    file: MappedFile,
    is_elf: bool,
}

/// The files by path.
#[derive(Debug, Default)]
pub(super) struct BackingFiles {
    by_path: BTreeMap<PathBuf, Backing>,
    /// For the capture's notes: files that cannot be used or could not be checked.
    pub(super) notes: Vec<String>,
}

impl BackingFiles {
    /// Opens the files of `ranges`, except files of another build. `read` reads memory that is stored in the core file.
    pub(super) fn open(ranges: &[FileRange], read: impl Fn(Address, &mut [u8]) -> usize) -> Self {
        let mut files = Self::default();
        let (mut absent, mut other, mut unchecked) = (Vec::new(), Vec::new(), Vec::new());
        let mut starts: BTreeMap<&Path, Option<Address>> = BTreeMap::new();
        for range in ranges {
            let start = starts.entry(&range.path).or_default();
            if range.offset == FileOffset::default() && start.is_none() {
                *start = Some(range.range.start);
            }
        }
        for (path, start) in starts.into_iter().take(MAX_FILES) {
            let Ok(file) = MappedFile::open(path) else {
                absent.push(path);
                continue;
            };
            let is_elf = file.starts_with(&object::elf::ELFMAG);
            if is_elf {
                match start.map_or(Check::Unknown, |start| check(&file, start, &read)) {
                    Check::Same => {}
                    Check::Unknown => unchecked.push(path),
                    Check::Other => {
                        other.push(path);
                        continue;
                    }
                }
            }
            files.by_path.insert(path.to_owned(), Backing { file, is_elf });
        }
        files.note(
            "are of another build than the process ran, and are not used; restore the original files",
            &other,
        );
        files.note(
            "are not on this machine, so that memory mapped from them is missing; copy them to this machine",
            &absent,
        );
        files
            .note("have no build ID to check whether they are of the build that the process ran", &unchecked);
        files
    }

    fn note(&mut self, problem: &str, paths: &[&Path]) {
        const SHOWN: usize = 5;
        if paths.is_empty() {
            return;
        }
        let mut names: Vec<_> = paths.iter().take(SHOWN).map(|p| p.display().to_string()).collect();
        if paths.len() > SHOWN {
            names.push(format!("and {} more", paths.len() - SHOWN));
        }
        self.notes.push(format!("{} of the program's files {problem}: {}", paths.len(), names.join(", ")));
    }

    /// Copies the contents of the file at `path` from `offset` on. Reads nothing for writable memory of a file that is not
    /// ELF: the mapping may have been shared, and the file changed since.
    pub(super) fn read(&self, path: &Path, offset: FileOffset, writable: bool, buf: &mut [u8]) -> usize {
        let Some(backing) = self.by_path.get(path).filter(|b| b.is_elf || !writable) else { return 0 };
        let rest = usize::try_from(offset.get()).ok().and_then(|o| backing.file.get(o..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        n
    }

    /// Whether memory mapped from `offset` is writable and whether it is executable, by the file's program headers.
    pub(super) fn permissions(&self, path: &Path, offset: FileOffset) -> Option<(bool, bool)> {
        let backing = self.by_path.get(path).filter(|b| b.is_elf)?;
        let data: &[u8] = &backing.file;
        let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
        let loads = header.program_headers(LittleEndian, data).ok()?.iter();
        let flags = loads
            .filter(|p| p.p_type(LittleEndian) == PT_LOAD)
            .rfind(|p| {
                // The kernel maps whole pages: a segment starts at the page of its first byte. That page may also contain
                // the last bytes of the segment before; of the two, `rfind` takes the later.
                let start = p.p_offset(LittleEndian) & !(p.p_align(LittleEndian).max(1) - 1);
                let end = p.p_offset(LittleEndian).saturating_add(p.p_filesz(LittleEndian));
                (start..end).contains(&offset.get())
            })?
            .p_flags(LittleEndian);
        Some((flags.0 & PF_W.0 != 0, flags.0 & PF_X.0 != 0))
    }
}

/// Whether the file at `path` is none that was mapped at `start`, or cannot be read.
pub(super) fn is_of_another_build(
    path: &Path,
    start: Option<Address>,
    read: impl Fn(Address, &mut [u8]) -> usize,
) -> bool {
    let Ok(file) = MappedFile::open(path) else { return true };
    start.is_some_and(|start| matches!(check(&file, start, &read), Check::Other))
}

enum Check {
    Same,
    Other,
    Unknown,
}

/// Compares the build ID of `file` with that in memory, where the file is mapped at `start`.
fn check(file: &[u8], start: Address, read: impl Fn(Address, &mut [u8]) -> usize) -> Check {
    let Some((address, id)) = build_id(file) else { return Check::Unknown };
    let mut in_memory = vec![0; id.len()];
    if start.checked_add(address).is_none_or(|at| read(at, &mut in_memory) < id.len()) {
        return Check::Unknown;
    }
    if in_memory == id { Check::Same } else { Check::Other }
}

/// The build ID of an ELF file, and its distance in memory from the first mapped byte.
fn build_id(file: &[u8]) -> Option<(u64, &[u8])> {
    let header = FileHeader64::<LittleEndian>::parse(file).ok()?;
    let programs = header.program_headers(LittleEndian, file).ok()?;
    let first = programs.iter().find(|p| p.p_type(LittleEndian) == PT_LOAD)?.p_vaddr(LittleEndian);
    for program in programs.iter().filter(|p| p.p_type(LittleEndian) == PT_NOTE) {
        let Ok(Some(notes)) = program.notes(LittleEndian, file) else { continue };
        let data = program.data(LittleEndian, file).ok()?;
        for note in notes.take(MAX_NOTES).map_while(Result::ok) {
            if note.name() == b"GNU"
                && note.n_type(LittleEndian) == NT_GNU_BUILD_ID
                && !note.desc().is_empty()
            {
                let within = (note.desc().as_ptr() as usize).checked_sub(data.as_ptr() as usize)?;
                let address = program.p_vaddr(LittleEndian).checked_sub(first)?.checked_add(within as u64)?;
                return Some((address, note.desc()));
            }
        }
    }
    None
}
