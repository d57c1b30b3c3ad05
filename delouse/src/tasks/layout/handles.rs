//! Handles: values that can release a resource, or wake the tasks that wait for it.

use std::sync::OnceLock;

use crate::debuginfo::types::TypeId;
use crate::snapshot::Address;
use crate::tasks::ResourceKind;
use crate::tasks::process::{Process, Program};
use crate::tasks::route::Route;

/// What a handle can do for the tasks that wait, as a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Roles(u16);

impl Roles {
    pub(crate) const NONE: Self = Self(0);
    /// Holds a lock or permits until it is dropped.
    pub(crate) const GUARD: Self = Self(1);
    /// Can send; the receiver wakes when the last one is dropped, too.
    pub(crate) const SENDER: Self = Self(1 << 1);
    /// Can make a sender, as long as there is one.
    pub(crate) const WEAK_SENDER: Self = Self(1 << 2);
    /// Takes messages; senders wake when it is dropped, too.
    pub(crate) const RECEIVER: Self = Self(1 << 3);
    /// Holds a place in a bounded channel until it is used or dropped.
    pub(crate) const SLOT: Self = Self(1 << 4);
    /// Waits for a task.
    pub(crate) const JOIN: Self = Self(1 << 5);
    /// Can end a task.
    pub(crate) const ABORT: Self = Self(1 << 6);
    /// The resource itself: code that has it can notify, close, or add permits.
    pub(crate) const ACCESS: Self = Self(1 << 7);
    /// A place in the queue of a semaphore, to which some permits are assigned already.
    pub(crate) const QUEUE: Self = Self(1 << 8);
    /// A lock of the standard library or of parking_lot, for which threads wait.
    pub(crate) const THREAD_GUARD: Self = Self(1 << 9);

    /// Stores a waker of the task that polls it.
    pub(crate) const POLLED: Self = Self(1 << 10);
    /// Wakes a task, whatever it waits for.
    pub(crate) const WAKER: Self = Self(1 << 11);
    /// One end of a connection: what has it can read, write or close it, for which the other end waits.
    pub(crate) const END: Self = Self(1 << 12);
    /// Uses an HTTP/2 connection, which wakes what drives the connection.
    pub(crate) const STREAM: Self = Self(1 << 13);
    /// Drives an HTTP/2 connection: reads and writes the frames of all its streams.
    pub(crate) const DRIVES: Self = Self(1 << 14);
    /// Whatever can end a wait, except that for a lock of threads, and but for wakers.
    pub(crate) const ANY: Self =
        Self(!(Self::THREAD_GUARD.0 | Self::WAKER.0 | Self::POLLED.0 | Self::JOIN.0 | Self::ABORT.0));

    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set as a number.
    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    pub(crate) const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

/// A row of the table [`HANDLES`].
#[derive(Debug)]
pub(crate) struct HandleFact {
    /// The type's path.
    path: &'static str,
    pub(crate) roles: Roles,
    /// The route from the handle to its resource: to the address that leaves have for it. Behind `|`, the route of handles
    /// in which the first one leads nowhere.
    resource: &'static str,
    /// The route to the number of permits that it holds; empty for handles that hold one.
    permits: &'static str,
    /// If its channel counts handles: the fields beside the resource that have the number of such handles, and of those of
    /// the other end.
    counts: Option<(&'static str, &'static str)>,
}

impl HandleFact {
    const ADDS: Roles = Roles::SENDER.or(Roles::WEAK_SENDER).or(Roles::SLOT);

    /// `MutexGuard` of `tokio::sync::mutex::MutexGuard`.
    pub(crate) fn name(&self) -> &'static str {
        match self.path.rsplit("::").next().unwrap_or(self.path) {
            // tokio's `mpsc::Sender` and `mpsc::Receiver` are wrappers of these.
            "Tx" => "Sender",
            "Rx" => "Receiver",
            "ConnectionInner" => "Connection",
            "OpaqueStreamRef" => "stream",
            // The inner type of each socket.
            "PollEvented" => "socket",
            name => name,
        }
    }

    /// Whether it is a permit of a semaphore, to which permits can also be added without a release.
    pub(crate) fn is_permit(&self) -> bool {
        self.resource == "sem * ll_sem" || self.is_pooled()
    }

    /// Whether it is an object of a pool, which has no permit itself, but adds one when it is dropped.
    pub(crate) fn is_pooled(&self) -> bool {
        self.resource.starts_with("pool ")
    }

