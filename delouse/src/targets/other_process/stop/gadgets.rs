//! Finds instructions in the code of a process with which one of its threads can make a call.

use super::super::memory::Memory;
use super::frame::Gadgets;
use super::sys;
use crate::snapshot::{Address, Mapping};

const CALL: &[u8] = &[0x0f, 0x05, 0xc3];
/// The same bytes in glibc and musl.
const RESTORE: &[u8] = &[0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05];
const EXIT: &[u8] = &[0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05];
const EXIT_GROUP: &[u8] = &[0xb8, 0xe7, 0x00, 0x00, 0x00, 0x0f, 0x05];
/// Bytes that are read at once; parts overlap by the longest sequence.
const PART: usize = 256 << 10;
const OVERLAP: usize = 16;
/// Code that is searched, in bytes: libc has less than 2 MB.
const MOST: u64 = 256 << 20;

/// Finds the sequences in libc, or else in any code of the process. `None` if one is missing.
pub(crate) fn find(memory: &Memory, mappings: &[Mapping]) -> Option<Gadgets> {
    let mut code: Vec<&Mapping> = mappings.iter().filter(|mapping| is_code(mapping)).collect();
    code.sort_by_key(|mapping| !is_libc(mapping));
    let mut found = Found::default();
    let mut left = MOST;
    let mut buffer = vec![0; PART];
    for mapping in code {
        let mut at = mapping.range.start;
        while at < mapping.range.end && left > 0 {
            let size = mapping.range.end.offset_from(at).unwrap_or(0).min(PART as u64);
            let Some(part) = buffer.get_mut(..size as usize) else { break };
            let read = memory.read(None, at, part);
            found.search(at, part.get(..read).unwrap_or_default());
            if let Some(gadgets) = found.all() {
                return Some(gadgets);
            }
            left = left.saturating_sub(size);
            if read < part.len() || size < PART as u64 {
                break;
            }
            at = at.saturating_add((PART - OVERLAP) as u64);
        }
    }
    None
}

fn is_code(mapping: &Mapping) -> bool {
    mapping.execute
        && mapping.read
        && !mapping.write
        && mapping.path.as_deref() != Some("[vsyscall]".as_ref())
}

fn is_libc(mapping: &Mapping) -> bool {
    let name = mapping.path.as_ref().and_then(|path| path.file_name()).unwrap_or_default().as_encoded_bytes();
    name.starts_with(b"libc.") || name.starts_with(b"libc-") || name.starts_with(b"ld-musl")
}

#[derive(Default)]
struct Found {
    call: Option<u64>,
    restore: Option<u64>,
    exit: Option<u64>,
}

impl Found {
    fn search(&mut self, start: Address, code: &[u8]) {
        let place = |bytes| Some(start.checked_add(memchr::memmem::find(code, bytes)? as u64)?.get());
        self.call = self.call.or_else(|| place(CALL));
        self.restore = self.restore.or_else(|| place(RESTORE));
        self.exit = self.exit.or_else(|| place(EXIT)).or_else(|| place(EXIT_GROUP));
    }

    fn all(&self) -> Option<Gadgets> {
        Some(Gadgets { call: self.call?, restore: self.restore?, exit: self.exit? })
    }
}

impl Gadgets {
    /// Whether the instructions are still there: the process may have replaced its program since. The file `memory` refers
    /// to the memory of the former program then, and nothing can be read from it.
    pub(super) fn are_in(self, memory: std::os::fd::BorrowedFd<'_>) -> bool {
        let is_at = |address, expected: &[&[u8]]| {
            let mut code = [0; 9];
            expected.iter().any(|bytes| {
                let code = code.get_mut(..bytes.len()).unwrap_or_default();
                sys::read_memory(memory, address, code) == bytes.len() && code == *bytes
            })
        };
        is_at(self.call, &[CALL]) && is_at(self.restore, &[RESTORE]) && is_at(self.exit, &[EXIT, EXIT_GROUP])
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn libc_of_this_process_has_all_sequences() {
        let mappings = crate::targets::maps::read(File::open("/proc/self/maps").unwrap()).unwrap();
        let file = File::open("/proc/self/mem").unwrap();
        let memory = Memory::live(file.try_clone().unwrap(), None);
        let gadgets = find(&memory, &mappings).unwrap();
        assert!(gadgets.are_in(file.as_fd()));
        let other = Gadgets { exit: gadgets.call, ..gadgets };
        assert!(!other.are_in(file.as_fd()));
        assert_eq!(find(&memory, &[]), None);
    }
}
