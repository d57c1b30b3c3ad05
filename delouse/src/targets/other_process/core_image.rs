//! What a core file of another process is written from.

use std::fs::File;
use std::sync::OnceLock;

use rustix::fs::OFlags;

use super::arch::VISIBLE_REGISTERS;
use super::handle::Process;
use super::identity::Identity;
use super::{AttachError, AttachOptions, OtherProcess, attach_known, read_mappings};
use crate::host::proc_text::{decimal, status_field};
use crate::snapshot::{Address, Capture, Mapping, Snapshot, Thread};
use crate::targets::core_dump::{CoreImage, ProcessIds, ThreadNote, host_notes};
use crate::targets::{SnapshotError, maps};

/// A capture of another process, with what only a core file needs.
pub(crate) struct CapturedProcess {
    process: OtherProcess,
    ids: ProcessIds,
    auxv: Vec<u8>,
    mappings: Vec<Mapping>,
    /// The page table of the memory that is read.
    pagemap: Option<File>,
    living_pagemap: Option<File>,
    /// Start and index of each thread that has a copy of its stack, ordered by start.
    stacks: Vec<(Address, usize)>,
    capture: Capture,
}

/// Captures the process `pid` for a core file: see [`attach_known`].
///
/// # Errors
/// Those of [`attach_known`].
pub(crate) fn capture_for_core(
    pid: u32,
    options: &AttachOptions,
    known: &OnceLock<Identity>,
) -> Result<CapturedProcess, AttachError> {
    let captured = attach_known(pid, options, known)?;
    let process = Process::find(pid)?;
    let living_pagemap = process.open_raw("pagemap", OFlags::RDONLY).ok();
    let (mappings, pagemap) = match captured.image {
        Some(image) => {
            let ended = |error| AttachError::ImageEnded { pid, error };
            let directory = format!("/proc/{image}");
            let mappings = File::open(format!("{directory}/maps")).and_then(maps::read).map_err(ended)?;
            (mappings, File::open(format!("{directory}/pagemap")).ok())
        }
        None => (read_mappings(&process)?, living_pagemap.as_ref().and_then(|file| file.try_clone().ok())),
    };
    let auxv = process.read("auxv").unwrap_or_default();
    let ids = ids_of(&process);
    if let Some(known) = known.get() {
        known.check_running()?;
    }
    let copies = captured.threads.iter().enumerate();
    let mut stacks: Vec<_> =
        copies.filter_map(|(index, thread)| Some((thread.stack.as_ref()?.base, index))).collect();
    stacks.sort_unstable();
    let capture = with_notes(&captured);
    Ok(CapturedProcess { process: captured, ids, auxv, mappings, pagemap, living_pagemap, stacks, capture })
}

/// Parent, user and group, by proc_pid_status(5).
fn ids_of(process: &Process) -> ProcessIds {
    let status = process.read("status").unwrap_or_default();
    let number = |key: &[u8]| status_field(&status, key).and_then(decimal);
    ProcessIds {
        pid: i32::try_from(process.pid()).unwrap_or(0),
        parent: number(b"PPid:").and_then(|id| i32::try_from(id).ok()).unwrap_or(0),
        user: number(b"Uid:").and_then(|id| u32::try_from(id).ok()).unwrap_or(0),
        group: number(b"Gid:").and_then(|id| u32::try_from(id).ok()).unwrap_or(0),
    }
}

/// The description of the capture, with what the file lacks.
fn with_notes(captured: &OtherProcess) -> Capture {
    let mut capture = captured.capture.clone();
    let partly = captured.registers.iter().filter(|registers| !registers.is_complete).count();
    if partly > 0 {
        capture.notes.push(format!(
            "{partly} of {} threads wait in calls that a stop would interrupt, such as epoll_wait: of their registers, the \
             file has those that the kernel shows without a stop ({VISIBLE_REGISTERS})",
            captured.threads.len()
        ));
    }
    let without = captured.threads.len().saturating_sub(captured.registers.len());
    if without > 0 {
        capture
            .notes
            .push(format!("{without} threads could not be captured: the file does not have their registers"));
    }
    capture
}

impl CapturedProcess {
    /// Replaces what was read at `address` by the copies of stacks there: registers of a thread that ran while the image was
    /// made are of the moment of its copy.
    fn add_stacks(&self, address: Address, read: &mut [u8]) {
        let end = address.saturating_add(read.len() as u64);
        let after = self.stacks.partition_point(|(base, _)| *base < end);
        // Stacks do not overlap: only the last one that starts before can reach into what was read.
        let before = self.stacks.partition_point(|(base, _)| *base <= address).saturating_sub(1);
        for (base, index) in self.stacks.get(before..after).unwrap_or_default() {
            let copy = self.process.threads.get(*index).and_then(|thread| thread.stack.as_ref());
            let Some(copy) = copy else { continue };
            let (from, to) = match address.offset_from(*base) {
                Some(offset) => (usize::try_from(offset).unwrap_or(usize::MAX), 0),
                None => (0, usize::try_from(base.get().saturating_sub(address.get())).unwrap_or(usize::MAX)),
            };
            let bytes = copy.bytes.get(from..).unwrap_or_default();
            let place = read.get_mut(to..).unwrap_or_default();
            place.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        }
    }
}

impl Snapshot for CapturedProcess {
    fn read(&self, address: Address, buf: &mut [u8]) -> usize {
        let length = self.process.read(address, buf);
        if let Some(read) = buf.get_mut(..length) {
            self.add_stacks(address, read);
        }
        length
    }

    fn mappings(&self) -> &[Mapping] {
        self.process.mappings()
    }

    fn threads(&self) -> &[Thread] {
        self.process.threads()
    }

    fn capture(&self) -> &Capture {
        &self.capture
    }
}

impl CoreImage for CapturedProcess {
    fn ids(&self) -> ProcessIds {
        self.ids
    }

    fn auxv(&self) -> Vec<u8> {
        self.auxv.clone()
    }

    fn listed_mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn pagemap(&self) -> Option<&File> {
        self.pagemap.as_ref()
    }

    fn living_pagemap(&self) -> Option<File> {
        self.living_pagemap.as_ref()?.try_clone().ok()
    }

    fn registers(&self) -> Vec<(i32, &[u64])> {
        self.process.registers.iter().map(|of| (of.tid, of.words.as_slice())).collect()
    }

    /// Without vector registers: reading them would make the stop of each thread longer.
    fn thread_notes(&self, index: usize) -> Vec<ThreadNote> {
        let Some(of) = self.process.registers.get(index) else { return Vec::new() };
        let threads = &self.process.threads;
        let place = threads.binary_search_by_key(&of.tid, |thread| thread.tid).ok();
        let thread = place.and_then(|place| threads.get(place));
        let registers = thread.and_then(|thread| thread.registers.as_ref().ok());
        // A thread pointer that is not known is left out.
        registers
            .filter(|registers| registers.tls != Address::default())
            .map_or_else(Vec::new, |registers| host_notes(registers.tls.get()))
    }

    fn intact(&self) -> Result<(), SnapshotError> {
        let is_there = |mapping: &Mapping| mapping.read && self.read(mapping.range.start, &mut [0]) == 1;
        if self.mappings.iter().any(is_there) {
            return Ok(());
        }
        Err(SnapshotError::ImageLost("the process has ended, or its image was killed while it was read"))
    }
}