    /// Whether it can add messages to a queue and cannot take any: only receivers own what is in the queue, and the last
    /// one to be dropped drops it (tokio's `sync/mpsc/chan.rs`, futures-channel's `mpsc/mod.rs`).
    pub(crate) fn only_adds(&self) -> bool {
        let queue = self.path.contains("::mpsc::");
        queue && self.roles.has(Self::ADDS) && !self.roles.has(Roles::RECEIVER)
    }

    /// Whether only threads wait in its channel, and no futures.
    fn is_for_threads(&self) -> bool {
        self.path.starts_with("std::sync::mpmc::") || self.path.starts_with("crossbeam_channel::")
    }

    /// Whether its channel counts such handles.
    pub(crate) fn is_counted(&self) -> bool {
        self.counts.is_some()
    }

    /// Whether it is the place in a queue of a future that acquires permits.
    pub(crate) fn is_queue_place(&self) -> bool {
        self.roles == Roles::QUEUE
    }
}

const fn fact(path: &'static str, roles: Roles, resource: &'static str) -> HandleFact {
    HandleFact { path, roles, resource, permits: "", counts: None }
}

/// A handle of a channel that counts handles: see [`HandleFact::counts`].
const fn counted(
    path: &'static str,
    roles: Roles,
    resource: &'static str,
    own: &'static str,
    others: &'static str,
) -> HandleFact {
    HandleFact { path, roles, resource, permits: "", counts: Some((own, others)) }
}

const fn permits(path: &'static str, resource: &'static str, permits: &'static str) -> HandleFact {
    HandleFact { path, roles: Roles::GUARD, resource, permits, counts: None }
}

