//! The files that a core's memory was mapped from: a core leaves out what can be read from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf::{FileHeader64, NT_GNU_BUILD_ID, PF_W, PF_X, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};

use super::notes::FileRange;
use crate::snapshot::mapped_file::MappedFile;

/// A process maps some dozens of files; a limit for cores that lie.
const MAX_FILES: usize = 4096;
const MAX_NOTES: usize = 64;

/// A file of this machine that stands for a part of the core's memory.
#[derive(Debug)]
pub(super) struct Backing {
    file: MappedFile,
    is_elf: bool,
}

/// The files by path.
#[derive(Debug, Default)]
pub(super) struct Files {
    by_path: BTreeMap<PathBuf, Backing>,
    /// What could not be used or not be checked, for the capture's notes.
    pub(super) notes: Vec<String>,
}

impl Files {
    /// Opens the files of `ranges` and leaves out those of another build; `read` reads what the core
    /// itself holds.
    pub(super) fn open(ranges: &[FileRange], read: impl Fn(u64, &mut [u8]) -> usize) -> Self {
        let mut files = Self::default();
        let (mut absent, mut other, mut unchecked) = (Vec::new(), Vec::new(), Vec::new());
        let mut starts: BTreeMap<&Path, Option<u64>> = BTreeMap::new();
        for range in ranges {
            let start = starts.entry(&range.path).or_default();
            if range.offset == 0 && start.is_none() {
                *start = Some(range.start);
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
        files.note("other builds than those that ran, and are left out; put the ones that ran back", &other);
        files.note(
            "not on this machine, and what the core leaves to them is missing; copy them here",
            &absent,
        );
        files.note("could not be checked to be the builds that ran", &unchecked);
        files
    }

    fn note(&mut self, what: &str, paths: &[&Path]) {
        const SHOWN: usize = 5;
        if paths.is_empty() {
            return;
        }
        let mut names: Vec<_> = paths.iter().take(SHOWN).map(|p| p.display().to_string()).collect();
        if paths.len() > SHOWN {
            names.push(format!("and {} more", paths.len() - SHOWN));
        }
        self.notes.push(format!("{} of the program's files are {what}: {}", paths.len(), names.join(", ")));
    }

    /// Copies what the file at `path` holds from `offset` on. Writable memory of a file that is no ELF may
    /// have been shared and changed since.
    pub(super) fn read(&self, path: &Path, offset: u64, writable: bool, buf: &mut [u8]) -> usize {
        let Some(backing) = self.by_path.get(path).filter(|b| b.is_elf || !writable) else { return 0 };
        let rest = usize::try_from(offset).ok().and_then(|o| backing.file.get(o..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        n
    }

    /// Whether memory from `offset` on is writable and executable, by the file's program headers.
    pub(super) fn permissions(&self, path: &Path, offset: u64) -> Option<(bool, bool)> {
        let backing = self.by_path.get(path).filter(|b| b.is_elf)?;
        let data: &[u8] = &backing.file;
        let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
        let loads = header.program_headers(LittleEndian, data).ok()?.iter();
        let flags = loads
            .filter(|p| p.p_type(LittleEndian) == PT_LOAD)
            .rfind(|p| {
                // The kernel maps whole pages: a segment begins on the page that holds its first byte, which
                // may hold the last bytes of the one before.
                let start = p.p_offset(LittleEndian) & !(p.p_align(LittleEndian).max(1) - 1);
                let end = p.p_offset(LittleEndian).saturating_add(p.p_filesz(LittleEndian));
                (start..end).contains(&offset)
            })?
            .p_flags(LittleEndian);
        Some((flags.0 & PF_W.0 != 0, flags.0 & PF_X.0 != 0))
    }
}

enum Check {
    Same,
    Other,
    Unknown,
}

/// Compares the build-id of `file` with the one in memory, where the file is mapped from `start` on.
fn check(file: &[u8], start: u64, read: impl Fn(u64, &mut [u8]) -> usize) -> Check {
    let Some((address, id)) = build_id(file) else { return Check::Unknown };
    let mut ran = vec![0; id.len()];
    if read(start.wrapping_add(address), &mut ran) < id.len() {
        return Check::Unknown;
    }
    if ran == id { Check::Same } else { Check::Other }
}

/// The build-id of an ELF file, and how far from the first mapped byte it lies in memory.
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
