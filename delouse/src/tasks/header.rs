//! A task's header: its state, its id, and where its future is.

use std::cell::RefCell;

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::TaskState;
pub(super) use super::cell::Stage;
use super::cell::{Parts, StageLayout};
use super::facts::{self, Fact, Notes};
use super::process::{Process, Program};
use super::route::Route;
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::types::{Shape, TypeId};
use crate::snapshot::Address;

/// Offsets of the parts of a header and of its vtable: tokio's `Header`, `Vtable` and `Trailer`
/// (`runtime/task/{core,raw}.rs`).
#[derive(Debug, Clone, Copy)]
pub(super) struct HeaderLayout {
    pub(super) state: u64,
    pub(super) vtable: u64,
    pub(super) owner_id: u64,
    trailer_offset: u64,
    scheduler_offset: u64,
    pub(super) id_offset: u64,
    spawn_location_offset: Option<u64>,
    /// From the trailer on.
    prev: u64,
    next: u64,
}

/// What all tasks of one vtable have in common.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) future: TypeId,
    pub(super) scheduler: Scheduler,
    /// From the header on.
    pub(super) scheduler_at: u64,
    pub(super) spawned_at: Option<u64>,
    id_at: u64,
    pub(super) stage: StageLayout,
    trailer_at: u64,
}

/// The scheduler of a task: the second parameter of its `poll`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheduler {
    /// `Arc<scheduler::…::Handle>` or `Arc<local::Shared>`, of that type.
    Shared(TypeId, Flavor),
    /// The blocking pool.
    Blocking,
    /// An unknown one.
    Other,
}

/// The kinds of scheduler that own lists of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Flavor {
    MultiThread,
    CurrentThread,
    LocalSet,
}

impl Flavor {
    /// As its builder calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MultiThread => "multi_thread",
            Self::CurrentThread => "current_thread",
            Self::LocalSet => "LocalSet",
        }
    }
}

/// tokio counts tasks from 1 (`runtime/task/id.rs`): at a million a second, this number is reached in half a year. In
/// the place of a freed task's id there is mostly a pointer, which is larger.
const MAX_ID: u64 = 1 << 44;

/// `runtime/task/state.rs`.
#[derive(Debug, Clone, Copy)]
pub(super) struct State(pub(super) u64);

impl State {
    const RUNNING: u64 = 1;
    const COMPLETE: u64 = 1 << 1;
    const NOTIFIED: u64 = 1 << 2;
    const REFERENCE: u64 = 1 << 6;
    /// A larger number in the place of a reference count is garbage: what an allocator writes at the start of a freed
    /// header (glibc: an address shifted right by 12) is much larger.
    const MAX_REFERENCES: u64 = 1 << 24;

    pub(super) fn is_plausible(self) -> bool {
        let references = self.0 / Self::REFERENCE;
        // RUNNING and COMPLETE are never set together.
        references > 0 && references < Self::MAX_REFERENCES && self.0 & 0b11 != 0b11
    }

    pub(super) fn meaning(self) -> TaskState {
        if self.0 & Self::COMPLETE != 0 {
            TaskState::Complete
        } else if self.0 & Self::RUNNING != 0 {
            TaskState::Running
        } else if self.0 & Self::NOTIFIED != 0 {
            TaskState::Scheduled
        } else {
            TaskState::Idle
        }
    }
}

/// A task's vtable begins with functions, the first of which is `poll`.
const FUNCTIONS: u64 = 7;
/// More vtables than any program has are garbage.
const MAX_VTABLES: usize = 1 << 16;
/// So are more places where tasks are spawned.
const MAX_LOCATIONS: usize = 1 << 16;

/// All kinds of task that a program has: they are constants, and the same in every capture of it.
pub(super) struct Kinds {
    layout: HeaderLayout,
    by_vtable: RefCell<FxHashMap<Address, Option<Arc<Kind>>>>,
    /// Spawn locations by their address.
    locations: RefCell<FxHashMap<Address, Arc<str>>>,
}

impl Kinds {
    /// Learns the layout from the first function of `polls` (tokio's `poll::<T, S>`) whose types are available; `None`
    /// without any.
    pub(super) fn learn(program: &Program<'_>, polls: &[FileAddress], notes: &mut Notes) -> Option<Self> {
        let layout = polls.iter().take(64).find_map(|poll| {
            let function = program.types.function(*poll);
            HeaderLayout::learn(program, function?.first_argument?, notes)
        })?;
        Some(Self { layout, by_vtable: RefCell::default(), locations: RefCell::default() })
    }
}

