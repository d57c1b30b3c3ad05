//! Finds instructions in the code of a process with which one of its threads can make a call.

use super::super::memory::Memory;
use super::arch;
use super::frame::{Gadgets, Instructions};
use super::sys;
use crate::snapshot::{Address, Mapping};

const CODE: Instructions = arch::instructions();
/// Bytes that are read at once; parts overlap by the longest sequence.
const PART: usize = 256 << 10;
const OVERLAP: usize = 16;
/// Code that is searched, in bytes: libc has less than 2 MB.
const MOST: u64 = 256 << 20;

/// Finds the sequences in libc, in the vDSO, or else in any code of the process. `None` if one is missing.
pub(crate) fn find(memory: &Memory, mappings: &[Mapping]) -> Option<Gadgets> {
    let mut code: Vec<&Mapping> = mappings.iter().filter(|mapping| is_code(mapping)).collect();
    code.sort_by_key(|mapping| (!is_libc(mapping), !is_vdso(mapping)));
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

/// The kernel's own code in each process, on some architectures the only one that ends a signal handler.
fn is_vdso(mapping: &Mapping) -> bool {
    mapping.path.as_deref() == Some("[vdso]".as_ref())
}

#[derive(Default)]
struct Found {
    call: Option<u64>,
    restore: Option<u64>,
    exit: Option<u64>,
}

impl Found {
    fn search(&mut self, start: Address, code: &[u8]) {
        // Parts start at addresses that are multiples of the alignment.
        let place = |bytes| {
            let mut places = memchr::memmem::find_iter(code, bytes);
            let place = places.find(|place| place.is_multiple_of(CODE.alignment))?;
            Some(start.checked_add(place as u64)?.get())
        };
        self.call = self.call.or_else(|| place(CODE.call));
        self.restore = self.restore.or_else(|| place(CODE.restore));
        self.exit = self.exit.or_else(|| CODE.exit.iter().find_map(|bytes| place(bytes)));
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
        is_at(self.call, &[CODE.call]) && is_at(self.restore, &[CODE.restore]) && is_at(self.exit, CODE.exit)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn this_process_has_all_sequences() {
        let mappings = crate::targets::maps::read(File::open("/proc/self/maps").unwrap()).unwrap();
        let file = File::open("/proc/self/mem").unwrap();
        let memory = Memory::live(file.try_clone().unwrap(), None);
        let gadgets = find(&memory, &mappings).unwrap();
        assert!(gadgets.are_in(file.as_fd()));
        let other = Gadgets { restore: gadgets.call, ..gadgets };
        assert!(!other.are_in(file.as_fd()));
        assert_eq!(find(&memory, &[]), None);
    }
}
