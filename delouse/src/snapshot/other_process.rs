//! Another process, read while it runs: for tools that look at a child, and for tests.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::{Capture, Mapping, Snapshot, Thread, Unavailable};

/// A running process that we may trace (a child, or with the capability). Nothing stops it, so what is
/// read is consistent only where it stands still.
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
    /// Where it is gone, or not ours to look at.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let maps = fs::read_to_string(proc.join("maps"))?;
        let mut threads = Vec::new();
        for entry in fs::read_dir(proc.join("task"))?.filter_map(Result::ok) {
            let Some(tid) = entry.file_name().to_str().and_then(|tid| tid.parse().ok()) else { continue };
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            threads.push(Thread {
                tid,
                name: name.trim_end().to_owned(),
                state: None,
                cpu: None,
                registers: Err(Unavailable::NotCaptured),
                kernel: None,
                stack: None,
                alternate_stack: None,
            });
        }
        threads.sort_by_key(|thread| thread.tid);
        Ok(Self {
            memory: File::open(proc.join("mem"))?,
            mappings: maps.lines().filter_map(mapping).collect(),
            threads,
            capture: Capture::default(),
            executable: fs::read_link(proc.join("exe"))?,
        })
    }

    /// The program that it runs.
    pub(crate) fn executable(&self) -> &std::path::Path {
        &self.executable
    }
}

impl Snapshot for OtherProcess {
    fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        let mut read = 0;
        while let Some(rest) = buf.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.memory.read_at(rest, address.wrapping_add(read as u64)) {
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

/// One line of `/proc/PID/maps`.
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let permissions = fields.next()?.as_bytes();
    let offset = number(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    let path = fields.next().map(str::trim_start).filter(|path| !path.is_empty());
    Some(Mapping {
        range: number(start)?..number(end)?,
        read: permissions.first() == Some(&b'r'),
        write: permissions.get(1) == Some(&b'w'),
        execute: permissions.get(2) == Some(&b'x'),
        shared: permissions.get(3) == Some(&b's'),
        offset,
        device: (number(major)? << 8) | number(minor)?,
        inode,
        path: path.map(PathBuf::from),
    })
}
