//! The sources that need a living process: ourselves, and a forked image of ourselves.

use std::sync::OnceLock;

mod arch;
mod captured;
mod child;
mod child_handle;
mod control;
mod core_notes;
mod core_plan;
pub(crate) mod core_writer;
mod engine;
mod examine;
mod files;
mod forker;
mod handler;
mod headroom;
mod huge_pages;
mod image;
mod kernel_wait;
mod live;
mod maps;
mod memory;
mod pagemap;
mod proc;
mod quit;
mod round;
mod scheduling;
mod search;
mod signal;
mod slots;
mod stacks;
mod sys;
mod turn;
mod vdso;

#[cfg(test)]
mod tests;

use stacks::Places;

use super::heap::page_size;

pub(crate) use files::open_file;
pub(crate) use headroom::memory_left;
pub(crate) use huge_pages::join as join_huge_pages;
pub(crate) use image::{Image, fork, fork_with_threads, freeze_fork_thaw};
pub(crate) use live::{Live, freeze, rolling};
pub(crate) use quit::{Quits, quits};
pub(crate) use scheduling::give_way;
pub(crate) use signal::shielded;

/// What captures want of the loader, asked for once, before anybody is stopped.
fn places() -> Places {
    static PLACES: OnceLock<Places> = OnceLock::new();
    *PLACES.get_or_init(|| {
        arch::prepare();
        vdso::find();
        Places::find()
    })
}

/// The mappings of this process, by address.
pub(crate) fn own_mappings() -> std::io::Result<Vec<super::Mapping>> {
    maps::own().map_err(std::io::Error::other)
}

/// The monotonic clock, in nanoseconds: what `std::time::Instant` counts on Linux.
pub(crate) fn monotonic_nanos() -> Option<u64> {
    Some(sys::now())
}

/// The error number of the libc call that just failed on this thread.
fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