/// The table. Paths and fields are those of tokio 1.40 to 1.54, tokio-util 0.7, futures 0.3, async-channel 2,
/// async-lock 3, flume 0.11 and 0.12, hyper 1, actix 0.13, actix-http 3, lock_api 0.4 and the standard library of Rust 1.88 to 1.95; a type
/// without these fields is treated as a struct, not as a handle.
static HANDLES: &[HandleFact] = &[
    fact("tokio::sync::mutex::MutexGuard", Roles::GUARD, "lock * s"),
    fact("tokio::sync::mutex::OwnedMutexGuard", Roles::GUARD, "lock * s"),
    fact("tokio::sync::mutex::MappedMutexGuard", Roles::GUARD, "s *"),
    fact("tokio::sync::mutex::OwnedMappedMutexGuard", Roles::GUARD, "lock * s"),
    fact("tokio::sync::rwlock::read_guard::RwLockReadGuard", Roles::GUARD, "s *"),
    fact("tokio::sync::rwlock::owned_read_guard::OwnedRwLockReadGuard", Roles::GUARD, "lock * s"),
    permits("tokio::sync::rwlock::write_guard::RwLockWriteGuard", "s *", "permits_acquired"),
    permits("tokio::sync::rwlock::write_guard_mapped::RwLockMappedWriteGuard", "s *", "permits_acquired"),
    permits("tokio::sync::rwlock::owned_write_guard::OwnedRwLockWriteGuard", "lock * s", "permits_acquired"),
    permits(
        "tokio::sync::rwlock::owned_write_guard_mapped::OwnedRwLockMappedWriteGuard",
        "lock * s",
        "permits_acquired",
    ),
    permits("tokio::sync::semaphore::SemaphorePermit", "sem * ll_sem", "permits"),
    permits("tokio::sync::semaphore::OwnedSemaphorePermit", "sem * ll_sem", "permits"),
    // Objects of pools: each gives a permit back when it is dropped (deadpool 0.12, sqlx 0.8, mobc 0.8).
    fact("deadpool::managed::object::Object", Roles::GUARD, "pool * semaphore ll_sem"),
    fact("deadpool::unmanaged::Object", Roles::GUARD, "pool * semaphore ll_sem"),
    fact("sqlx_core::pool::connection::PoolConnection", Roles::GUARD, "pool * semaphore ll_sem"),
    // bb8 0.9, with a pool that is borrowed or owned (`Cow`).
    fact(
        "bb8::api::PooledConnection",
        Roles::GUARD,
        "pool Borrowed * inner * notify * | pool Owned inner * notify *",
    ),
    fact("mobc::Connection", Roles::GUARD, "pool * semaphore * ll_sem"),
    fact("tokio::sync::batch_semaphore::Acquire", Roles::QUEUE, "semaphore *"),
    fact("tokio::sync::semaphore::Semaphore", Roles::ACCESS, "ll_sem"),
    fact("tokio::sync::mutex::Mutex", Roles::ACCESS, "s"),
    fact("tokio::sync::rwlock::RwLock", Roles::ACCESS, "s"),
    fact("tokio::sync::notify::Notify", Roles::ACCESS, ""),
    fact("tokio::sync::barrier::Barrier", Roles::ACCESS, ""),
    fact("tokio::sync::mpsc::chan::Tx", Roles::SENDER, "inner *"),
    fact("tokio::sync::mpsc::chan::Rx", Roles::RECEIVER, "inner *"),
    fact("tokio::sync::mpsc::bounded::WeakSender", Roles::WEAK_SENDER, "chan *"),
    fact("tokio::sync::mpsc::unbounded::WeakUnboundedSender", Roles::WEAK_SENDER, "chan *"),
    fact("tokio::sync::mpsc::bounded::Permit", Roles::SENDER.or(Roles::SLOT), "chan * inner *"),
    fact("tokio::sync::mpsc::bounded::OwnedPermit", Roles::SLOT, "chan inner *"),
    fact("tokio::sync::oneshot::Sender", Roles::SENDER, "inner *"),
    fact("tokio::sync::oneshot::Receiver", Roles::RECEIVER, "inner *"),
    fact("tokio::sync::watch::Sender", Roles::SENDER, "shared *"),
    fact("tokio::sync::watch::Receiver", Roles::RECEIVER, "shared *"),
    fact("tokio::sync::broadcast::Sender", Roles::SENDER, "shared *"),
    fact("tokio::sync::broadcast::WeakSender", Roles::WEAK_SENDER, "shared *"),
    fact("tokio::sync::broadcast::Receiver", Roles::RECEIVER, "shared *"),
    fact("tokio::runtime::task::join::JoinHandle", Roles::JOIN, "raw *"),
    fact("tokio::runtime::task::abort::AbortHandle", Roles::ABORT, "raw *"),
    fact("futures_channel::mpsc::BoundedSenderInner", Roles::SENDER, "inner *"),
    fact("futures_channel::mpsc::UnboundedSenderInner", Roles::SENDER, "inner *"),
    fact("futures_channel::mpsc::Receiver", Roles::RECEIVER, "inner *"),
    fact("futures_channel::mpsc::UnboundedReceiver", Roles::RECEIVER, "inner *"),
    fact("futures_channel::oneshot::Sender", Roles::SENDER, "inner *"),
    fact("futures_channel::oneshot::Receiver", Roles::RECEIVER, "inner *"),
    fact("futures_util::lock::mutex::MutexGuard", Roles::GUARD, "mutex *"),
    fact("futures_util::lock::mutex::OwnedMutexGuard", Roles::GUARD, "mutex *"),
    fact("futures_util::lock::mutex::MappedMutexGuard", Roles::GUARD, "mutex *"),
    fact("futures_util::lock::mutex::Mutex", Roles::ACCESS, ""),
    fact("async_lock::mutex::MutexGuard", Roles::GUARD, "__0 *"),
    fact("async_lock::mutex::MutexGuardArc", Roles::GUARD, "__0 *"),
    fact("async_lock::mutex::Mutex", Roles::ACCESS, ""),
    fact("async_lock::rwlock::RwLockReadGuard", Roles::GUARD, "lock *"),
    fact("async_lock::rwlock::RwLockUpgradableReadGuard", Roles::GUARD, "lock *"),
    fact("async_lock::rwlock::RwLockWriteGuard", Roles::GUARD, "lock *"),
    fact("async_lock::rwlock::RwLockUpgradableReadGuardArc", Roles::GUARD, "lock * raw"),
    fact("async_lock::rwlock::RwLockWriteGuardArc", Roles::GUARD, "lock * raw"),
    fact("async_lock::rwlock::RwLock", Roles::ACCESS, "raw"),
    fact("async_lock::semaphore::SemaphoreGuard", Roles::GUARD, "__0 *"),
    fact("async_lock::semaphore::SemaphoreGuardArc", Roles::GUARD, "__0 *"),
    fact("async_lock::semaphore::Semaphore", Roles::ACCESS, ""),
    fact("async_lock::barrier::Barrier", Roles::ACCESS, ""),
    fact("async_channel::Sender", Roles::SENDER, "channel *"),
    fact("async_channel::Receiver", Roles::RECEIVER, "channel *"),
    counted("flume::Sender", Roles::SENDER, "shared *", "sender_count", "receiver_count"),
    fact("flume::WeakSender", Roles::WEAK_SENDER, "shared *"),
    counted("flume::Receiver", Roles::RECEIVER, "shared *", "receiver_count", "sender_count"),
    // Channels in which threads wait.
    counted("std::sync::mpmc::counter::Sender", Roles::SENDER, "counter *", "senders", "receivers"),
    counted("std::sync::mpmc::counter::Receiver", Roles::RECEIVER, "counter *", "receivers", "senders"),
    counted("crossbeam_channel::counter::Sender", Roles::SENDER, "counter *", "senders", "receivers"),
    counted("crossbeam_channel::counter::Receiver", Roles::RECEIVER, "counter *", "receivers", "senders"),
    counted("kanal::Sender", Roles::SENDER, "internal *", "send_count", "recv_count"),
    counted("kanal::AsyncSender", Roles::SENDER, "internal *", "send_count", "recv_count"),
    counted("kanal::Receiver", Roles::RECEIVER, "internal *", "recv_count", "send_count"),
    counted("kanal::AsyncReceiver", Roles::RECEIVER, "internal *", "recv_count", "send_count"),
    fact("std::sync::poison::condvar::Condvar", Roles::ACCESS, "inner futex"),
    fact("std::sync::nonpoison::condvar::Condvar", Roles::ACCESS, "inner futex"),
    fact("parking_lot::condvar::Condvar", Roles::ACCESS, ""),
    fact("want::Taker", Roles::RECEIVER, "inner *"),
    fact("hyper::body::chan::Sender", Roles::SENDER, "shared *"),
    fact("hyper::body::chan::Receiver", Roles::RECEIVER, "shared *"),
    fact("actix_http::h1::payload::PayloadSender", Roles::SENDER, "inner *"),
    fact("actix_http::h1::payload::Payload", Roles::RECEIVER, "inner *"),
    fact("actix::address::channel::AddressSender", Roles::SENDER, "inner *"),
    fact("actix::address::channel::AddressReceiver", Roles::RECEIVER, "inner *"),
    fact("h2::proto::connection::ConnectionInner", Roles::DRIVES, "streams inner *"),
    fact("h2::client::SendRequest", Roles::STREAM, "inner inner *"),
    fact("h2::proto::streams::streams::OpaqueStreamRef", Roles::STREAM, "inner *"),
    // The data of a task's waker is the task's header (tokio's `runtime/task/waker.rs`).
    fact("core::task::wake::Waker", Roles::WAKER, "waker data *"),
    fact("tokio::sync::notify::Notified", Roles::POLLED, "notify *"),
    fact("tokio::time::sleep::Sleep", Roles::POLLED, ""),
    fact("tokio::io::poll_evented::PollEvented", Roles::POLLED.or(Roles::END), "registration shared *"),
    // The other end reads what this one writes.
    fact("tokio::io::util::mem::DuplexStream", Roles::END, "write *"),
    fact("std::sync::poison::mutex::MutexGuard", Roles::THREAD_GUARD, "lock * inner futex"),
    fact("std::sync::poison::rwlock::RwLockReadGuard", Roles::THREAD_GUARD, "inner_lock * state"),
    fact("std::sync::poison::rwlock::RwLockWriteGuard", Roles::THREAD_GUARD, "lock * inner state"),
    fact("std::sync::poison::mutex::MappedMutexGuard", Roles::THREAD_GUARD, "inner * futex"),
    fact("std::sync::poison::mutex::Mutex", Roles::ACCESS, "inner futex"),
    fact("std::sync::poison::rwlock::RwLock", Roles::ACCESS, "inner state"),
    fact("lock_api::mutex::Mutex", Roles::ACCESS, "raw"),
    fact("lock_api::rwlock::RwLock", Roles::ACCESS, "raw"),
    fact("lock_api::mutex::MutexGuard", Roles::THREAD_GUARD, "mutex * raw"),
    fact("lock_api::mutex::MappedMutexGuard", Roles::THREAD_GUARD, "raw *"),
    fact("lock_api::rwlock::RwLockUpgradableReadGuard", Roles::THREAD_GUARD, "rwlock * raw"),
    fact("lock_api::rwlock::MappedRwLockReadGuard", Roles::THREAD_GUARD, "raw *"),
    fact("lock_api::rwlock::MappedRwLockWriteGuard", Roles::THREAD_GUARD, "raw *"),
    fact("lock_api::rwlock::ArcRwLockReadGuard", Roles::THREAD_GUARD, "rwlock * raw"),
    fact("lock_api::rwlock::ArcRwLockWriteGuard", Roles::THREAD_GUARD, "rwlock * raw"),
    fact("std::sync::poison::rwlock::MappedRwLockReadGuard", Roles::THREAD_GUARD, "inner_lock * state"),
    fact("std::sync::poison::rwlock::MappedRwLockWriteGuard", Roles::THREAD_GUARD, "inner_lock * state"),
    fact("lock_api::mutex::ArcMutexGuard", Roles::THREAD_GUARD, "mutex * raw"),
    fact("lock_api::rwlock::RwLockReadGuard", Roles::THREAD_GUARD, "rwlock * raw"),
    fact("lock_api::rwlock::RwLockWriteGuard", Roles::THREAD_GUARD, "rwlock * raw"),
];

