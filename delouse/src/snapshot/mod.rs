//! A process at one moment: memory, mappings, threads with registers.
//!
//! delouse reads everything that it reports from a [`Snapshot`], never from the live program. The modules `threads`,
//! `tasks` and `waits` treat a forked image and a core file in the same way, so that they can be tested and fuzzed
//! without a live process, and cannot harm one.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod address;
pub(crate) mod arch;
mod own_thread;

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use address::Address;
pub(crate) use address::FileOffset;
use arch::{Arch, MOST_GENERAL};
pub(crate) use own_thread::OwnThread;

/// Memory, mappings and threads of one process at one moment.
///
/// Addresses are those of the captured process. No method blocks for long or panics on an unmapped address.
pub(crate) trait Snapshot: Send + Sync {
    /// Copies memory that starts at `address` into `buf`. Returns the number of bytes read before the first unreadable
    /// one: 0 if `address` is not mapped, less than `buf.len()` if the mapping ends before.
    fn read(&self, address: Address, buf: &mut [u8]) -> usize;

    /// Searches `range` for aligned words whose value is in `wanted`, and calls `visit` with the address and value of each,
    /// in any order. Pages that were never written may be skipped. Returns the parts of `range` that were not searched,
    /// which the caller has to read: all of it, if the source has no way to search that is faster than `read`.
    fn search(
        &self,
        range: Range<Address>,
        _wanted: &RangeInclusive<u64>,
        _visit: &mut dyn FnMut(Address, u64),
    ) -> Vec<Range<Address>> {
        vec![range]
    }

    /// The mappings, ordered by address, not overlapping.
    fn mappings(&self) -> &[Mapping];

    /// The threads, ordered by id. A thread that could not be captured has a reason instead of registers.
    fn threads(&self) -> &[Thread];

    /// How long the capture took, and what is missing or doubtful in it.
    fn capture(&self) -> &Capture;

    /// Whether it is of this process, or of an image of it: then its memory contains the capture's own data.
    fn is_this_process(&self) -> bool {
        false
    }

    /// The architecture of the process.
    fn arch(&self) -> &'static dyn Arch {
        arch::host()
    }

    /// The little-endian word at `address`.
    fn read_u64(&self, address: Address) -> Option<u64> {
        let mut word = [0; 8];
        (self.read(address, &mut word) == 8).then(|| u64::from_le_bytes(word))
    }

    /// The mapping that contains `address`.
    fn mapping(&self, address: Address) -> Option<&Mapping> {
        let mappings = self.mappings();
        let after = mappings.partition_point(|m| m.range.start <= address);
        mappings.get(..after)?.last().filter(|m| m.range.contains(&address))
    }
}

/// One line of `/proc/self/maps`, or one segment of a core file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Addresses, end exclusive.
    pub(crate) range: Range<Address>,
    /// Whether the program may read it.
    pub(crate) read: bool,
    /// Whether the program may write it.
    pub(crate) write: bool,
    /// Whether the program may execute it.
    pub(crate) execute: bool,
    /// Whether it is shared: the program's writes to shared mappings also appear in a forked image.
    pub(crate) shared: bool,
    /// What the file has at `range.start`.
    pub(crate) offset: FileOffset,
    /// Device of the file; 0 without a file, or if the source does not record it.
    pub(crate) device: u64,
    /// Inode of the file; 0 as above.
    pub(crate) inode: u64,
    /// The file, or the kernel's name in brackets (`[stack]`, `[vdso]`, `[heap]`).
    pub(crate) path: Option<PathBuf>,
}

impl Mapping {
    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.range.end.offset_from(self.range.start).unwrap_or(0)
    }

    /// Whether no directory has an entry for its file: deleted files, memfds, System V segments, shared anonymous memory
    /// (`/dev/zero (deleted)`).
    pub(crate) fn is_unreachable(&self) -> bool {
        let path = self.path.as_ref().map(|path| path.to_string_lossy());
        path.is_some_and(|path| {
            path.ends_with(" (deleted)") || path.starts_with("/memfd:") || path.starts_with("/SYSV")
        })
    }

    /// Whether other processes may change its contents, because it is a shared mapping of a file with a path.
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
    /// The letter of `/proc/PID/stat`: R running, S sleeping, D uninterruptible, …; `None` if a core file does not
    /// record it.
    pub(crate) state: Option<char>,
    /// Processor time used so far, user and system.
    pub(crate) cpu: Option<Duration>,
    /// For how long it could have run, but had no processor.
    pub(crate) queued: Option<Duration>,
    /// A description of the place in the kernel where it sleeps. Only for threads without registers.
    pub(crate) kernel: Option<String>,
    /// The registers at the moment of capture, or why there are none.
    pub(crate) registers: Result<Registers, Unavailable>,
    /// The thread's stack from its stack pointer upwards, if the capture copied it. The copy is consistent with
    /// `registers`; the memory of a live snapshot has changed since.
    pub(crate) stack: Option<StackCopy>,
    /// The thread's alternate signal stack (sigaltstack(2)), if the capture recorded one. Unless the stack pointer is
    /// within it, only the capture's own signal handler uses it.
    pub(crate) alternate_stack: Option<Range<Address>>,
}

