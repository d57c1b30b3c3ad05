//! Futures that wait for a resource themselves: for which resource, and what is known of it.

pub(super) mod contexts;
mod io;
pub(super) mod signals;
mod table;

use super::process::{Process, Program};
use super::route::Route;
use super::{Address, Direction, ResourceKind, WaitsOn};
use crate::debuginfo::types::{Discriminant, Shape, TypeId, Variant};
use contexts::Context;
use io::Wakers;
use table::{Detail, Expected, LeafFact};

pub(super) use contexts::Owner;
pub(super) use io::{Hint, hint};
pub(crate) use table::DUPLEX;

/// What was learned of a program's types, once.
#[derive(Default)]
pub(super) struct Learned {
    io: io::Learned,
    pub(super) signals: signals::Learned,
}

/// Numbers to read, each with the route to it.
pub(crate) type Details = Box<[(Detail, Route)]>;

/// A compiled leaf.
#[derive(Debug)]
pub(crate) struct Leaf {
    fact: &'static LeafFact,
    resource: Option<Route>,
    handle: Option<Handle>,
    details: Details,
    waits: Option<(Route, Expected)>,
    wakers: Option<Wakers>,
    readiness: Option<Route>,
}

/// How a walk has reached a leaf.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Met {
    /// What the leaf means to the functions around it.
    pub(super) context: Option<&'static Context>,
    /// What the types around it show about its input or output.
    pub(super) hint: Hint,
    /// The header of the task; `None` for a main future.
    pub(super) task: Option<Address>,
    /// The task is idle, and nothing has woken it since it was polled.
    pub(super) idle: bool,
    /// Its wakers are gone, and the descriptor is ready for this.
    pub(super) ready: Option<Direction>,
}

/// A handle that is owned or borrowed.
#[derive(Debug)]
struct Handle {
    is_borrowed: Discriminant,
    /// The routes to the resource, by discriminant.
    routes: Vec<(Option<u64>, Route)>,
}

/// The leaf that the type at `path` is, if it is one.
pub(super) fn leaf(program: &Program<'_>, id: TypeId, path: &str) -> Option<Leaf> {
    let fact = table::LEAVES.iter().find(|fact| fact.path == path)?;
    let route = |way: &str| Route::compile(program, id, way);
    let wakers = fact.wakers.and_then(|(reader, writer)| Wakers::compile(program, id, reader, writer));
    Some(Leaf {
        fact,
        resource: fact.resource.and_then(route),
        handle: Handle::compile(program, id, path),
        details: details(program, id, fact.details),
        waits: fact.waits.and_then(|(way, expected)| Some((route(way)?, expected))),
        wakers,
        readiness: fact.readiness.and_then(route),
    })
}

/// Compiles the routes to numbers of the type `id`; numbers that the type does not have are left out.
pub(super) fn details(program: &Program<'_>, id: TypeId, facts: &[(Detail, &str)]) -> Details {
    facts.iter().filter_map(|(detail, way)| Some((*detail, Route::compile(program, id, way)?))).collect()
}

impl Leaf {
    pub(super) fn kind(&self) -> ResourceKind {
        self.fact.kind
    }

    pub(super) fn path(&self) -> &'static str {
        self.fact.path
    }

    /// The module whose functions wait for it, if it is only a handle to all others.
    pub(super) fn home(&self) -> Option<&'static str> {
        self.fact.home
    }

    /// Whether a number or the wakers determine if it is waited for.
    pub(super) fn is_conditional(&self) -> bool {
        self.waits.is_some() || self.wakers.is_some()
    }

    /// Whether it is waited for, by the number or the wakers that determine this.
    pub(super) fn is_waiting(
        &self,
        process: &Process<'_, '_>,
        learned: &Learned,
        address: Address,
        met: &Met,
    ) -> bool {
        if let Some(wakers) = self.wakers.as_ref().filter(|_| met.idle) {
            return wakers.may_wait(process, &learned.io, address, met);
        }
        let Some((route, expected)) = &self.waits else { return true };
        let Some(at) = route.follow(process, address) else { return false };
        match expected {
            Expected::True => process.memory.number(at, 1) == Some(1),
            Expected::False => process.memory.number(at, 1) == Some(0),
            Expected::Is(value) => process.memory.word(at) == Some(*value),
        }
    }

    /// Whether memory shows what its descriptor is ready for.
    pub(super) fn tells_readiness(&self) -> bool {
        self.readiness.is_some()
    }

    /// What the descriptor of the leaf at `address` is ready for.
    pub(super) fn readiness(&self, process: &Process<'_, '_>, address: Address) -> Option<io::Readiness> {
        self.readiness.as_ref()?.word(process, address).map(io::Readiness)
    }

    /// What the leaf at `address` waits for.
    pub(super) fn waits_on(
        &self,
        process: &Process<'_, '_>,
        learned: &Learned,
        address: Address,
        met: &Met,
    ) -> WaitsOn {
        let kind = met.context.map_or(self.fact.kind, |context| context.meaning);
        let mut waits = WaitsOn { kind, ..WaitsOn::default() };
        read(process, &self.details, address, &mut waits);
        let asked = waits.io.as_ref().and_then(|io| io.direction);
        let direction = met.ready.or_else(|| match &self.wakers {
            Some(wakers) => wakers.direction(process, &learned.io, address, met),
            None => asked.or(met.hint.direction),
        });
        if direction.is_some() && kind == ResourceKind::Io || met.hint.file.is_some() {
            let io = waits.io.get_or_insert_default();
            io.direction = direction;
            io.ready = met.ready.is_some();
            io.file = met.hint.file.map(str::to_owned);
        }
        waits.address = self.resource(process, address);
        waits
    }

    /// The address of what it waits for.
    pub(super) fn resource(&self, process: &Process<'_, '_>, address: Address) -> Option<Address> {
        match (&self.resource, &self.handle) {
            (Some(route), _) => route.follow(process, address),
            (None, Some(handle)) => handle.resource(process, address),
            (None, None) => None,
        }
    }

    /// The descriptor that the leaf at `address` waits for.
    pub(super) fn fd(&self, process: &Process<'_, '_>, address: Address) -> Option<i32> {
        let (_, route) = self.details.iter().find(|(detail, _)| *detail == Detail::Fd)?;
        descriptor(process, route.follow(process, address)?)
    }
}

