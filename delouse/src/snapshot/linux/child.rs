//! The forked child: it holds memory as it was, and looks for words in it when asked.
//!
//! Rules of [`hold_still`] and what it calls: the child is a copy of a process with many threads, of which
//! it has one: any lock may be held for ever. So **raw system calls only; no allocation, no lock, no libc,
//! no panic, no return**.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::arch;
use super::control::Control;
use super::proc::decimal;
use super::search::look_through;
use super::sys::{self, Fd};

/// How often the child looks whether it is still wanted, in nanoseconds.
const TICK: u64 = 20_000_000;
/// The child ends by itself after this long, in nanoseconds: nobody may forget it.
pub(super) const LIFETIME: u64 = 30_000_000_000;

/// Why a child ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Ended {
    Lifetime = 1,
    Memory = 2,
    ParentGone = 3,
}

impl Ended {
    /// In words for a message.
    pub(super) fn describe(code: u32) -> &'static str {
        match code {
            c if c == Self::Lifetime as u32 => "it took longer than 30 s to read",
            c if c == Self::Memory as u32 => "memory ran short while it was read",
            c if c == Self::ParentGone as u32 => "its program ended",
            _ => "something killed it",
        }
    }
}

/// What the child does from its first to its last moment.
pub(super) fn hold_still(control: &Control) -> ! {
    sys::set_name(c"delouse-image");
    // The thread that forked this process lives as long as its program: until that ends or executes another one.
    sys::die_with_parent();
    let [parent, forker] = [&control.parent, &control.forker].map(|id| id.load(Ordering::Relaxed));
    if sys::tgkill(parent, forker, 0).is_err() {
        end(control, Ended::ParentGone);
    }
    let shares_files = control.shares_files.load(Ordering::Relaxed) != 0;
    let pipe = if shares_files { hand_files_over(control) } else { None };
    arch::ignore_protection_keys();
    // If memory runs out, this process is the one to be killed.
    if let Ok(file) = sys::open(c"/proc/self/oom_score_adj", libc::O_WRONLY) {
        let _ = sys::write(file.borrow(), b"1000".as_ptr() as u64, 4);
    }
    let memory_stat = open_memory_stat(control);
    let mut wanted = Wanted { at: 0, memory_stat: memory_stat.as_ref() };
    control.ready.store(1, Ordering::Release);
    sys::futex_wake(&control.ready);

    let (mut served, mut dumpable) = (0, true);
    loop {
        if dumpable && control.opened.load(Ordering::Acquire) != 0 {
            // If it crashes, that is no crash of the program's, to be dumped and reported. What is open stays so.
            sys::set_undumpable();
            dumpable = false;
        }
        let request = control.request.load(Ordering::Acquire);
        if request == served {
            sys::futex_wait(&control.request, served, TICK);
        } else {
            served = request;
            for range in control.released() {
                // SAFETY: a mapping of a file that nothing in this process uses.
                unsafe { sys::unmap(range) };
            }
            look(control, &mut wanted);
            serve(control, pipe.as_ref());
            control.reply.store(served, Ordering::Release);
            sys::futex_wake(&control.reply);
        }
        wanted.check(control);
    }
}

