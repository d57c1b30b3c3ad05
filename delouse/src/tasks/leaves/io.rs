//! Whether a leaf waits to read or to write.
//!
//! tokio keeps the waker of a reader and that of a writer with each descriptor (`ScheduledIo`): the place of the task's
//! own waker shows which it is. The waker of a collection of futures does not show its task; then the type of the
//! future that polls decides.

use std::sync::OnceLock;

use super::super::Direction;
use super::super::process::{Process, Program};
use super::super::route::Route;
use super::Met;
use crate::debuginfo::types::TypeId;
use crate::snapshot::Address;

/// `Interest` of tokio's `io/interest.rs`.
const READABLE: u64 = 1;
const WRITABLE: u64 = 2;

/// What an `Interest` waits for; `None` for errors and priority data alone.
pub(super) fn of_interest(bits: u64) -> Option<Direction> {
    match (bits & READABLE != 0, bits & WRITABLE != 0) {
        (true, true) => Some(Direction::ReadOrWrite),
        (true, false) => Some(Direction::Read),
        (false, true) => Some(Direction::Write),
        (false, false) => None,
    }
}

/// What a descriptor is ready for: the lower bits of `ScheduledIo`'s word (`io/ready.rs`, tokio 1.40 to 1.54).
#[derive(Debug, Clone, Copy)]
pub(in crate::tasks) struct Readiness(pub(super) u64);

impl Readiness {
    /// Readable, or closed for reading.
    const READ: u64 = 0b0101;
    /// Writable, or closed for writing.
    const WRITE: u64 = 0b1010;

    /// Whether a task that waited for `direction` was just woken, or is about to be: the driver records that the
    /// descriptor is ready before it takes the waker, and a task that has found the descriptor not ready clears the
    /// record.
    pub(in crate::tasks) fn is_for(self, direction: Direction) -> bool {
        match direction {
            Direction::Read => self.0 & Self::READ != 0,
            Direction::Write => self.0 & Self::WRITE != 0,
            Direction::ReadOrWrite => false,
        }
    }
}

/// Routes to the wakers of a reader and of a writer.
#[derive(Debug)]
pub(super) struct Wakers {
    reader: Waker,
    writer: Waker,
}

/// Routes to the two words of an `Option<Waker>`.
#[derive(Debug)]
struct Waker {
    data: Route,
    vtable: Route,
}

/// The functions that clone the waker of a task.
#[derive(Default)]
pub(super) struct Learned {
    clones: OnceLock<Vec<Address>>,
}

impl Learned {
    /// Whether the vtable at that address is the one of tokio's task wakers.
    fn is_of_task(&self, process: &Process<'_, '_>, vtable: Address) -> bool {
        let clones = self.clones.get_or_init(|| {
            let symbols = process.types.symbols_with("4task5waker11clone_waker");
            symbols.iter().map(|symbol| process.bias.process_address(symbol.address)).collect()
        });
        process.memory.address(vtable).is_some_and(|clone| clones.contains(&clone))
    }
}

/// Whose waker is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    /// None.
    Nothing,
    /// A waker of the task itself.
    Own,
    /// A waker of another task.
    Others,
    /// A waker that does not show its task: of a collection of futures, or of a `block_on`.
    Unknown,
}

impl Wakers {
    pub(super) fn compile(program: &Program<'_>, leaf: TypeId, reader: &str, writer: &str) -> Option<Self> {
        let waker = |way: &str| {
            let route = |field: &str| Route::compile(program, leaf, &format!("{way} {field}"));
            Some(Waker { data: route("data")?, vtable: route("vtable")? })
        };
        Some(Self { reader: waker(reader)?, writer: waker(writer)? })
    }

    /// Whether the task may wait at the leaf: it does not if both wakers belong to other tasks or there are none. Only
    /// for a task that nothing has woken since its last poll, because a wake-up removes the waker.
    pub(super) fn may_wait(
        &self,
        process: &Process<'_, '_>,
        learned: &Learned,
        at: Address,
        met: &Met,
    ) -> bool {
        self.stored(process, learned, at, met).iter().any(|of| matches!(of, Stored::Own | Stored::Unknown))
    }

    /// The owners of the wakers of the reader and of the writer, as far as the leaf reads or writes.
    fn stored(&self, process: &Process<'_, '_>, learned: &Learned, at: Address, met: &Met) -> [Stored; 2] {
        let stored = |waker: &Waker, other: Direction| match met.hint.half {
            Some(half) if half == other => Stored::Nothing,
            _ => waker.stored(process, learned, at, met.task),
        };
        [stored(&self.reader, Direction::Write), stored(&self.writer, Direction::Read)]
    }

