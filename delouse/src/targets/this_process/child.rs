//! The forked child. It keeps the memory of the moment of the fork, and searches it on request.
//!
//! Rules of [`run_child`] and what it calls: the child is a copy of a process with many threads, but has only one. A lock
//! that another thread held at the fork is never released in the child. So **raw system calls only; no allocation, no lock,
//! no libc, no panic, no return**.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::arch;
use super::batches::search_batch;
use super::control::Control;
use super::sys::{self, Fd};
use crate::host::proc_text::decimal;

/// How often the child checks whether it should exit, in nanoseconds.
const TICK: u64 = 20_000_000;
/// The child exits if its memory was not read for this time, in nanoseconds.
pub(super) const IDLE: u64 = 30_000_000_000;
/// The child exits after this time at the latest, in nanoseconds: while it exists, the program copies each page that it
/// writes for the first time.
pub(super) const LIFETIME: u64 = 300_000_000_000;

/// Why a child exited by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum ExitReason {
    Lifetime = 1,
    Memory = 2,
    ParentGone = 3,
}

impl ExitReason {
    /// A phrase for messages.
    pub(super) fn describe(code: u32) -> &'static str {
        match code {
            c if c == Self::Lifetime as u32 => {
                "it was not read for 30 s, or reading it took longer than 5 min"
            }
            c if c == Self::Memory as u32 => "memory ran short while it was read",
            c if c == Self::ParentGone as u32 => "its program ended",
            _ => "its process was killed",
        }
    }
}

/// The child's main function.
pub(super) fn run_child(control: &Control) -> ! {
    sys::set_name(c"delouse-image");
    // The parent thread exists until the program ends or executes another program.
    sys::die_with_parent();
    let [parent, forker] = [&control.parent, &control.forker].map(|id| id.load(Ordering::Relaxed));
    if sys::tgkill(parent, forker, 0).is_err() {
        end(control, ExitReason::ParentGone);
    }
    let shares_files = control.shares_files.load(Ordering::Relaxed) != 0;
    let pipe = if shares_files { open_shared_files(control) } else { None };
    arch::ignore_protection_keys();
    // If memory runs out, this process is the one to be killed.
    if let Ok(file) = sys::open(c"/proc/self/oom_score_adj", libc::O_WRONLY) {
        let _ = sys::write(file.borrow(), b"1000".as_ptr() as u64, 4);
    }
    let memory_stat = open_memory_stat(control);
    let mut exit_check = ExitCheck { at: 0, memory_stat: memory_stat.as_ref() };
    control.ready.store(1, Ordering::Release);
    sys::futex_wake(&control.ready);

    let (mut served, mut dumpable) = (0, true);
    loop {
        if dumpable && control.opened.load(Ordering::Acquire) != 0 {
            // A crash of the child must not be reported as a crash of the program. Files that are already open stay
            // readable.
            sys::set_undumpable();
            dumpable = false;
        }
        let request = control.request.load(Ordering::Acquire);
        if request == served {
            sys::futex_wait(&control.request, served, TICK);
        } else {
            served = request;
            for range in control.released() {
                // SAFETY: the mapping of a file that this process does not use.
                unsafe { sys::unmap(range) };
            }
            search_batches(control, &mut exit_check);
            serve(control, pipe.as_ref());
            control.reply.store(served, Ordering::Release);
            sys::futex_wake(&control.reply);
        }
        exit_check.check(control);
    }
}

/// Opens the files that the parent reads, in the table of open files that both share, and then leaves that table. If the
/// parent may not read this process's memory file, returns the write end of a pipe instead.
fn open_shared_files(control: &Control) -> Option<ManuallyDrop<Fd>> {
    // A process may always open these files of its own. The least important comes last: the program may be near its limit
    // of open files.
    publish_descriptor(&control.maps, sys::open(c"/proc/self/maps", libc::O_RDONLY));
    let mut kept = None;
    if !publish_descriptor(&control.memory, sys::open(c"/proc/self/mem", libc::O_RDONLY)) {
        // The process is not dumpable: the child writes requested memory to a pipe.
        let [read_end, write_end] = &control.pipe;
        match sys::pipe() {
            Ok([reader, writer]) => {
                write_end.store(writer.borrow().as_raw_fd(), Ordering::Release);
                // Closed at exit, or by the parent if the table stays shared.
                kept = Some(ManuallyDrop::new(writer));
                publish_descriptor(read_end, Ok(reader));
            }
            Err(errno) => drop(publish_descriptor(read_end, Err(errno))),
        }
    }
    publish_descriptor(&control.pagemap, sys::open(c"/proc/self/pagemap", libc::O_RDONLY));
    let number = kept.as_ref().map(|pipe| pipe.borrow().as_raw_fd() as u32);
    // SAFETY: the child uses no file but `kept`.
    let unshared = unsafe {
        match number {
            None => sys::unshare_files(0..=u32::MAX),
            Some(fd) => {
                sys::unshare_files(fd.saturating_add(1)..=u32::MAX).and_then(|()| match fd.checked_sub(1) {
                    None => Ok(()),
                    Some(last) => sys::unshare_files(0..=last),
                })
            }
        }
    };
    control.shares_files.store(u32::from(unshared.is_err()), Ordering::Release);
    kept
}