/// In place of an index of the table: the address of a lock on a thread's stack, which may be a guard, a reference, or
/// a stale copy of either.
pub(crate) const ON_STACK: u16 = u16::MAX;

/// The same for the address of any other resource, or of what contains it, on the stack of a thread that waits.
pub(crate) const ON_WAITING_STACK: u16 = u16::MAX - 1;

/// A handle's type, compiled.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Its index in the table.
    fact: u16,
    resource: Route,
    otherwise: Option<Route>,
    permits: Option<Permits>,
    /// Of a channel's handle: the route to the number of handles of the other end, and the size of that number.
    others: Option<(Route, u64)>,
}

#[derive(Debug)]
enum Permits {
    /// The route to the number of permits, and the size of that number in bytes.
    Field(Route, u64),
    /// `batch_semaphore::Acquire`: the permits that it `wanted`, less those still `missing`; none unless it is
    /// `queued`.
    Queue { queued: Route, wanted: Route, missing: Route },
}

/// The handle that a type with the name `path` is, if the table has it and the type has the fields that the table
/// names.
pub(super) fn handle(program: &Program<'_>, id: TypeId, path: &str) -> Option<Handle> {
    let (index, fact) = HANDLES.iter().enumerate().find(|(_, fact)| fact.path == path)?;
    let route = |way: &str| Route::compile(program, id, way);
    let number = |way: &str| {
        let way = route(way)?;
        let size = program.ty(way.end)?.size;
        Some((way, size))
    };
    let count = |name: &str| number(&format!("{} {name}", fact.resource));
    let permits = match fact {
        fact if fact.is_queue_place() => Some(Permits::Queue {
            queued: route("queued")?,
            wanted: route("num_permits")?,
            missing: route("node state")?,
        }),
        HandleFact { counts: Some((own, _)), .. } => count(own).map(|(way, size)| Permits::Field(way, size)),
        HandleFact { permits: "", .. } => None,
        _ => number(fact.permits).map(|(way, size)| Permits::Field(way, size)),
    };
    let (resource, otherwise) = match fact.resource.split_once('|') {
        Some((first, other)) => (route(first)?, route(other)),
        None => (route(fact.resource)?, None),
    };
    Some(Handle {
        fact: index as u16,
        resource,
        otherwise,
        permits,
        others: fact.counts.and_then(|(_, others)| count(others)),
    })
}

