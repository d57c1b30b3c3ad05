//! Futures that wait for a resource themselves: what for, and what can be told about it.

use super::process::Process;
use super::route::Route;
use super::{ResourceKind, WaitsOn};
use crate::debuginfo::types::TypeId;

pub(super) const POLL_EVENTED: &str = "tokio::io::poll_evented::PollEvented";

/// A leaf, as it stands in the table.
struct LeafFact {
    /// The type's path.
    path: &'static str,
    kind: ResourceKind,
    /// The way from the leaf to its resource.
    resource: &'static str,
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
    /// `Instant` at which it ends.
    Deadline,
    /// File descriptor.
    Fd,
}

/// The table. Paths and fields are those of tokio 1.40 to 1.54, futures 0.3, async-channel 2, flume 0.11
/// and 0.12, event-listener 5; fields that are not there are left out of the answer.
const LEAVES: &[LeafFact] = &[
    LeafFact {
        path: "tokio::sync::batch_semaphore::Acquire",
        kind: ResourceKind::Semaphore,
        resource: "semaphore *",
        details: &[(Detail::Wanted, "num_permits"), (Detail::Available, "semaphore * permits")],
    },
    LeafFact {
        path: "tokio::sync::notify::Notified",
        kind: ResourceKind::Notify,
        resource: "notify *",
        details: &[],
    },
    LeafFact {
        path: "tokio::sync::notify::OwnedNotified",
        kind: ResourceKind::Notify,
        resource: "notify *",
        details: &[],
    },
    LeafFact {
        path: "tokio::time::sleep::Sleep",
        kind: ResourceKind::Timer,
        resource: "",
        details: &[(Detail::Deadline, "deadline")],
    },
    LeafFact {
        path: "tokio::runtime::task::join::JoinHandle",
        kind: ResourceKind::Join,
        resource: "raw *",
        details: &[],
    },
    LeafFact {
        path: "tokio::sync::oneshot::Receiver",
        kind: ResourceKind::Oneshot,
        resource: "inner *",
        details: &[],
    },
    LeafFact {
        path: "tokio::sync::oneshot::Sender",
        kind: ResourceKind::Oneshot,
        resource: "inner *",
        details: &[],
    },
    LeafFact {
        path: "tokio::sync::mpsc::chan::Rx",
        kind: ResourceKind::ChannelRecv,
        resource: "inner *",
        details: &[(Detail::Senders, "inner * tx_count")],
    },
    LeafFact {
        path: "tokio::sync::broadcast::Recv",
        kind: ResourceKind::Broadcast,
        resource: "receiver * shared *",
        details: &[(Detail::Senders, "receiver * shared * num_tx")],
    },
    LeafFact {
        path: POLL_EVENTED,
        kind: ResourceKind::Io,
        resource: "registration shared *",
        details: &[(Detail::Fd, "io fd")],
    },
    LeafFact {
        path: "tokio::runtime::io::scheduled_io::Readiness",
        kind: ResourceKind::Io,
        resource: "scheduled_io *",
        details: &[],
    },
    LeafFact {
        path: "futures_channel::mpsc::Receiver",
        kind: ResourceKind::ChannelRecv,
        resource: "inner *",
        details: &[(Detail::Senders, "inner * num_senders")],
    },
    LeafFact {
        path: "futures_channel::mpsc::UnboundedReceiver",
        kind: ResourceKind::ChannelRecv,
        resource: "inner *",
        details: &[(Detail::Senders, "inner * num_senders")],
    },
    LeafFact {
        path: "futures_channel::oneshot::Receiver",
        kind: ResourceKind::Oneshot,
        resource: "inner *",
        details: &[],
    },
    LeafFact {
        path: "async_channel::RecvInner",
        kind: ResourceKind::ChannelRecv,
        resource: "receiver * channel *",
        details: &[(Detail::Senders, "receiver * channel * sender_count")],
    },
    LeafFact {
        path: "async_channel::SendInner",
        kind: ResourceKind::ChannelSend,
        resource: "sender * channel *",
        details: &[],
    },
    LeafFact {
        path: "flume::async::RecvFut",
        kind: ResourceKind::ChannelRecv,
        resource: "receiver shared *",
        details: &[(Detail::Senders, "receiver shared * sender_count")],
    },
    LeafFact {
        path: "flume::async::SendFut",
        kind: ResourceKind::ChannelSend,
        resource: "sender shared *",
        details: &[],
    },
    LeafFact {
        path: "event_listener::EventListener",
        kind: ResourceKind::Notify,
        resource: "",
        details: &[],
    },
];