/// Reads numbers of the value at `address`.
pub(super) fn read(process: &Process<'_, '_>, details: &Details, address: Address, waits: &mut WaitsOn) {
    let memory = &process.memory;
    for (detail, route) in details {
        let Some(at) = route.follow(process, address) else { continue };
        match detail {
            Detail::Wanted => waits.wanted = memory.word(at),
            Detail::Available => waits.available = memory.word(at).map(|permits| permits >> 1),
            Detail::Locked => waits.available = memory.word(at).map(|state| 1 - (state & 1)),
            Detail::Arrived => waits.arrived = memory.word(at),
            // Other types of tokio that contain a `Notify` call it for reasons of their own.
            Detail::Calls if waits.kind == ResourceKind::Notify => {
                waits.notified_before = memory.word(at).map(|state| state >> 2).filter(|calls| *calls > 0);
            }
            Detail::Calls => {}
            Detail::Senders => waits.senders = memory.word(at).filter(|count| *count < 1 << 32),
            Detail::Fd => waits.fd = descriptor(process, at),
            Detail::Pid => waits.pid = memory.half(at).map(|pid| pid as i32).filter(|pid| *pid > 0),
            Detail::Stream => waits.stream = memory.half(at),
            Detail::Unread => {
                let unread = memory.half(at).filter(|bytes| *bytes > 0).map(u64::from);
                if unread.is_some() {
                    waits.io.get_or_insert_default().window_used_up = unread;
                }
            }
            Detail::Window => {
                let is_used_up = memory.half(at).is_some_and(|window| window as i32 <= 0);
                waits.io = waits.io.take().filter(|_| is_used_up);
            }
            Detail::Interest => {
                let direction = memory.word(at).and_then(io::of_interest);
                if direction.is_some() {
                    waits.io.get_or_insert_default().direction = direction;
                }
            }
            Detail::Seconds => {
                waits.deadline = memory.word(at).and_then(|s| s.checked_mul(1_000_000_000));
            }
            Detail::Nanoseconds => {
                let rest = memory.half(at).map(u64::from);
                waits.deadline = waits.deadline.zip(rest).and_then(|(whole, rest)| whole.checked_add(rest));
            }
        }
    }
}

fn descriptor(process: &Process<'_, '_>, at: Address) -> Option<i32> {
    process.memory.half(at).map(|fd| fd as i32).filter(|fd| *fd >= 0)
}

impl Handle {
    fn compile(program: &Program<'_>, leaf: TypeId, path: &str) -> Option<Self> {
        let (_, field, way) = table::HANDLES.iter().find(|(of, ..)| *of == path)?;
        let handle = Route::compile(program, leaf, field)?;
        let at = handle.offset()?;
        let ty = program.ty(handle.end)?;
        let Shape::Variants(variants) = &ty.shape else { return None };
        let Discriminant { offset, size } = variants.discriminant?;
        let route = |variant: &Variant| {
            let borrowed = if variant.member.name == "Ref" { "* " } else { "" };
            let way = Route::compile(program, variant.member.of, &format!("{borrowed}{way}"))?;
            Some((variant.value, way.behind(at.checked_add(variant.member.offset)?)))
        };
        let routes = variants.list.iter().filter_map(route).collect();
        Some(Self { is_borrowed: Discriminant { offset: at.checked_add(offset)?, size }, routes })
    }

    fn resource(&self, process: &Process<'_, '_>, leaf: Address) -> Option<Address> {
        let value = process.memory.discriminant(self.is_borrowed, leaf)?;
        let (_, route) = self.routes.iter().find(|(of, _)| of.is_none_or(|of| of == value))?;
        route.follow(process, leaf)
    }
}
