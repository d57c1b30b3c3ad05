//! Which process and which program a series of captures is of.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;

use super::error::AttachError;
use super::handle::{FileIdentity, Process, is_alive};
use super::stop_costs::StopCosts;

/// An address that programs cannot map (`vm.mmap_min_addr`).
const UNMAPPED: u64 = 0;

/// A process that runs a program: later captures must be of both. An id may be reused, and a process may execute another
/// program, even the same one again.
pub(crate) struct Identity {
    pid: u32,
    /// Refers to the process itself, not to its id.
    pidfd: OwnedFd,
    start: u64,
    executable: FileIdentity,
    /// Refers to the memory of this program: it does not become that of the next one.
    memory: File,
    stop_costs: StopCosts,
}

impl Identity {
    /// Records the identity by the first capture, and checks it by later ones.
    ///
    /// # Errors
    /// If the process has ended, or runs another program than at the first capture.
    pub(super) fn check_or_record(
        known: &OnceLock<Self>,
        process: &Process,
        memory: &File,
    ) -> Result<(), AttachError> {
        let pid = process.pid();
        let Some(known) = known.get() else {
            let no_descriptor = |error: std::io::Error| {
                let error = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::MFILE);
                AttachError::Proc { pid, file: "mem", error }
            };
            let pidfd = process.pidfd().try_clone_to_owned().map_err(no_descriptor)?;
            let memory = memory.try_clone().map_err(no_descriptor)?;
            let (start, executable) = (process.start(), process.executable());
            let _recorded_meanwhile =
                known.set(Self { pid, pidfd, start, executable, memory, stop_costs: StopCosts::default() });
            return Ok(());
        };
        known.check_running()?;
        let is_same = process.start() == known.start && process.executable() == known.executable;
        if is_same { Ok(()) } else { Err(AttachError::Executed { pid }) }
    }

    /// What the captures have cost its threads.
    pub(super) fn stop_costs(&self) -> &StopCosts {
        &self.stop_costs
    }

    /// Checks that the process runs, and still runs the same program.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn check_running(&self) -> Result<(), AttachError> {
        if !is_alive(&self.pidfd) {
            return Err(AttachError::Ended { pid: self.pid });
        }
        // Memory without users reads as empty; an address that is not mapped is an error (`mem_rw` of fs/proc/base.c).
        match self.memory.read_at(&mut [0], UNMAPPED) {
            Ok(0) => Err(self.end()),
            _ => Ok(()),
        }
    }

    /// Why its memory has no users any more.
    fn end(&self) -> AttachError {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = state.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        match state {
            Some('Z' | 'X') => AttachError::Zombie { pid: self.pid },
            Some(_) if is_alive(&self.pidfd) => AttachError::Executed { pid: self.pid },
            _ => AttachError::Ended { pid: self.pid },
        }
    }
}
