//! A process at one moment: memory, mappings, threads with registers.
//!
//! Everything that delouse tells is read from a [`Snapshot`], never from the live program itself. The
//! layers above (`threads`, `tasks`, `waits`) cannot tell a forked image from a core file of yesterday,
//! which is what makes them testable, fuzzable and harmless.

mod budget;
pub(crate) mod core_file;
pub(crate) mod core_pattern;
mod error;
pub(crate) mod file_parts;
pub(crate) mod files;
pub(crate) mod heap;
pub(crate) mod limits;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(delouse_portable)))]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) mod listener;
pub(crate) mod mapped_file;
pub(crate) mod other_process;
pub(crate) mod own_object;
pub(crate) mod room;
pub(crate) mod scratch;
pub(crate) mod shared_bytes;
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(delouse_portable)
)))]
mod unsupported;

pub(crate) use budget::{Joined, Limits, Prediction};
pub(crate) use error::SnapshotError;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(delouse_portable)
))]
pub(crate) use linux::{
    Image, Live, Quits, core_writer, fork, fork_with_threads, freeze, freeze_fork_thaw, give_way,
    join_huge_pages, memory_left, monotonic_nanos, open_file, own_mappings, quits, rolling, shielded,
};
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(delouse_portable)
)))]
pub(crate) use unsupported::*;

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Memory, mappings and threads of one process at one moment.
///
/// Addresses are those of the process that was captured. Nothing here may block for long, and nothing
/// panics on an address that is not mapped.
pub(crate) trait Snapshot: Send + Sync {
    /// Copies memory from `address` on into `buf` and returns how many bytes could be read without a
    /// gap: 0 where nothing is mapped, less than `buf.len()` where the mapping ends.
    fn read(&self, address: u64, buf: &mut [u8]) -> usize;

    /// Calls `visit` with the address and the value of aligned words of `range` that are in `wanted`, in any order, and
    /// gives the parts of it that the caller has to read for himself: all of it, where the source has no faster way. Pages
    /// that nobody ever wrote may be left out.
    fn search(
        &self,
        range: Range<u64>,
        _wanted: &RangeInclusive<u64>,
        _visit: &mut dyn FnMut(u64, u64),
    ) -> Vec<Range<u64>> {
        vec![range]
    }

    /// The mappings, ordered by address, not overlapping.
    fn mappings(&self) -> &[Mapping];

    /// The threads, ordered by id. Those that could not be captured are listed with the reason.
    fn threads(&self) -> &[Thread];

    /// How this image came to be, and what is wrong with it.
    fn capture(&self) -> &Capture;

    /// The little-endian word at `address`.
    fn read_u64(&self, address: u64) -> Option<u64> {
        let mut word = [0; 8];
        (self.read(address, &mut word) == 8).then(|| u64::from_le_bytes(word))
    }

    /// The mapping that holds `address`.
    fn mapping(&self, address: u64) -> Option<&Mapping> {
        let mappings = self.mappings();
        let after = mappings.partition_point(|m| m.range.start <= address);
        mappings[..after].last().filter(|m| m.range.contains(&address))
    }
}

/// One line of `/proc/self/maps`, or one segment of a core file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Addresses, end exclusive.
    pub(crate) range: Range<u64>,
    /// Whether the program may read it.
    pub(crate) read: bool,
    /// Whether the program may write it.
    pub(crate) write: bool,
    /// Whether it holds code.
    pub(crate) execute: bool,
    /// Shared mappings go on changing after a fork.
    pub(crate) shared: bool,
    /// Offset of `range.start` in the file, in bytes.
    pub(crate) offset: u64,
    /// Device and inode of the file, 0 where the source does not say.
    pub(crate) device: u64,
    /// See `device`.
    pub(crate) inode: u64,
    /// The file, or the kernel's name in brackets (`[stack]`, `[vdso]`, `[heap]`), or nothing.
    pub(crate) path: Option<PathBuf>,
}