impl Kinds {
    /// The layout of tokio 1.40 to 1.54, for programs without types: `runtime/task/{core,raw}.rs`.
    pub(super) fn assumed() -> Self {
        let word = |n: u64| n * 8;
        let layout = HeaderLayout {
            state: word(0),
            vtable: word(2),
            owner_id: word(3),
            trailer_offset: word(7),
            scheduler_offset: word(8),
            id_offset: word(9),
            spawn_location_offset: None,
            prev: word(0),
            next: word(1),
        };
        Self { layout, by_vtable: RefCell::default(), locations: RefCell::default() }
    }
}

/// Reads headers.
pub(super) struct Headers<'a, 'p, 'i> {
    process: &'a Process<'p, 'i>,
    pub(super) layout: HeaderLayout,
    kinds: &'a Kinds,
}

impl<'a, 'p, 'i> Headers<'a, 'p, 'i> {
    pub(super) fn new(process: &'a Process<'p, 'i>, kinds: &'a Kinds) -> Self {
        Self { process, layout: kinds.layout, kinds }
    }

    /// The kind of the tasks with `vtable`, an address in the process.
    pub(super) fn kind(&self, vtable: Address) -> Option<Arc<Kind>> {
        if let Some(known) = self.kinds.by_vtable.borrow().get(&vtable) {
            return known.clone();
        }
        let kind = self.learn_kind(vtable).map(Arc::new);
        let mut known = self.kinds.by_vtable.borrow_mut();
        if known.len() >= MAX_VTABLES {
            known.clear();
        }
        known.insert(vtable, kind.clone());
        kind
    }

    /// The vtable of the task at `header`.
    pub(super) fn vtable(&self, header: Address) -> Option<Address> {
        self.process.memory.address(header.checked_add(self.layout.vtable)?)
    }

    pub(super) fn kind_of(&self, header: Address) -> Option<Arc<Kind>> {
        self.kind(self.vtable(header)?)
    }

    pub(super) fn state(&self, header: Address) -> Option<State> {
        self.process.memory.word(header.checked_add(self.layout.state)?).map(State)
    }

    /// The `Arc` of its scheduler.
    pub(super) fn scheduler(&self, header: Address) -> Option<Address> {
        self.part(header, self.layout.scheduler_offset).and_then(|at| self.process.memory.address(at))
    }

    /// The tasks before and after it on its list, null at the list's ends.
    pub(super) fn neighbours(&self, header: Address) -> Option<(Address, Address)> {
        self.links_at(self.part(header, self.layout.trailer_offset)?)
    }

    /// A part of the task, by the offset that its vtable has at `place`.
    fn part(&self, header: Address, place: u64) -> Option<Address> {
        let vtable = self.vtable(header)?;
        header.checked_add(self.process.memory.word(vtable.checked_add(place)?).and_then(small)?)
    }

    pub(super) fn owner(&self, header: Address) -> Option<u64> {
        self.process.memory.word(header.checked_add(self.layout.owner_id)?)
    }

    /// The task's id, which needs no types but the vtable's layout.
    pub(super) fn id(&self, header: Address) -> Option<u64> {
        let vtable = self.vtable(header)?;
        let offset = self.process.memory.word(vtable.checked_add(self.layout.id_offset)?)?;
        self.id_at(header, small(offset)?)
    }

    /// The same for a task whose kind is known.
    pub(super) fn id_of(&self, header: Address, kind: &Kind) -> Option<u64> {
        self.id_at(header, kind.id_at)
    }

    fn id_at(&self, header: Address, offset: u64) -> Option<u64> {
        self.process.memory.word(header.checked_add(offset)?).filter(|id| (1..MAX_ID).contains(id))
    }

    pub(super) fn stage(&self, header: Address, kind: &Kind) -> Option<Stage> {
        kind.stage.read(self.process, kind.future, header).map(|(stage, _)| stage)
    }

    /// Where its future starts, as long as it has one.
    pub(super) fn future(&self, header: Address, kind: &Kind) -> Option<Address> {
        let (stage, start) = kind.stage.read(self.process, kind.future, header)?;
        (stage == Stage::Future).then_some(start)
    }

    /// `file:line:column` of the spawning call.
    pub(super) fn spawned_at(&self, header: Address, kind: &Kind) -> Option<Arc<str>> {
        let memory = &self.process.memory;
        let location = memory.address(header.checked_add(kind.spawned_at?)?)?;
        if let Some(known) = self.kinds.locations.borrow().get(&location) {
            return Some(known.clone());
        }
        // `core::panic::Location { filename: NonNull<str>, line: u32, column: u32 }`: all that is `&'static`
        // and 24 bytes long is laid out like this since Rust 1.0.
        let file = memory.text(memory.address(location)?, memory.word(location.checked_add(8)?)?)?;
        let line = memory.half(location.checked_add(16)?)?;
        let column = memory.half(location.checked_add(20)?)?;
        let place: Arc<str> = format!("{file}:{line}:{column}").into();
        let mut known = self.kinds.locations.borrow_mut();
        if known.len() >= MAX_LOCATIONS {
            known.clear();
        }
        known.insert(location, place.clone());
        Some(place)
    }

