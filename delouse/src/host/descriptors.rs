//! How many descriptors the program may still open.

use std::io;

use rustix::process::Resource;

use super::limits;

/// The most descriptors that a capture has open at once: memory, page table and process of two images, and the files that
/// it reads meanwhile.
pub(super) const NEEDED: usize = 8;
/// Descriptors that stay available to the program during a capture.
const FOR_PROGRAM: usize = 8;
/// If fewer descriptors than this are free, a capture uses its reserve (`descriptor_reserve.rs`), and the program is about
/// to run out of descriptors.
pub(crate) const SPARE: usize = NEEDED + FOR_PROGRAM;

/// Checks that [`SPARE`] descriptors are free. If not, the error is the number of free descriptors.
pub(super) fn check_spare() -> Result<(), usize> {
    // The kernel assigns the lowest free number, so that the highest numbers are usually free: test these first.
    let Ok(Some(limit)) = limit() else { return Ok(()) };
    let numbers = (0..i32::try_from(limit).unwrap_or(i32::MAX)).rev();
    // SAFETY: F_GETFD reads a flag of the descriptor, and fails if the number is not open.
    let is_free = |number: &i32| unsafe { libc::fcntl(*number, libc::F_GETFD) } < 0;
    match numbers.filter(is_free).take(SPARE).count() {
        free if free < SPARE => Err(free),
        _ => Ok(()),
    }
}

/// `RLIMIT_NOFILE`, the soft limit; `None` is unlimited.
pub(super) fn limit() -> io::Result<Option<u64>> {
    Ok(limits::limit(Resource::Nofile)?.current)
}
