//! The forked child: it holds memory as it was, and looks for words in it when asked.
//!
//! Rules of [`hold_still`] and what it calls: the child is a copy of a process with many threads, of which
//! it has one: any lock may be held for ever. So **raw system calls only; no allocation, no lock, no libc,
//! no panic, no return**.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use super::proc::decimal;
use super::search::{Batches, look_through};
use super::{arch, sys};

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

/// The memory that parent and child share.
#[repr(C)]
pub(super) struct Control {
    /// Futex: 1 once the child has opened its files.
    pub(super) ready: AtomicU32,
    /// An [`Ended`], before the child ends by itself.
    pub(super) ended: AtomicU32,
    /// Futex: number of the parent's latest request.
    pub(super) request: AtomicU32,
    /// Futex: number of the latest request that is answered.
    pub(super) reply: AtomicU32,
    /// The request: memory to write into the pipe.
    pub(super) address: AtomicU64,
    pub(super) len: AtomicU64,
    /// The answer: bytes written.
    pub(super) written: AtomicU64,
    /// Descriptors that the child opened, in the table that it shares with the parent; below 0, why there is none:
    /// the error number, negated.
    pub(super) memory: AtomicI32,
    pub(super) maps: AtomicI32,
    pub(super) pagemap: AtomicI32,
    pub(super) pipe: [AtomicI32; 2],
    /// The child's pidfd, which the kernel writes.
    pub(super) pidfd: AtomicI32,
    /// When the child ends by itself.
    pub(super) deadline: AtomicU64,
    /// How long the fork took.
    pub(super) fork_nanos: AtomicU64,
    /// The process that the image is of.
    pub(super) parent: AtomicI32,
    /// `memory.stat` of the cgroup, or -1, and the anonymous bytes there above which the child gives up.
    pub(super) cgroup: AtomicI32,
    pub(super) cgroup_ceiling: AtomicU64,
    /// How many batches the parent has handed over, and (futex) how many of them are done.
    pub(super) batches_asked: AtomicU32,
    pub(super) batches_done: AtomicU32,
    pub(super) batches: Batches,
}

/// What the child does from its first to its last moment.
pub(super) fn hold_still(control: &Control) -> ! {
    sys::set_name(c"delouse-image");
    arch::ignore_protection_keys();
    // If memory runs out, this process is the one to be killed.
    if let Ok(fd) = sys::open(c"/proc/self/oom_score_adj", libc::O_WRONLY) {
        let _ = sys::write(fd, b"1000".as_ptr() as u64, 4);
        sys::close(fd);
    }
    // These refer to the child's own memory; opening them needs no right, as it is itself that it reads.
    // What can be done without comes last: the program may be near its limit of open files.
    offer(&control.maps, sys::open(c"/proc/self/maps", libc::O_RDONLY));
    if !offer(&control.memory, sys::open(c"/proc/self/mem", libc::O_RDONLY)) {
        // Not dumpable: the child hands its memory out itself.
        let [read, write] = &control.pipe;
        let mut ends = [-1_i32; 2];
        let made = sys::pipe(&mut ends);
        offer(read, made.map(|()| ends[0]));
        offer(write, made.map(|()| ends[1]));
    }
    offer(&control.pagemap, sys::open(c"/proc/self/pagemap", libc::O_RDONLY));
    // If it crashes, that is no crash of the program's, to be dumped and reported. What is open stays so.
    sys::set_undumpable();
    control.ready.store(1, Ordering::Release);
    sys::futex_wake(&control.ready);

    let (mut served, mut wanted_at) = (0, 0);
    loop {
        let request = control.request.load(Ordering::Acquire);
        if request == served {
            sys::futex_wait(&control.request, served, TICK);
        } else {
            served = request;
            look(control, &mut wanted_at);
            serve(control);
            control.reply.store(served, Ordering::Release);
            sys::futex_wake(&control.reply);
        }
        end_if_unwanted(control, &mut wanted_at);
    }
}

/// Ends the child when nobody wants it any more, or memory is needed; looks once in a while.
fn end_if_unwanted(control: &Control, wanted_at: &mut u64) {
    let now = sys::now();
    if now.wrapping_sub(*wanted_at) < TICK {
        return;
    }
    *wanted_at = now;
    // Not PR_SET_PDEATHSIG: it fires when the thread that forked ends, not the process.
    if sys::getppid() != control.parent.load(Ordering::Relaxed) {
        end(control, Ended::ParentGone);
    }
    if now >= control.deadline.load(Ordering::Relaxed) {
        end(control, Ended::Lifetime);
    }
    if anonymous_bytes(control.cgroup.load(Ordering::Relaxed))
        .is_some_and(|bytes| bytes > control.cgroup_ceiling.load(Ordering::Relaxed))
    {
        end(control, Ended::Memory);
    }
}

fn offer(place: &AtomicI32, fd: Result<i32, sys::Errno>) -> bool {
    place.store(fd.unwrap_or_else(sys::Errno::wrapping_neg), Ordering::Release);
    fd.is_ok()
}

/// Looks through the batches that were handed over.
fn look(control: &Control, wanted_at: &mut u64) {
    let mut done = control.batches_done.load(Ordering::Relaxed);
    while done != control.batches_asked.load(Ordering::Acquire) {
        // SAFETY: the parent asks for pages that are in our memory, in mappings that may be read.
        unsafe { look_through(control.batches.get(done)) };
        done = done.wrapping_add(1);
        control.batches_done.store(done, Ordering::Release);
        sys::futex_wake(&control.batches_done);
        end_if_unwanted(control, wanted_at);
    }
}

/// Writes into the pipe what was asked for.
fn serve(control: &Control) {
    let [_, pipe] = &control.pipe;
    let (address, len) = (control.address.load(Ordering::Relaxed), control.len.swap(0, Ordering::Relaxed));
    if len == 0 {
        return;
    }
    let written = sys::write(pipe.load(Ordering::Relaxed), address, len as usize).unwrap_or(0);
    control.written.store(written as u64, Ordering::Relaxed);
}

fn end(control: &Control, why: Ended) -> ! {
    control.ended.store(why as u32, Ordering::Release);
    sys::exit(0)
}

/// Anonymous memory of a cgroup, in bytes, from its open `memory.stat`: `anon` in version 2, `rss` in
/// version 1, within the first lines of either. Async-signal-safe.
pub(super) fn anonymous_bytes(memory_stat: i32) -> Option<u64> {
    if memory_stat < 0 {
        return None;
    }
    let mut buf = [0_u8; 128];
    // SAFETY: `buf` is writable for its length.
    let len = unsafe { sys::pread(memory_stat, buf.as_mut_ptr(), buf.len(), 0) }.ok()?;
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