    /// The same for a task whose kind is known.
    pub(super) fn links(&self, header: Address, kind: &Kind) -> Option<(Address, Address)> {
        self.links_at(header.checked_add(kind.trailer_at)?)
    }

    fn links_at(&self, trailer: Address) -> Option<(Address, Address)> {
        let link = |offset: u64| self.process.memory.address(trailer.checked_add(offset)?);
        Some((link(self.layout.prev)?, link(self.layout.next)?))
    }

    /// The parts of the tasks of a vtable, and the offset of their spawn location.
    pub(super) fn parts(&self, vtable: Address) -> Option<(Parts, Option<u64>)> {
        let process = self.process;
        let at = |offset: u64| process.memory.word(vtable.checked_add(offset)?).and_then(small);
        let function = process.function(process.memory.address(vtable)?)?;
        let [(_, future), (_, scheduler)] = function.parameters.as_slice() else { return None };
        let spawned_at = match self.layout.spawn_location_offset {
            Some(offset) => Some(at(offset)?),
            None => None,
        };
        let parts = Parts {
            future: *future,
            scheduler: *scheduler,
            functions: (0..FUNCTIONS)
                .filter_map(|n| process.memory.address(vtable.checked_add(n * 8)?))
                .collect(),
            core: at(self.layout.scheduler_offset)?,
            stage: spawned_at.unwrap_or(at(self.layout.id_offset)?).checked_add(8)?,
            trailer: at(self.layout.trailer_offset)?,
        };
        Some((parts, spawned_at))
    }

    fn learn_kind(&self, vtable: Address) -> Option<Kind> {
        let (parts, spawned_at) = self.parts(vtable)?;
        let id_at = self.process.memory.word(vtable.checked_add(self.layout.id_offset)?).and_then(small)?;
        Some(Kind {
            future: parts.future,
            scheduler: scheduler_of(self.process, parts.scheduler),
            scheduler_at: parts.core,
            spawned_at,
            id_at,
            stage: StageLayout::learn(self.process, &parts)?,
            trailer_at: parts.trailer,
        })
    }
}

impl HeaderLayout {
    fn learn(program: &Program<'_>, header_pointer: TypeId, notes: &mut Notes) -> Option<Self> {
        let to_header = Route::compile(program, header_pointer, "*")?;
        let header = to_header.end;
        let vtable = Route::compile(program, header, "vtable *")?.end;
        let offset = |from: TypeId, way: &str| Route::compile(program, from, way)?.offset();
        let trailer = program.types.at_path("tokio::runtime::task::core::Trailer", "7runtime4task");
        let links = trailer.and_then(|of| Some((offset(of, "owned prev")?, offset(of, "owned next")?)));
        let (prev, next) = links.unwrap_or_else(|| {
            notes.missing(&facts::TRAILER);
            (0, 8)
        });
        let mut need = |from: TypeId, way: &str, fact: &'static Fact| {
            let found = offset(from, way);
            if found.is_none() {
                notes.missing(fact);
            }
            found
        };
        Some(Self {
            state: need(header, "state", &facts::HEADER)?,
            vtable: need(header, "vtable", &facts::HEADER)?,
            owner_id: need(header, "owner_id", &facts::HEADER)?,
            trailer_offset: need(vtable, "trailer_offset", &facts::VTABLE)?,
            scheduler_offset: need(vtable, "scheduler_offset", &facts::VTABLE)?,
            id_offset: need(vtable, "id_offset", &facts::VTABLE)?,
            spawn_location_offset: offset(vtable, "spawn_location_offset"),
            prev,
            next,
        })
    }
}

fn scheduler_of(process: &Process<'_, '_>, id: TypeId) -> Scheduler {
    let Some(ty) = process.ty(id) else { return Scheduler::Other };
    let name = ty.name.as_str();
    if name.contains("::blocking::schedule::") {
        return Scheduler::Blocking;
    }
    if !name.starts_with("alloc::sync::Arc<") || matches!(ty.shape, Shape::Scalar) {
        return Scheduler::Other;
    }
    if name.contains("tokio::task::local::Shared") {
        Scheduler::Shared(id, Flavor::LocalSet)
    } else if name.contains("::scheduler::multi_thread::") {
        Scheduler::Shared(id, Flavor::MultiThread)
    } else if name.contains("::scheduler::current_thread::") {
        Scheduler::Shared(id, Flavor::CurrentThread)
    } else {
        Scheduler::Other
    }
}

/// An offset inside a task: futures of more than a gigabyte are garbage.
fn small(offset: u64) -> Option<u64> {
    (offset < 1 << 30).then_some(offset)
}