impl Thread {
    /// A thread of which only the id is known.
    pub(crate) fn new(tid: i32) -> Self {
        Self {
            tid,
            name: String::new(),
            state: None,
            cpu: None,
            queued: None,
            kernel: None,
            registers: Err(Unavailable::NotCaptured),
            stack: None,
            alternate_stack: None,
        }
    }

    /// Whether it is a thread of delouse.
    pub(crate) fn is_ours(&self) -> bool {
        OwnThread::is_name(&self.name)
    }
}

/// The registers that unwinding, access to thread locals and the scan for tasks need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// Program counter: rip, pc.
    pub(crate) pc: Address,
    /// Stack pointer: rsp, sp.
    pub(crate) sp: Address,
    /// Frame pointer: rbp, x29.
    pub(crate) fp: Hidden,
    /// Link register: x30 on aarch64, 0 elsewhere.
    pub(crate) lr: u64,
    /// Base of the thread locals: fs_base, tpidr_el0.
    pub(crate) tls: Address,
    /// The futex that the thread waits on.
    pub(crate) futex: Option<FutexWait>,
    /// All registers that may contain a pointer that is stored nowhere else, in the order of the kernel's `elf_gregset_t`:
    /// r15 to rdi; x0 to x30. 0 if not known, or if the architecture has fewer.
    pub(crate) general: [Hidden; MOST_GENERAL],
}

/// A word that may be a pointer of the program. Stored as its complement, so that the scan for tasks does not find it in
/// delouse's own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hidden(u64);

impl Hidden {
    pub(crate) fn new(word: u64) -> Self {
        Self(!word)
    }

    pub(crate) fn get(self) -> u64 {
        !self.0
    }

    pub(crate) fn address(self) -> Address {
        Address::new(self.get())
    }

    /// The lowest and the highest of some addresses; an empty range if there are none.
    pub(crate) fn range<'h>(all: impl Iterator<Item = &'h Self> + Clone) -> RangeInclusive<Address> {
        let addresses = all.map(|hidden| hidden.address());
        let highest = addresses.clone().max().unwrap_or_default();
        addresses.min().unwrap_or(Address::new(1))..=highest
    }
}

impl From<Address> for Hidden {
    fn from(address: Address) -> Self {
        Self::new(address.get())
    }
}

impl Default for Hidden {
    fn default() -> Self {
        Self::new(0)
    }
}

/// A thread that waits in the kernel on a futex: locks, condition variables and parked threads do this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FutexWait {
    /// Address of the futex.
    pub(crate) address: Address,
    /// The futex's value when the thread began to wait.
    pub(crate) expected: u32,
    /// The wait ends after some time.
    pub(crate) timed: bool,
}

/// `FUTEX_PRIVATE_FLAG` (linux/futex.h).
const FUTEX_PRIVATE_FLAG: u64 = 128;

impl FutexWait {
    /// Decodes a system call from its number and its first four arguments; `None` if it is not a wait on a futex.
    pub(crate) fn from_syscall(
        arch: &dyn Arch,
        number: u64,
        [address, operation, expected, timeout]: [u64; 4],
    ) -> Option<Self> {
        // FUTEX_WAIT and FUTEX_WAIT_BITSET with any flags (linux/futex.h).
        let waits = matches!(operation & 0x7f, 0 | 9) && operation < 1 << 10;
        // A kernel's core file of aarch64 has a negated error number in the register of the first argument.
        let is_address = address != 0 && address < u64::MAX - 4095;
        // After a stop, a wait with a timeout is continued by restart_syscall(2), with the registers of the first call. Waits of
        // C libraries and of std are private; other calls have no such number as their second argument, except `poll` of that
        // many files.
        let is_continued =
            || number == arch.restart_syscall() && timeout != 0 && operation & FUTEX_PRIVATE_FLAG != 0;
        let is_futex = (number == arch.futex() || is_continued()) && waits && is_address;
        // The kernel truncates `expected` as well.
        is_futex.then_some(Self {
            address: Address::new(address),
            expected: expected as u32,
            timed: timeout != 0,
        })
    }
}