impl Mapping {
    /// Whether it is gone from all directories, or never was in one: memfds, System V segments, shared anonymous memory
    /// (`/dev/zero (deleted)`).
    pub(crate) fn is_unreachable(&self) -> bool {
        let path = self.path.as_ref().map(|path| path.to_string_lossy());
        path.is_some_and(|path| {
            path.ends_with(" (deleted)") || path.starts_with("/memfd:") || path.starts_with("/SYSV")
        })
    }

    /// Whether it shows a file, or another thing that has a name, that the program may share with others.
    pub(crate) fn is_shared_file(&self) -> bool {
        self.shared && self.inode != 0 && !self.is_unreachable()
    }
}

/// One OS thread.
#[derive(Debug, Clone)]
pub(crate) struct Thread {
    /// The kernel's thread id.
    pub(crate) tid: i32,
    /// `comm`: at most 15 bytes, not unique.
    pub(crate) name: String,
    /// The letter of `/proc/PID/stat`: R running, S sleeping, D uninterruptible, …; `None` in a core file
    /// that does not tell.
    pub(crate) state: Option<char>,
    /// Processor time used so far, user and system.
    pub(crate) cpu: Option<Duration>,
    /// Where in the kernel it sleeps, in words; told of those without registers only.
    pub(crate) kernel: Option<String>,
    /// The registers at the moment of capture, or why there are none.
    pub(crate) registers: Result<Registers, Unavailable>,
    /// The thread's live stack, from its stack pointer upwards, where the capture copied it: such a copy
    /// goes with `registers`, while the memory of a live snapshot has moved on.
    pub(crate) stack: Option<StackCopy>,
    /// Its alternate signal stack (sigaltstack(2)), where the capture knows of one: unless the stack pointer lies there,
    /// nothing on it is in use but by the capture's own handler.
    pub(crate) alternate_stack: Option<Range<u64>>,
}

impl Thread {
    /// Whether it is one of delouse's own.
    pub(crate) fn is_ours(&self) -> bool {
        is_our_thread(&self.name)
    }
}

/// Whether delouse gives its threads that name. A program may well be called `delouse-…`, and its threads with it.
pub(crate) fn is_our_thread(name: &str) -> bool {
    const NAMES: [&str; 8] = ["server", "capture", "types", "free", "dump", "log", "abort", "fork"];
    name.strip_prefix("delouse-").is_some_and(|name| NAMES.contains(&name))
}

/// The registers that unwinding, thread locals and the search for handles need. Names are x86_64's, see the accessors for the
/// meaning on each architecture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// Program counter: rip, pc.
    pub(crate) pc: u64,
    /// Stack pointer: rsp, sp.
    pub(crate) sp: u64,
    /// Frame pointer: rbp, x29.
    pub(crate) fp: Hidden,
    /// Link register: x30 on aarch64, 0 elsewhere.
    pub(crate) lr: u64,
    /// Base of the thread locals: fs_base, tpidr_el0.
    pub(crate) tls: u64,
    /// The futex that it waits at.
    pub(crate) futex: Option<FutexWait>,
    /// All that may hold a pointer that stands nowhere else, as the kernel's `elf_gregset_t` begins: r15 to rdi; x0 to
    /// x30. Zeroes where they are not known.
    pub(crate) general: [Hidden; GENERAL_REGISTERS],
}

/// A word that may be a pointer of the program's, kept as its complement: captures search memory for such pointers, and
/// shall not find what captures left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hidden(u64);

impl Hidden {
    pub(crate) fn new(word: u64) -> Self {
        Self(!word)
    }

    pub(crate) fn get(self) -> u64 {
        !self.0
    }
}

impl Default for Hidden {
    fn default() -> Self {
        Self::new(0)
    }
}

/// How many words of `elf_gregset_t` (`struct user_regs_struct`, `struct user_pt_regs`) are general registers, apart from
/// the stack pointer.
pub(crate) const GENERAL_REGISTERS: usize = if cfg!(target_arch = "aarch64") { 31 } else { 15 };

