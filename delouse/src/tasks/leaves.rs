//! Futures that wait for a resource themselves: what for, and what can be told about it.

use super::process::{Process, Program};
use super::route::Route;
use super::{Address, ResourceKind, WaitsOn};
use crate::debuginfo::types::{Discriminant, Shape, TypeId, Variant};

pub(super) const POLL_EVENTED: &str = "tokio::io::poll_evented::PollEvented";

/// A leaf, as it stands in the table.
struct LeafFact {
    /// The type's path.
    path: &'static str,
    kind: ResourceKind,
    /// The way from the leaf to its resource; none where it cannot be told.
    resource: Option<&'static str>,
    /// Numbers that are worth knowing.
    details: &'static [(Detail, &'static str)],
}

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Permits that it wants.
    Wanted,
    /// Permits that there are, shifted by one (`batch_semaphore`'s lowest bit says "closed").
    Available,
    /// Handles that can still send.
    Senders,
    /// Seconds of the `Instant` at which it ends: std keeps it as `Timespec { tv_sec, tv_nsec }`.
    Seconds,
    /// The nanoseconds of it.
    Nanoseconds,
    /// File descriptor.
    Fd,
}

/// The table. Paths and fields are those of tokio 1.40 to 1.54, futures 0.3, async-channel 2, flume 0.11
/// and 0.12, event-listener 5; fields that are not there are left out of the answer.
const LEAVES: &[LeafFact] = &[
    LeafFact {
        path: "tokio::sync::batch_semaphore::Acquire",
        kind: ResourceKind::Semaphore,
        resource: Some("semaphore *"),
        details: &[(Detail::Wanted, "num_permits"), (Detail::Available, "semaphore * permits")],
    },
    LeafFact {
        path: "tokio::sync::notify::Notified",
        kind: ResourceKind::Notify,
        resource: Some("notify *"),
        details: &[],
    },
    LeafFact {
        path: "tokio::sync::notify::OwnedNotified",
        kind: ResourceKind::Notify,
        resource: Some("notify *"),
        details: &[],
    },
    LeafFact {
        path: "tokio::time::sleep::Sleep",
        kind: ResourceKind::Timer,
        resource: Some(""),
        details: &[(Detail::Seconds, "deadline tv_sec"), (Detail::Nanoseconds, "deadline tv_nsec")],
    },
    LeafFact {
        path: "tokio::runtime::task::join::JoinHandle",
        kind: ResourceKind::Join,
        resource: Some("raw *"),
        details: &[],
    },
    LeafFact {
        path: "tokio::sync::oneshot::Receiver",
        kind: ResourceKind::Oneshot,
        resource: Some("inner *"),
        details: &[],
    },
    LeafFact {
        path: "tokio::sync::oneshot::Sender",
        kind: ResourceKind::Oneshot,
        resource: Some("inner *"),
        details: &[],
    },
    LeafFact {
        path: "tokio::sync::mpsc::chan::Rx",
        kind: ResourceKind::ChannelRecv,
        resource: Some("inner *"),
        details: &[(Detail::Senders, "inner * tx_count")],
    },
    LeafFact {
        path: "tokio::sync::broadcast::Recv",
        kind: ResourceKind::Broadcast,
        resource: Some("receiver * shared *"),
        details: &[(Detail::Senders, "receiver * shared * num_tx")],
    },
    LeafFact {
        path: POLL_EVENTED,
        kind: ResourceKind::Io,
        resource: Some("registration shared *"),
        details: &[(Detail::Fd, "io fd")],
    },
    LeafFact {
        path: "tokio::runtime::io::scheduled_io::Readiness",
        kind: ResourceKind::Io,
        resource: Some("scheduled_io *"),
        details: &[],
    },
    LeafFact {
        path: "tokio::io::util::mem::DuplexStream",
        kind: ResourceKind::Io,
        resource: Some("read *"),
        details: &[],
    },
    LeafFact {
        path: "futures_channel::mpsc::Receiver",
        kind: ResourceKind::ChannelRecv,
        resource: Some("inner *"),
        details: &[(Detail::Senders, "inner * num_senders")],
    },
    LeafFact {
        path: "futures_channel::mpsc::UnboundedReceiver",
        kind: ResourceKind::ChannelRecv,
        resource: Some("inner *"),
        details: &[(Detail::Senders, "inner * num_senders")],
    },
    LeafFact {
        path: "futures_channel::oneshot::Receiver",
        kind: ResourceKind::Oneshot,
        resource: Some("inner *"),
        details: &[],
    },
    LeafFact {
        path: "futures_util::lock::mutex::MutexLockFuture",
        kind: ResourceKind::Mutex,
        resource: Some("mutex *"),
        details: &[],
    },
    LeafFact {
        path: "futures_util::lock::mutex::OwnedMutexLockFuture",
        kind: ResourceKind::Mutex,
        resource: Some("mutex *"),
        details: &[],
    },
    LeafFact {
        path: "async_channel::RecvInner",
        kind: ResourceKind::ChannelRecv,
        resource: Some("receiver * channel *"),
        details: &[(Detail::Senders, "receiver * channel * sender_count")],
    },
    LeafFact {
        path: "async_channel::SendInner",
        kind: ResourceKind::ChannelSend,
        resource: Some("sender * channel *"),
        details: &[],
    },
    // flume's resource: see `HANDLES`.
    LeafFact { path: "flume::async::RecvFut", kind: ResourceKind::ChannelRecv, resource: None, details: &[] },
    LeafFact { path: "flume::async::SendFut", kind: ResourceKind::ChannelSend, resource: None, details: &[] },
    LeafFact {
        path: "event_listener::EventListener",
        kind: ResourceKind::Notify,
        resource: Some(""),
        details: &[],
    },
];