/// What a resource is when a function of these modules waits for it, outermost fact first: a mutex waits
/// for its semaphore, which is nothing that its user has heard of.
const CONTEXTS: &[(&str, ResourceKind, ResourceKind)] = &[
    ("tokio::sync::mutex::", ResourceKind::Semaphore, ResourceKind::Mutex),
    ("tokio::sync::rwlock::", ResourceKind::Semaphore, ResourceKind::Rwlock),
    ("tokio::sync::mpsc::", ResourceKind::Semaphore, ResourceKind::ChannelSend),
    ("tokio::sync::watch::", ResourceKind::Notify, ResourceKind::Watch),
    ("tokio::sync::broadcast::", ResourceKind::Notify, ResourceKind::Broadcast),
];

/// A compiled leaf.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) kind: ResourceKind,
    pub(super) path: &'static str,
    resource: Option<Route>,
    details: Box<[(Detail, Route)]>,
}

/// The leaf that the type at `path` is, if it is one.
pub(super) fn leaf(process: &Process<'_, '_>, id: TypeId, path: &str) -> Option<Leaf> {
    let fact = LEAVES.iter().find(|fact| fact.path == path)?;
    let details = fact.details.iter();
    Some(Leaf {
        kind: fact.kind,
        path: fact.path,
        resource: Route::compile(process, id, fact.resource),
        details: details.filter_map(|(d, way)| Some((*d, Route::compile(process, id, way)?))).collect(),
    })
}

impl Leaf {
    /// Whether it waits only when its own crate's functions poll it; elsewhere it is merely held.
    pub(super) fn is_handle(&self) -> Option<&'static str> {
        (self.path == "tokio::sync::oneshot::Sender").then_some("tokio::sync::oneshot::")
    }

    /// What the leaf at `address` waits for. `context` is the path of the innermost `async` function.
    pub(super) fn waits_on(&self, process: &Process<'_, '_>, address: u64, context: &str) -> WaitsOn {
        let meant = CONTEXTS.iter().find(|(prefix, is, _)| *is == self.kind && context.starts_with(prefix));
        let kind = meant.map_or(self.kind, |(_, _, meant)| *meant);
        let resource = self.resource.as_ref().and_then(|route| route.follow(process, address));
        let mut waits = WaitsOn { kind, address: resource.map(hexadecimal), ..WaitsOn::default() };
        for (detail, route) in &self.details {
            let Some(at) = route.follow(process, address) else { continue };
            let memory = &process.memory;
            match detail {
                Detail::Wanted => waits.wanted = memory.word(at),
                Detail::Available => waits.available = memory.word(at).map(|permits| permits >> 1),
                Detail::Senders => waits.senders = memory.word(at).filter(|count| *count < 1 << 32),
                Detail::Fd => waits.fd = memory.half(at).map(|fd| fd as i32).filter(|fd| *fd >= 0),
                Detail::Deadline => waits.deadline = deadline(process, route, at),
            }
        }
        waits
    }

    /// The address of what it waits for.
    pub(super) fn resource(&self, process: &Process<'_, '_>, address: u64) -> Option<u64> {
        self.resource.as_ref()?.follow(process, address)
    }
}

/// An `Instant`, in nanoseconds of the monotonic clock: std keeps it as `Timespec { tv_sec, tv_nsec }`.
fn deadline(process: &Process<'_, '_>, instant: &Route, at: u64) -> Option<u64> {
    let seconds = Route::compile(process, instant.end, "tv_sec")?.offset()?;
    let nanos = Route::compile(process, instant.end, "tv_nsec")?.offset()?;
    let seconds = process.memory.word(at.checked_add(seconds)?)?;
    let nanos = process.memory.half(at.checked_add(nanos)?)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(u64::from(nanos))
}

pub(super) fn hexadecimal(address: u64) -> String {
    format!("{address:#x}")
}
