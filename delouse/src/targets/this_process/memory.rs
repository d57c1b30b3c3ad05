//! Reads this process's own memory without faulting.

use std::os::fd::{AsRawFd, OwnedFd};

use super::proc::read_file;
use super::sys;
use crate::host::proc_text::status_field;
use crate::targets::SnapshotError;

/// Reads this process's memory through the kernel, which returns an error for unmapped addresses where a load would crash.
///
/// Prefers `/proc/self/mem`: system-call filters allow reading files, while systemd's
/// `SystemCallFilter=@system-service` kills a program that calls `process_vm_readv`. A process that is not dumpable (it
/// changed its user, or requested this) cannot open the file; then it uses the call, unless it has a filter.
#[derive(Debug)]
pub(super) struct OwnMemory {
    file: Option<OwnedFd>,
}

/// The same for the signal handler: a descriptor, or [`BY_CALL`].
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

    /// Copies memory at `address` into `buf`. Returns the number of bytes before the first unreadable one.
    pub(super) fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        // SAFETY: `buf` is writable for its length.
        unsafe { read_raw(self.raw(), address, buf.as_mut_ptr(), buf.len()) }
    }
}

/// Copies from `address` until `len` bytes are copied or the mapping ends. Returns the number of bytes.
/// Async-signal-safe.
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

/// Whether the process has a system-call filter, which may kill it for a call that it does not allow.
pub(super) fn has_seccomp_filter() -> bool {
    let mut buf = [0; 4096];
    let status = read_file(c"/proc/self/status", &mut buf).unwrap_or_default();
    status_field(status, b"Seccomp:") != Some(b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_call_read_mapped_memory_up_to_its_end() {
        let page = crate::host::heap::page_size();
        // The third page of a mapping of a file of two pages is not readable.
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * page as u64).unwrap();
        // SAFETY: a fresh mapping; only the pages within the file are written.
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