/// A part of a thread's stack, copied when its registers were read.
#[derive(Debug, Clone)]
pub(crate) struct StackCopy {
    /// Address of the first byte.
    pub(crate) base: Address,
    /// The bytes. They may end before the stack does, if the capture's buffer was full.
    pub(crate) bytes: Vec<u8>,
}

impl StackCopy {
    /// The little-endian word at `address`; `None` outside the copy.
    pub(crate) fn word(&self, address: Address) -> Option<u64> {
        let within = usize::try_from(address.offset_from(self.base)?).ok()?;
        let word = self.bytes.get(within..within.checked_add(8)?)?;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    }
}

/// Zeroes the copy, so that the scan for tasks does not find stale pointers in delouse's own memory.
impl Drop for StackCopy {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // Without this, the compiler removes the stores, because the zeros are never read.
        std::hint::black_box(&self.bytes);
    }
}

/// What an open file descriptor refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OpenFile {
    /// `tcp`, `tcp listener`, `udp`, `unix`, `pipe`, `eventfd`, `terminal`, `file`, …
    pub(crate) kind: String,
    /// A socket's own address: `127.0.0.1:8080`, `[::1]:8080`, a path, or `@name`.
    pub(crate) local: Option<String>,
    /// The peer's address, if the socket is connected.
    pub(crate) peer: Option<String>,
    /// The state of a TCP socket, named as by `ss`.
    pub(crate) state: Option<&'static str>,
    /// Bytes ready to be read; for a TCP listener, connections ready to be accepted.
    pub(crate) receive_queue: Option<u64>,
    /// Bytes that the peer has not acknowledged; for a TCP listener, the maximum length of its queue of connections.
    pub(crate) send_queue: Option<u64>,
}

impl OpenFile {
    /// Whether it is a socket that listens for connections.
    pub(crate) fn is_listener(&self) -> bool {
        self.kind.ends_with(" listener")
    }
}

/// A TCP connection that the other end has closed for its part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HalfClosed {
    pub(crate) fd: i32,
    /// The address of the program's own end.
    pub(crate) local: String,
    /// The address of the other end.
    pub(crate) peer: String,
}

/// A connection between two sockets of the program itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnConnection {
    pub(crate) ends: [ConnectionEnd; 2],
}

/// One end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionEnd {
    pub(crate) fd: i32,
    /// Bytes, an end or an error can be read.
    pub(crate) readable: bool,
    /// There is room to write.
    pub(crate) writable: bool,
}

/// Why the registers of a thread were not captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// It blocks the capture's signal.
    SignalBlocked,
    /// It waits in `sigwait` for the capture's signal, and would process it as its own.
    SigWait,
    /// Uninterruptible sleep (state D).
    Uninterruptible,
    /// Stopped by a tracer or by SIGSTOP.
    Stopped,
    /// It ended during the capture.
    Exited,
    /// It did not handle the signal before the deadline.
    NoAnswer,
    /// All slots for captured threads were in use.
    NoSlot,
    /// No descriptor was free to read in `/proc` whether the thread may be signalled.
    NoFiles,
    /// The source has no registers of other threads (see the capture's notes).
    NotCaptured,
}

/// How a capture went: the field `capture` of every answer that comes from one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Capture {
    /// How long all threads of the program were stopped, in microseconds.
    pub pause_us: u64,
    /// The longest time that a single thread was stopped, in microseconds. If all threads are stopped together, sleeping
    /// threads are stopped first and resumed last; that delays them only if an event wakes them meanwhile.
    pub held_us: u64,
    /// From the request until the answer is complete, in microseconds.
    pub total_us: u64,
    /// Whether everything shown was true at the same moment.
    pub consistent: bool,
    /// What is missing or doubtful, and what to do about it.
    pub notes: Vec<String>,
    /// Bytes of memory that a truncated core file lacks.
    #[serde(skip)]
    pub(crate) lacking: u64,
}

/// Whole microseconds, the unit of times in answers.
pub(crate) fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}