/// A wait in the kernel for a futex to be woken: what locks, condition variables and parked threads do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FutexWait {
    /// Where the futex lies.
    pub(crate) address: u64,
    /// The value that it had when the thread went to sleep.
    pub(crate) expected: u32,
}

impl FutexWait {
    /// From a system call's number and first three arguments.
    pub(crate) fn of(number: u64, [address, operation, expected]: [u64; 3]) -> Option<Self> {
        // FUTEX_WAIT and FUTEX_WAIT_BITSET, whatever their flags (linux/futex.h).
        let waits = matches!(operation & 0x7f, 0 | 9) && operation < 1 << 10;
        // What is too large for the call is cut off by the kernel, too.
        (number == Self::CALL && waits && address != 0).then_some(Self { address, expected: expected as u32 })
    }

    /// `futex`, in the kernel's tables of system calls.
    const CALL: u64 = if cfg!(target_arch = "aarch64") { 98 } else { 202 };
}

/// A piece of a thread's stack, copied at the moment its registers were read.
#[derive(Debug, Clone)]
pub(crate) struct StackCopy {
    /// Address of the first byte.
    pub(crate) base: u64,
    /// The bytes, which may stop before the stack's end where the slot was full.
    pub(crate) bytes: Vec<u8>,
}

impl StackCopy {
    /// The little-endian word at `address`, where it was copied.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let within = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let word = self.bytes.get(within..within.checked_add(8)?)?;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    }
}

/// What a copy leaves in memory must not be taken for the program's by the next capture.
impl Drop for StackCopy {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // Else the compiler sees that nobody reads the zeros.
        std::hint::black_box(&self.bytes);
    }
}

/// What a file descriptor is open on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OpenFile {
    /// `tcp`, `tcp listener`, `udp`, `unix`, `pipe`, `eventfd`, `terminal`, `file`, …
    pub(crate) what: String,
    /// A socket's own address: `127.0.0.1:8080`, `[::1]:8080`, a path, or `@name`.
    pub(crate) local: Option<String>,
    /// The other end's, where it is connected.
    pub(crate) peer: Option<String>,
    /// The state of a TCP socket, as in `ss`.
    pub(crate) state: Option<&'static str>,
    /// Bytes that may be read; of a TCP listener, connections that may be accepted.
    pub(crate) receive_queue: Option<u64>,
    /// Bytes that the other end has not taken; of a TCP listener, the longest queue of connections.
    pub(crate) send_queue: Option<u64>,
}

impl OpenFile {
    /// Whether connections are accepted from it.
    pub(crate) fn is_listener(&self) -> bool {
        self.what.ends_with(" listener")
    }
}

/// Why a thread gave no registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// It blocks the capture's signal.
    SignalBlocked,
    /// It waits in `sigwait` for the capture's signal and would take it for its own.
    SigWait,
    /// Uninterruptible sleep (state D).
    Uninterruptible,
    /// Stopped by a tracer or by SIGSTOP.
    Stopped,
    /// It ended while it was captured.
    Exited,
    /// It did not answer before the deadline.
    NoAnswer,
    /// No free slot to capture it into.
    NoSlot,
    /// It exists, but no file of `/proc` could be opened to see whether it may be asked.
    NoFiles,
    /// The source does not hold registers of other threads (see the capture's notes).
    NotCaptured,
}

/// How a capture went: the field `capture` of every answer that comes from one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capture {
    /// How long the program stood still for it, in microseconds.
    pub pause_us: u64,
    /// The longest that any one of its threads was held, in microseconds. Where all are held at once, those that sleep
    /// are stopped first and go on last: nobody misses them meanwhile, unless what they wait for happens.
    pub held_us: u64,
    /// From the request to the answer's last byte being ready, in microseconds.
    pub total_us: u64,
    /// Whether everything shown was true at one single moment.
    pub consistent: bool,
    /// What is missing or doubtful, each with what to do about it.
    pub notes: Vec<String>,
}

/// Microseconds, as answers tell times.
pub(crate) fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}
