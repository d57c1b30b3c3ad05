//! Snapshots of this process: live, or as a forked image.

use std::sync::OnceLock;

mod arch;
mod batches;
mod blocked_signals;
mod capture_session;
mod captured;
mod child;
mod child_handle;
mod collect;
mod control;
pub(crate) mod core_writer;
mod engine;
mod examine;
mod fork_cost;
mod forker;
mod handler;
mod hold;
mod huge_memory;
mod huge_pages;
mod image;
mod kernel_wait;
mod live;
mod memory;
mod proc;
mod quit_signal;
mod scheduling;
mod search;
mod signal;
mod signal_wakes;
mod slots;
mod stacks;
mod stop_order;
mod sys;
mod term_signal;
mod vdso;

#[cfg(test)]
mod tests;

use stacks::ThreadLayout;

use super::{SnapshotError, pagemap};
use crate::host::heap::page_size;
use crate::snapshot::Mapping;

pub(crate) use super::open_files::{closed_by_peer, open_file, own_connections, writes_to_a_full_pipe};
pub(crate) use blocked_signals::with_signals_blocked;
pub(crate) use huge_pages::join as join_huge_pages;
pub(crate) use image::{ForkedImage, fork, fork_with_threads, freeze_fork_thaw};
pub(crate) use live::{Live, freeze, rolling};
pub(crate) use quit_signal::{QuitSignals, listen_for_quit};
pub(crate) use scheduling::yield_to_program;
pub(crate) use signal_wakes::SignalWakes;
pub(crate) use term_signal::{TermSignals, defer_term, end_by_sigterm, listen_for_term};

/// Looks up symbols that captures need. Called before threads are stopped, because a stopped thread may hold the loader's
/// lock.
fn layout() -> ThreadLayout {
    static PLACES: OnceLock<ThreadLayout> = OnceLock::new();
    *PLACES.get_or_init(|| {
        arch::prepare();
        vdso::find();
        ThreadLayout::find()
    })
}

/// The mappings of this process, by address.
fn own_mappings() -> Result<Vec<Mapping>, SnapshotError> {
    super::own_mappings().map_err(SnapshotError::proc("/proc/self/maps"))
}

/// The monotonic clock, in nanoseconds: what `std::time::Instant` counts on Linux.
pub(crate) fn monotonic_nanos() -> Option<u64> {
    Some(sys::now())
}

/// The error number of the last failed libc call of this thread.
fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