/// Leaves that have a handle or borrow it, in an enum of `Owned` and `Ref`: the field, and the way from a
/// handle to the resource.
const HANDLES: &[(&str, &str, &str)] =
    &[("flume::async::RecvFut", "receiver", "shared *"), ("flume::async::SendFut", "sender", "shared *")];

/// What a leaf means when a function of these modules waits for it: a mutex waits for its semaphore, which
/// is nothing that its user has heard of.
#[derive(Debug)]
pub(super) struct Context {
    /// Modules that the function is in.
    module: &'static str,
    /// The leaf that it waits for.
    leaf: ResourceKind,
    meaning: ResourceKind,
    /// The type that the leaf's resource is part of, among the function's variables, and the way from there
    /// to the address that all who wait for it have in common.
    pub(super) owner: Option<(&'static str, &'static str)>,
}

const CONTEXTS: &[Context] = &[
    Context {
        module: "tokio::sync::mutex::",
        leaf: ResourceKind::Semaphore,
        meaning: ResourceKind::Mutex,
        owner: None,
    },
    Context {
        module: "tokio::sync::rwlock::",
        leaf: ResourceKind::Semaphore,
        meaning: ResourceKind::Rwlock,
        owner: None,
    },
    Context {
        module: "tokio::sync::mpsc::",
        leaf: ResourceKind::Semaphore,
        meaning: ResourceKind::ChannelSend,
        owner: Some(("tokio::sync::mpsc::chan::Tx", "inner *")),
    },
    Context {
        module: "tokio::sync::mpsc::",
        leaf: ResourceKind::Notify,
        meaning: ResourceKind::Notify,
        owner: Some(("tokio::sync::mpsc::chan::Tx", "inner *")),
    },
    Context {
        module: "tokio::sync::watch::",
        leaf: ResourceKind::Notify,
        meaning: ResourceKind::Watch,
        owner: Some(("tokio::sync::watch::Shared", "")),
    },
    Context {
        module: "tokio::sync::broadcast::",
        leaf: ResourceKind::Notify,
        meaning: ResourceKind::Broadcast,
        owner: Some(("tokio::sync::broadcast::Shared", "")),
    },
    Context {
        module: "tokio::",
        leaf: ResourceKind::Io,
        meaning: ResourceKind::Io,
        owner: Some((POLL_EVENTED, "")),
    },
];