    /// What the leaf at `at` waits for. `None` if nothing waits there, or it is not known.
    pub(super) fn direction(
        &self,
        process: &Process<'_, '_>,
        learned: &Learned,
        at: Address,
        met: &Met,
    ) -> Option<Direction> {
        let [reader, writer] = self.stored(process, learned, at, met);
        let pick = |of: Stored| match (reader == of, writer == of) {
            (true, false) => Some(Direction::Read),
            (false, true) => Some(Direction::Write),
            // One of them may be from an earlier poll.
            (true, true) => met.hint.direction.or(Some(Direction::ReadOrWrite)),
            (false, false) => None,
        };
        // The waker of a task that was woken is removed.
        pick(Stored::Own).or_else(|| pick(Stored::Unknown)).or(met.hint.direction)
    }
}

impl Waker {
    fn stored(
        &self,
        process: &Process<'_, '_>,
        learned: &Learned,
        leaf: Address,
        task: Option<Address>,
    ) -> Stored {
        let vtable = self.vtable.address(process, leaf).filter(|vtable| !vtable.is_null());
        match (vtable, self.data.address(process, leaf)) {
            (None, _) | (_, None) => Stored::Nothing,
            (Some(_), data) if data == task => Stored::Own,
            (Some(vtable), _) if learned.is_of_task(process, vtable) => Stored::Others,
            _ => Stored::Unknown,
        }
    }
}

/// What the types around a leaf show about its input or output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::tasks) struct Hint {
    pub(in crate::tasks) direction: Option<Direction>,
    /// The half of a stream that it is: only that waker counts.
    pub(super) half: Option<Direction>,
    /// What it is open on, if the type has that.
    pub(super) file: Option<&'static str>,
}

/// Futures that only read or only write, by the beginning of their names.
const DIRECTIONS: &[(&str, Direction)] = &[
    ("tokio::io::util::read", Direction::Read),
    ("tokio::io::util::lines::", Direction::Read),
    ("tokio::io::util::split::", Direction::Read),
    ("tokio::io::util::fill_buf::", Direction::Read),
    ("tokio::io::util::write", Direction::Write),
    ("tokio::io::util::flush::", Direction::Write),
    ("tokio::io::util::shutdown::", Direction::Write),
    ("tokio::io::stdin::", Direction::Read),
    ("tokio::io::stdout::", Direction::Write),
    ("tokio::io::stderr::", Direction::Write),
    ("tokio_util::codec::framed_read::", Direction::Read),
    ("tokio_util::codec::framed_write::", Direction::Write),
    ("futures_util::io::read", Direction::Read),
    ("futures_util::io::lines::", Direction::Read),
    ("futures_util::io::fill_buf::", Direction::Read),
    ("futures_util::io::write", Direction::Write),
    ("futures_util::io::flush::", Direction::Write),
    ("futures_util::io::close::", Direction::Write),
    ("futures_util::sink::", Direction::Write),
    ("futures_util::stream::stream::split::SplitSink", Direction::Write),
    ("futures_util::stream::stream::split::SplitStream", Direction::Read),
    ("futures_util::stream::stream::next::", Direction::Read),
    ("futures_util::stream::try_stream::try_next::", Direction::Read),
    ("tokio_stream::stream_ext::next::", Direction::Read),
    ("tokio_stream::stream_ext::try_next::", Direction::Read),
];

/// Halves of streams, by the beginnings of their names.
const HALVES: &[(&str, Direction)] = &[
    ("tokio::io::split::ReadHalf", Direction::Read),
    ("tokio::io::split::WriteHalf", Direction::Write),
    ("tokio::net::tcp::split::ReadHalf", Direction::Read),
    ("tokio::net::tcp::split::WriteHalf", Direction::Write),
    ("tokio::net::tcp::split_owned::OwnedReadHalf", Direction::Read),
    ("tokio::net::tcp::split_owned::OwnedWriteHalf", Direction::Write),
    ("tokio::net::unix::split::ReadHalf", Direction::Read),
    ("tokio::net::unix::split::WriteHalf", Direction::Write),
    ("tokio::net::unix::split_owned::OwnedReadHalf", Direction::Read),
    ("tokio::net::unix::split_owned::OwnedWriteHalf", Direction::Write),
];

/// What blocking functions read or write, by the beginnings of the names of tokio's types for them.
const FILES: &[(&str, &str)] = &[
    ("tokio::io::stdin::Stdin", "stdin"),
    ("tokio::io::stdout::Stdout", "stdout"),
    ("tokio::io::stderr::Stderr", "stderr"),
    ("tokio::fs::file::File", "file"),
];

/// The hint in the names of the types around a leaf, the nearest first.
pub(in crate::tasks) fn hint<'n>(names: impl Iterator<Item = &'n str>) -> Hint {
    let mut hint = Hint::default();
    for name in names {
        let find = |(beginning, _): &&(&str, Direction)| name.starts_with(beginning);
        hint.half = hint.half.or_else(|| HALVES.iter().find(find).map(|(_, of)| *of));
        hint.direction =
            hint.direction.or(hint.half).or_else(|| DIRECTIONS.iter().find(find).map(|(_, of)| *of));
        let find = |(beginning, _): &&(&'static str, &'static str)| name.starts_with(beginning);
        hint.file = hint.file.or_else(|| FILES.iter().find(find).map(|(_, file)| *file));
    }
    hint
}