/// The name of a handle's type; empty for [`ON_STACK`] and [`ON_WAITING_STACK`].
pub(crate) fn name(index: u16) -> &'static str {
    match index {
        ON_STACK | ON_WAITING_STACK => "",
        index => at(index).map_or("", HandleFact::name),
    }
}

/// Whether handles with that name are objects of a pool.
pub(crate) fn is_pooled(name: &str) -> bool {
    HANDLES.iter().any(|fact| fact.is_pooled() && fact.name() == name)
}

/// Whether handles with that name are the resource itself.
pub(crate) fn is_access(name: &str) -> bool {
    static NAMES: OnceLock<Vec<&'static str>> = OnceLock::new();
    let access = HANDLES.iter().filter(|fact| fact.roles.has(Roles::ACCESS));
    NAMES.get_or_init(|| access.map(HandleFact::name).collect()).contains(&name)
}

/// Whether the type of a handle is the one that the program uses. The locks inside a `Semaphore` and a `Notify` have
/// the same address as these, but are internal to tokio.
pub(crate) fn is_named(index: u16, kind: ResourceKind) -> bool {
    match kind {
        ResourceKind::Semaphore => name(index) == "Semaphore",
        ResourceKind::Notify | ResourceKind::SetOnce | ResourceKind::Cancellation => name(index) == "Notify",
        ResourceKind::Barrier => name(index) == "Barrier",
        _ => true,
    }
}