/// Opens the file that reports how much memory the cgroup uses.
fn open_memory_stat(control: &Control) -> Option<Fd> {
    let path = control.memory_stat_path.load(Ordering::Relaxed);
    // SAFETY: null, or the path in the child's copy of the parent's memory.
    let file =
        unsafe { sys::open_at(std::ptr::with_exposed_provenance(path as usize), libc::O_RDONLY) }.ok()?;
    if control.shares_files.load(Ordering::Relaxed) != 0 {
        // The parent closes it, because the child may be killed at any time.
        control.memory_stat.store(file.borrow().as_raw_fd(), Ordering::Release);
    }
    Some(file)
}

/// Checks regularly whether the child should exit.
struct ExitCheck<'f> {
    /// Time of the last check.
    at: u64,
    memory_stat: Option<&'f Fd>,
}

impl ExitCheck<'_> {
    /// Ends the child if its parent is gone, its lifetime is over, or memory is short. Checks at most once per [`TICK`].
    fn check(&mut self, control: &Control) {
        let now = sys::now();
        if now.wrapping_sub(self.at) < TICK {
            return;
        }
        self.at = now;
        // The kernel kills the child with its parent (`die_with_parent`), unless a seccomp filter forbids that call.
        if sys::getppid() != control.parent.load(Ordering::Relaxed) {
            end(control, ExitReason::ParentGone);
        }
        if now >= control.deadline.load(Ordering::Relaxed) {
            end(control, ExitReason::Lifetime);
        }
        let ceiling = control.memory_ceiling.load(Ordering::Relaxed);
        if self.memory_stat.and_then(|file| anonymous_bytes(file.borrow())).is_some_and(|used| used > ceiling)
        {
            end(control, ExitReason::Memory);
        }
    }
}

/// Stores a descriptor, or the negated error number, for the parent.
fn publish_descriptor(place: &AtomicI32, file: Result<Fd, sys::Errno>) -> bool {
    let is_open = file.is_ok();
    place.store(file.map_or_else(sys::Errno::wrapping_neg, Fd::into_raw), Ordering::Release);
    is_open
}

/// Searches the requested batches.
fn search_batches(control: &Control, exit_check: &mut ExitCheck<'_>) {
    let mut done = control.batches_done.load(Ordering::Relaxed);
    while done != control.batches_asked.load(Ordering::Acquire) {
        // SAFETY: the parent requests present pages of readable mappings.
        unsafe { search_batch(control.batches.get(done)) };
        done = done.wrapping_add(1);
        control.batches_done.store(done, Ordering::Release);
        sys::futex_wake(&control.batches_done);
        exit_check.check(control);
    }
}

/// Writes the requested memory to the pipe.
fn serve(control: &Control, pipe: Option<&ManuallyDrop<Fd>>) {
    let (address, len) = (control.address.load(Ordering::Relaxed), control.len.swap(0, Ordering::Relaxed));
    let Some(pipe) = pipe.filter(|_| len > 0) else { return };
    let written = sys::write(pipe.borrow(), address, len as usize).unwrap_or(0);
    control.written.store(written as u64, Ordering::Relaxed);
}

fn end(control: &Control, why: ExitReason) -> ! {
    control.ended.store(why as u32, Ordering::Release);
    sys::exit(0)
}

/// Anonymous memory of a cgroup, in bytes, from its open `memory.stat`: `anon` in version 2, `rss` in
/// version 1, within the first lines of either. Async-signal-safe.
pub(super) fn anonymous_bytes(memory_stat: BorrowedFd<'_>) -> Option<u64> {
    let mut buf = [0_u8; 128];
    // SAFETY: `buf` is writable for its length.
    let len = unsafe { sys::pread(memory_stat.as_raw_fd(), buf.as_mut_ptr(), buf.len(), 0) }.ok()?;
    parse_anonymous(buf.get(..len)?)
}

fn parse_anonymous(stat: &[u8]) -> Option<u64> {
    stat.split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"anon ").or_else(|| line.strip_prefix(b"rss ")))
        .and_then(decimal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_read_from_both_versions_of_memory_stat() {
        assert_eq!(parse_anonymous(b"anon 4096\nfile 8192\n"), Some(4096));
        assert_eq!(parse_anonymous(b"cache 1\nrss 12288\nrss_huge 0\n"), Some(12288));
        assert_eq!(parse_anonymous(b"cache 1\nrss"), None);
        assert_eq!(parse_anonymous(b""), None);
    }
}