/// What a leaf of that kind means to the function at `path`.
pub(super) fn context(kind: ResourceKind, path: &str) -> Option<&'static Context> {
    CONTEXTS.iter().find(|context| context.leaf == kind && path.starts_with(context.module))
}

/// A compiled leaf.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) kind: ResourceKind,
    pub(super) path: &'static str,
    resource: Option<Route>,
    handle: Option<Handle>,
    details: Box<[(Detail, Route)]>,
}

/// A handle that is there, or elsewhere.
#[derive(Debug)]
struct Handle {
    is_borrowed: Discriminant,
    /// By the discriminant, the ways to the resource.
    ways: Vec<(Option<u64>, Route)>,
}

/// The leaf that the type at `path` is, if it is one.
pub(super) fn leaf(program: &Program<'_, '_>, id: TypeId, path: &str) -> Option<Leaf> {
    let fact = LEAVES.iter().find(|fact| fact.path == path)?;
    let details = fact.details.iter();
    Some(Leaf {
        kind: fact.kind,
        path: fact.path,
        resource: fact.resource.and_then(|way| Route::compile(program, id, way)),
        handle: Handle::compile(program, id, path),
        details: details.filter_map(|(d, way)| Some((*d, Route::compile(program, id, way)?))).collect(),
    })
}

impl Leaf {
    /// Whether it waits only when its own crate's functions poll it; elsewhere it is merely held.
    pub(super) fn is_handle(&self) -> Option<&'static str> {
        (self.path == "tokio::sync::oneshot::Sender").then_some("tokio::sync::oneshot::")
    }

    /// What the leaf at `address` waits for, in the context of the function that waits.
    pub(super) fn waits_on(
        &self,
        process: &Process<'_, '_>,
        address: u64,
        context: Option<&Context>,
    ) -> WaitsOn {
        let kind = context.map_or(self.kind, |context| context.meaning);
        let resource = self.resource(process, address);
        let mut waits = WaitsOn { kind, address: resource.map(Address), ..WaitsOn::default() };
        for (detail, route) in &self.details {
            let Some(at) = route.follow(process, address) else { continue };
            let memory = &process.memory;
            match detail {
                Detail::Wanted => waits.wanted = memory.word(at),
                Detail::Available => waits.available = memory.word(at).map(|permits| permits >> 1),
                Detail::Senders => waits.senders = memory.word(at).filter(|count| *count < 1 << 32),
                Detail::Fd => waits.fd = memory.half(at).map(|fd| fd as i32).filter(|fd| *fd >= 0),
                Detail::Seconds => {
                    waits.deadline = memory.word(at).and_then(|s| s.checked_mul(1_000_000_000))
                }
                Detail::Nanoseconds => {
                    let rest = memory.half(at).map(u64::from);
                    waits.deadline =
                        waits.deadline.zip(rest).and_then(|(whole, rest)| whole.checked_add(rest));
                }
            }
        }
        waits
    }

    /// The address of what it waits for.
    pub(super) fn resource(&self, process: &Process<'_, '_>, address: u64) -> Option<u64> {
        match (&self.resource, &self.handle) {
            (Some(route), _) => route.follow(process, address),
            (None, Some(handle)) => handle.resource(process, address),
            (None, None) => None,
        }
    }
}

impl Handle {
    fn compile(program: &Program<'_, '_>, leaf: TypeId, path: &str) -> Option<Self> {
        let (_, field, way) = HANDLES.iter().find(|(of, ..)| *of == path)?;
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
        let ways = variants.list.iter().filter_map(route).collect();
        Some(Self { is_borrowed: Discriminant { offset: at.checked_add(offset)?, size }, ways })
    }

    fn resource(&self, process: &Process<'_, '_>, leaf: u64) -> Option<u64> {
        let value =
            process.memory.number(leaf.checked_add(self.is_borrowed.offset)?, self.is_borrowed.size)?;
        let (_, way) = self.ways.iter().find(|(of, _)| of.is_none_or(|of| of == value))?;
        way.follow(process, leaf)
    }
}
