//! Descriptors reserved for captures.
//!
//! A program near `RLIMIT_NOFILE` must not fail to open a file because of a capture. delouse therefore holds a few
//! descriptors open from the start of its server. If few others are free, a capture closes these, opens its own files
//! instead, and reopens them at its end: during the capture, the process has no more descriptors open than before.

use std::fs::File;
use std::io;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

use super::descriptors::{self, NEEDED};
use super::lock::lock;

/// The reserve is at most 1/16 of the limit: a program with a low limit needs the descriptors itself.
const SHARE: u64 = 16;

static RESERVE: Mutex<Reserve> =
    Mutex::new(Reserve { pid: 0, pipe: None, files: Vec::new(), is_lent: false });

/// The reserved descriptors: duplicates of the read end of one pipe that has no writer.
struct Reserve {
    /// The process that opened them. Its forked children inherit the descriptors but do not use them.
    pid: u32,
    /// The descriptor that the others duplicate.
    pipe: Option<Pipe>,
    files: Vec<File>,
    /// Whether a capture uses the reserve.
    is_lent: bool,
}

struct Pipe {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, _) = io::pipe()?;
        let file = File::from(OwnedFd::from(reader));
        let metadata = file.metadata()?;
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()) })
    }

    /// Whether the descriptor still refers to the pipe. A program that closes all descriptors that it does not know (as
    /// daemons do) has also closed this one, and may have opened another file with the same number.
    fn is(&self, file: &File) -> bool {
        file.metadata().is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }
}

impl Reserve {
    /// Closes the duplicates.
    fn close(&mut self) {
        let Self { pipe, files, .. } = self;
        for file in files.drain(..) {
            if !pipe.as_ref().is_some_and(|pipe| pipe.is(&file)) {
                let _of_the_program = file.into_raw_fd();
            }
        }
    }

    /// Opens duplicates until there are [`NEEDED`] or the limit is reached. None if the program has closed the pipe: its
    /// number may be that of a file of the program.
    fn fill(&mut self) {
        let Some(pipe) = self.pipe.as_ref().filter(|pipe| pipe.is(&pipe.file)) else { return };
        while self.files.len() < NEEDED
            && let Ok(file) = pipe.file.try_clone()
        {
            self.files.push(file);
        }
    }

    /// Whether this process has opened all descriptors of the reserve, and all are still open.
    fn is_complete(&self) -> bool {
        let are_open = |pipe: &Pipe| pipe.is(&pipe.file) && self.files.iter().all(|file| pipe.is(file));
        self.pid == std::process::id()
            && self.files.len() >= NEEDED
            && self.pipe.as_ref().is_some_and(are_open)
    }

    /// Closes all descriptors of the reserve, also those inherited from the parent process.
    fn release(&mut self) {
        self.close();
        if let Some(pipe) = self.pipe.take()
            && !pipe.is(&pipe.file)
        {
            let _of_the_program = pipe.file.into_raw_fd();
        }
    }
}

/// Opens the reserve, unless it would take more than a sixteenth of the limit. Does nothing if it is complete or in use.
pub(crate) fn open() {
    let is_small = |limit: u64| limit / SHARE < NEEDED as u64;
    let mut reserve = lock(&RESERVE);
    if reserve.is_lent || reserve.is_complete() || descriptors::check_spare().is_err() {
        return;
    }
    reserve.release();
    if !descriptors::limit().ok().flatten().is_some_and(is_small) {
        reserve.pid = std::process::id();
        reserve.pipe = Pipe::new().ok();
        reserve.fill();
    }
}

/// Closes the reserve, unless a capture uses it.
pub(crate) fn close() {
    let mut reserve = lock(&RESERVE);
    if !reserve.is_lent {
        reserve.release();
    }
}

/// The target of the links in `/proc/self/fd` of the reserved descriptors.
pub(super) fn link() -> Option<String> {
    lock(&RESERVE).pipe.as_ref().map(|pipe| format!("pipe:[{}]", pipe.identity.1))
}

/// The permission to open up to [`NEEDED`] descriptors.
#[derive(Debug)]
pub(crate) struct DescriptorPermit {
    is_reserve: bool,
}

/// Lets a capture open its files. If too few descriptors are free, lends it the reserve. If the reserve is incomplete or
/// in use, the error is the number of free descriptors.
///
/// Costs a few microseconds, and more if the highest descriptor numbers are in use.
pub(crate) fn acquire() -> Result<DescriptorPermit, usize> {
    let Err(free) = descriptors::check_spare() else {
        // Reopens descriptors that an earlier capture could not reopen, or that the program has closed.
        open();
        return Ok(DescriptorPermit { is_reserve: false });
    };
    let mut reserve = lock(&RESERVE);
    if !reserve.is_lent && reserve.pid == std::process::id() {
        // At the end of the last capture, other descriptors may have been open that are closed by now.
        reserve.fill();
    }
    if reserve.is_lent || !reserve.is_complete() {
        return Err(free);
    }
    reserve.is_lent = true;
    reserve.close();
    Ok(DescriptorPermit { is_reserve: true })
}

impl Drop for DescriptorPermit {
    fn drop(&mut self) {
        if self.is_reserve {
            let mut reserve = lock(&RESERVE);
            reserve.is_lent = false;
            reserve.fill();
        }
    }
}
