//! Reading our own memory without ever faulting.

use std::os::fd::{AsRawFd, OwnedFd};

use super::proc::{read_file, status_field};
use super::sys;
use crate::snapshot::SnapshotError;

/// Reads this process's memory through the kernel, which answers "unmapped" where a load would crash.
///
/// `/proc/self/mem` first: an ordinary file to every system-call filter, while `process_vm_readv` gets
/// the program killed under systemd's `SystemCallFilter=@system-service`. A process that is not dumpable
/// (it changed its user, or asked for it) may not open that file; then the call, unless a filter is on.
#[derive(Debug)]
pub(super) struct OwnMemory {
    file: Option<OwnedFd>,
}

/// The same as a number, for the signal handler: a descriptor, or [`BY_CALL`].
pub(super) type RawMemory = i32;
/// `process_vm_readv` in place of a descriptor.
const BY_CALL: RawMemory = -1;

impl OwnMemory {
    pub(super) fn open() -> Result<Self, SnapshotError> {
        match sys::open(c"/proc/self/mem", libc::O_RDONLY) {
            Ok(fd) => Ok(Self { file: Some(fd.into_owned()) }),
            Err(_) if !has_seccomp_filter() => Ok(Self { file: None }),
            Err(errno) => Err(SnapshotError::Proc("/proc/self/mem", errno)),
        }
    }

    pub(super) fn raw(&self) -> RawMemory {
        self.file.as_ref().map_or(BY_CALL, AsRawFd::as_raw_fd)
    }

    /// How many bytes from `address` on could be read into `buf`.
    pub(super) fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        // SAFETY: `buf` is writable for its length.
        unsafe { read_raw(self.raw(), address, buf.as_mut_ptr(), buf.len()) }
    }
}

/// Copies from `address` until `len` bytes are there or the mapping ends. Async-signal-safe.
///
/// # Safety
/// `buf` is writable for `len` bytes.
pub(super) unsafe fn read_raw(memory: RawMemory, address: u64, buf: *mut u8, len: usize) -> usize {
    let mut done = 0_usize;
    while done < len {
        let (from, left) = (address.wrapping_add(done as u64), len.wrapping_sub(done));
        // SAFETY: `done < len`, so the rest of `buf` is writable for `left` bytes.
        let copied = unsafe {
            let to = buf.add(done);
            match memory {
                BY_CALL => sys::process_vm_readv(sys::getpid(), from, to, left),
                file => sys::pread(file, to, left, from),
            }
        };
        match copied {
            Ok(0) | Err(_) => break,
            Ok(n) => done = done.wrapping_add(n),
        }
    }
    done
}

/// Whether a filter may forbid system calls: one that it does not know may be the program's end.
pub(super) fn has_seccomp_filter() -> bool {
    let mut buf = [0; 4096];
    let status = read_file(c"/proc/self/status", &mut buf).unwrap_or_default();
    status_field(status, b"Seccomp:") != Some(b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_read_what_is_mapped_and_stop_where_it_ends() {
        let page = super::super::page_size();
        // The third page of a mapping of a file of two pages cannot be read by anyone.
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * page as u64).unwrap();
        // SAFETY: a fresh mapping, of which the pages that the file has are written.
        let base = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let base =
                libc::mmap(std::ptr::null_mut(), 3 * page, access, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
            assert_ne!(base, libc::MAP_FAILED);
            std::ptr::write_bytes(base.cast::<u8>(), 0xa5, 2 * page);
            base
        };
        for memory in [OwnMemory::open().unwrap(), OwnMemory { file: None }] {
            let mut buf = vec![0; 2 * page];
            assert_eq!(memory.read(base as u64 + 100, &mut buf), 2 * page - 100, "{memory:?}");
            assert!(buf[..2 * page - 100].iter().all(|&b| b == 0xa5));
            assert_eq!(memory.read(8, &mut buf), 0, "{memory:?}");
            assert_eq!(memory.read(u64::MAX - 8, &mut buf), 0, "{memory:?}");
        }
        // SAFETY: mapped above.
        unsafe { libc::munmap(base, 3 * page) };
    }
}
