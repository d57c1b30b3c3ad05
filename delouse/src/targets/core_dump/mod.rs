//! Writes core files of processes: of this one (`this_process`) and of others (`other_process`).

mod host_notes;
mod image;
mod notes;
mod plan;
mod writer;

pub(in crate::targets) use host_notes::host_notes;
pub(crate) use image::{CoreImage, ProcessIds, ThreadNote};
pub(in crate::targets) use plan::SegmentPlan;
pub(crate) use writer::{CoreError, Stats, write};
pub(in crate::targets) use writer::{NOTE_BYTES_PER_THREAD, PROGRAM_HEADER_BYTES};
