//! What a core file of this process is written from, and its cost.

use std::fs::File;

use object::elf::NT_FPREGSET;
use rustix::process::{Pid, getgid, getppid, getuid};

use super::image::ForkedImage;
use super::{arch, examine, fork_cost, own_mappings, sys};
use crate::snapshot::{Address, Mapping, Snapshot};
use crate::targets::core_dump::{
    CoreImage, NOTE_BYTES_PER_THREAD, PROGRAM_HEADER_BYTES, ProcessIds, SegmentPlan, ThreadNote, host_notes,
};
use crate::targets::{Prediction, SnapshotError};

/// The size of a core file taken now, and its cost for the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Estimate {
    /// Approximate uncompressed size.
    pub(crate) bytes: u64,
    /// How long the program is stopped, and how much memory the image takes.
    pub(crate) prediction: Prediction,
}

/// Estimates the size of a core file and its cost for the program. Stops no thread.
///
/// Reads the page tables: about 10 ms per gigabyte.
pub(crate) fn estimate() -> Result<Estimate, SnapshotError> {
    let threads = examine::list()?.len();
    let prediction = fork_cost::predict(examine::count_active()?)?;
    let pagemap = File::open("/proc/self/pagemap").ok();
    let plan = SegmentPlan::new(&own_mappings()?, pagemap.as_ref(), pagemap.as_ref());
    let headers = (plan.segments.len() as u64).saturating_mul(PROGRAM_HEADER_BYTES);
    let notes = (threads as u64).saturating_mul(NOTE_BYTES_PER_THREAD);
    Ok(Estimate { bytes: plan.bytes.saturating_add(headers).saturating_add(notes), prediction })
}

impl CoreImage for ForkedImage {
    fn ids(&self) -> ProcessIds {
        ProcessIds {
            pid: sys::getpid(),
            parent: Pid::as_raw(getppid()),
            user: getuid().as_raw(),
            group: getgid().as_raw(),
        }
    }

    fn auxv(&self) -> Vec<u8> {
        std::fs::read("/proc/self/auxv").unwrap_or_default()
    }

    fn listed_mappings(&self) -> &[Mapping] {
        self.mappings()
    }

    fn pagemap(&self) -> Option<&File> {
        self.pagemap()
    }

    fn living_pagemap(&self) -> Option<File> {
        File::open("/proc/self/pagemap").ok()
    }

    fn registers(&self) -> Vec<(i32, &[u64])> {
        self.contexts().iter().map(|(tid, context)| (*tid, context.general.as_slice())).collect()
    }

    /// Vector registers are those that the kernel has saved on the thread's stack.
    fn thread_notes(&self, index: usize) -> Vec<ThreadNote> {
        let Some((_, context)) = self.contexts().get(index) else { return Vec::new() };
        let mut extended = vec![0; context.extended_len as usize];
        self.read(Address::new(context.extended), &mut extended);
        let floats = arch::float_registers(&extended);
        let floats = floats.map(|contents| ThreadNote { name: b"CORE", kind: NT_FPREGSET, contents });
        let vectors = arch::extended_registers(extended);
        let vectors = vectors.map(|(kind, contents)| ThreadNote { name: b"LINUX", kind, contents });
        let (_, thread_pointer) = context.stack();
        floats.into_iter().chain(vectors).chain(host_notes(thread_pointer)).collect()
    }

    fn intact(&self) -> Result<(), SnapshotError> {
        self.intact()
    }
}
