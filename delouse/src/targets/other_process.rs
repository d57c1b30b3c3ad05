//! Another process, read while it runs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::maps;
use crate::snapshot::{Address, Capture, Mapping, Snapshot, Thread};

/// A running process that this process may trace: a child, or any with CAP_SYS_PTRACE. It is not stopped, so that data
/// read from threads that run may be inconsistent.
pub(crate) struct OtherProcess {
    memory: File,
    mappings: Vec<Mapping>,
    threads: Vec<Thread>,
    capture: Capture,
    executable: PathBuf,
}

impl OtherProcess {
    /// Opens the process `pid`.
    ///
    /// # Errors
    /// If it does not exist or may not be traced.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let mut threads = Vec::new();
        for entry in fs::read_dir(proc.join("task"))?.filter_map(Result::ok) {
            let Some(tid) = entry.file_name().to_str().and_then(|tid| tid.parse().ok()) else { continue };
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            threads.push(Thread { name: name.trim_end().to_owned(), ..Thread::new(tid) });
        }
        threads.sort_by_key(|thread| thread.tid);
        Ok(Self {
            memory: File::open(proc.join("mem"))?,
            mappings: maps::read(File::open(proc.join("maps"))?)?,
            threads,
            capture: Capture::default(),
            executable: fs::read_link(proc.join("exe"))?,
        })
    }

    /// The path of its executable.
    pub(crate) fn executable(&self) -> &std::path::Path {
        &self.executable
    }
}

impl Snapshot for OtherProcess {
    fn read(&self, address: Address, buf: &mut [u8]) -> usize {
        let mut read = 0;
        while let Some(rest) = buf.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.memory.read_at(rest, address.get().wrapping_add(read as u64)) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        read
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