/// Opens what the parent reads, in the program's table of open files, and gives that up. Returns the write end of a pipe
/// where the parent may not read this process's memory.
fn hand_files_over(control: &Control) -> Option<ManuallyDrop<Fd>> {
    // These refer to the child's own memory; opening them needs no right, as it is itself that it reads.
    // What can be done without comes last: the program may be near its limit of open files.
    offer(&control.maps, sys::open(c"/proc/self/maps", libc::O_RDONLY));
    let mut kept = None;
    if !offer(&control.memory, sys::open(c"/proc/self/mem", libc::O_RDONLY)) {
        // Not dumpable: the child hands its memory out itself.
        let [read_end, write_end] = &control.pipe;
        match sys::pipe() {
            Ok([reader, writer]) => {
                write_end.store(writer.borrow().as_raw_fd(), Ordering::Release);
                // Closed with the process, or by the parent where the table stays shared.
                kept = Some(ManuallyDrop::new(writer));
                offer(read_end, Ok(reader));
            }
            Err(errno) => drop(offer(read_end, Err(errno))),
        }
    }
    offer(&control.pagemap, sys::open(c"/proc/self/pagemap", libc::O_RDONLY));
    let number = kept.as_ref().map(|pipe| pipe.borrow().as_raw_fd() as u32);
    // SAFETY: of all files, the child uses `kept` alone.
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

/// Opens the file that tells how much memory the cgroup uses.
fn open_memory_stat(control: &Control) -> Option<Fd> {
    let path = control.memory_stat_path.load(Ordering::Relaxed);
    // SAFETY: the path, or null, in the child's copy of the parent's memory.
    let file =
        unsafe { sys::open_at(std::ptr::with_exposed_provenance(path as usize), libc::O_RDONLY) }.ok()?;
    if control.shares_files.load(Ordering::Relaxed) != 0 {
        // The parent closes it: the child may be killed at any time.
        control.memory_stat.store(file.borrow().as_raw_fd(), Ordering::Release);
    }
    Some(file)
}

/// Whether the child is wanted, and since when that is known.
struct Wanted<'f> {
    at: u64,
    memory_stat: Option<&'f Fd>,
}

impl Wanted<'_> {
    /// Ends the child when nobody wants it any more, or memory is needed; looks once in a while.
    fn check(&mut self, control: &Control) {
        let now = sys::now();
        if now.wrapping_sub(self.at) < TICK {
            return;
        }
        self.at = now;
        // The kernel has killed it with its parent, where a filter has not forbidden to ask for that.
        if sys::getppid() != control.parent.load(Ordering::Relaxed) {
            end(control, Ended::ParentGone);
        }
        if now >= control.deadline.load(Ordering::Relaxed) {
            end(control, Ended::Lifetime);
        }
        let ceiling = control.memory_ceiling.load(Ordering::Relaxed);
        if self.memory_stat.and_then(|file| anonymous_bytes(file.borrow())).is_some_and(|used| used > ceiling)
        {
            end(control, Ended::Memory);
        }
    }
}

/// Leaves a descriptor, or the error number, to the parent.
fn offer(place: &AtomicI32, file: Result<Fd, sys::Errno>) -> bool {
    let is_open = file.is_ok();
    place.store(file.map_or_else(sys::Errno::wrapping_neg, Fd::into_raw), Ordering::Release);
    is_open
}

/// Looks through the batches that were handed over.
fn look(control: &Control, wanted: &mut Wanted<'_>) {
    let mut done = control.batches_done.load(Ordering::Relaxed);
    while done != control.batches_asked.load(Ordering::Acquire) {
        // SAFETY: the parent asks for pages that are in our memory, in mappings that may be read.
        unsafe { look_through(control.batches.get(done)) };
        done = done.wrapping_add(1);
        control.batches_done.store(done, Ordering::Release);
        sys::futex_wake(&control.batches_done);
        wanted.check(control);
    }
}

/// Writes into the pipe what was asked for.
fn serve(control: &Control, pipe: Option<&ManuallyDrop<Fd>>) {
    let (address, len) = (control.address.load(Ordering::Relaxed), control.len.swap(0, Ordering::Relaxed));
    let Some(pipe) = pipe.filter(|_| len > 0) else { return };
    let written = sys::write(pipe.borrow(), address, len as usize).unwrap_or(0);
    control.written.store(written as u64, Ordering::Relaxed);
}

fn end(control: &Control, why: Ended) -> ! {
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
    fn both_versions_of_memory_stat_tell_anonymous_memory() {
        assert_eq!(parse_anonymous(b"anon 4096\nfile 8192\n"), Some(4096));
        assert_eq!(parse_anonymous(b"cache 1\nrss 12288\nrss_huge 0\n"), Some(12288));
        assert_eq!(parse_anonymous(b"cache 1\nrss"), None);
        assert_eq!(parse_anonymous(b""), None);
    }
}