/// Whether the table has handles with one of `roles` from the crate of a leaf whose type is `path`.
pub(crate) fn are_known(path: &str, roles: Roles) -> bool {
    let of_crate = |path: &'static str| path.split("::").next();
    let wanted = match path.split("::").next() {
        // It is built on tokio's.
        Some("tokio_util") => Some("tokio"),
        of => of,
    };
    HANDLES.iter().any(|fact| fact.roles.has(roles) && of_crate(fact.path) == wanted)
}

/// The row at `index`.
pub(crate) fn at(index: u16) -> Option<&'static HandleFact> {
    HANDLES.get(usize::from(index))
}

impl Handle {
    pub(crate) fn index(&self) -> u16 {
        self.fact
    }

    /// Whether it is the guard of a lock.
    pub(super) fn is_guard(&self) -> bool {
        at(self.fact).is_some_and(|fact| fact.roles.has(Roles::GUARD.or(Roles::THREAD_GUARD)))
    }

    /// Whether the waker that it stores is its own, and not one for all handles of its resource.
    pub(crate) fn has_own_waker(&self) -> bool {
        at(self.fact).is_some_and(|fact| fact.roles.has(Roles::STREAM))
    }

    /// Whether it may store a waker of its task even while the task waits for something else.
    pub(crate) fn keeps_waker(&self) -> bool {
        let keeps = Roles::RECEIVER.or(Roles::JOIN).or(Roles::POLLED).or(Roles::QUEUE).or(Roles::STREAM);
        at(self.fact).is_some_and(|fact| fact.roles.has(keeps) && !fact.is_for_threads())
    }

    /// Whether it is a waker of a task, which is a reference to that task.
    pub(crate) fn is_waker(&self) -> bool {
        at(self.fact).is_some_and(|fact| fact.roles.has(Roles::WAKER))
    }

    /// Whether it can only add messages to a queue.
    pub(crate) fn only_adds(&self) -> bool {
        at(self.fact).is_some_and(HandleFact::only_adds)
    }

    /// Whether it is a handle of a task, and counts as a reference to that task.
    pub(crate) fn is_of_task(&self) -> bool {
        at(self.fact).is_some_and(|fact| fact.roles.has(Roles::ABORT.or(Roles::JOIN)))
    }

    /// Whether it is a future that waits in a queue. If a task owns such a future without awaiting it, the future is
    /// not polled.
    pub(crate) fn waits_in_queue(&self) -> bool {
        matches!(self.permits, Some(Permits::Queue { .. }))
    }

    /// The resource of the handle at `address`, and how many permits of it the handle holds. `None` for a handle that
    /// was consumed, and for a place in a queue to which no permit is assigned.
    pub(crate) fn read(&self, process: &Process<'_, '_>, address: Address) -> Option<(Address, u64)> {
        let otherwise = || self.otherwise.as_ref()?.follow(process, address);
        let resource = self.resource.follow(process, address).or_else(otherwise)?;
        let permits = match &self.permits {
            None => 1,
            Some(Permits::Field(route, size)) => {
                process.memory.number(route.follow(process, address)?, *size)?
            }
            Some(Permits::Queue { queued, wanted, missing }) => {
                let is_queued = process.memory.number(queued.follow(process, address)?, 1)? == 1;
                let given = wanted.word(process, address)?.checked_sub(missing.word(process, address)?)?;
                if !is_queued || given == 0 {
                    return None;
                }
                given
            }
        };
        Some((resource, permits))
    }

    /// How many handles of the other end there are of the channel of the handle at `address`, where the channel counts them.
    pub(crate) fn others(&self, process: &Process<'_, '_>, address: Address) -> Option<u64> {
        let (route, size) = self.others.as_ref()?;
        process.memory.number(route.follow(process, address)?, *size)
    }
}
