//! Types of futures that wait for a resource themselves.

use super::super::ResourceKind;

pub(in crate::tasks) const POLL_EVENTED: &str = "tokio::io::poll_evented::PollEvented";
/// One end of tokio's pipe in memory, which has two directions.
pub(crate) const DUPLEX: &str = "tokio::io::util::mem::DuplexStream";

/// One type in the table.
#[derive(Debug)]
pub(super) struct LeafFact {
    /// The type's path.
    pub(super) path: &'static str,
    pub(super) kind: ResourceKind,
    /// The route from the leaf to its resource, if it has one.
    pub(super) resource: Option<&'static str>,
    /// Numbers to read.
    pub(super) details: &'static [(Detail, &'static str)],
    /// It waits only while the number at the end of this route is as expected; otherwise it is only a value that the
    /// future owns.
    pub(super) waits: Option<(&'static str, Expected)>,
    /// Only functions of this module wait for it; elsewhere it is only a value that the future owns.
    pub(super) home: Option<&'static str>,
    /// Where the wakers of a reader and of a writer are stored.
    pub(super) wakers: Option<(&'static str, &'static str)>,
    /// The route to the bits of what the descriptor is ready for (`io/ready.rs`).
    pub(super) readiness: Option<&'static str>,
}

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tasks) enum Detail {
    /// Permits that it wants.
    Wanted,
    /// Free permits, shifted by one (`batch_semaphore`'s lowest bit means "closed").
    Available,
    /// The lowest bit says that the mutex is locked.
    Locked,
    /// Tasks that are at the barrier.
    Arrived,
    /// Calls of `notify_waiters`, behind two bits of state: `sync/notify.rs`.
    Calls,
    /// Handles that can still send.
    Senders,
    /// Seconds of the `Instant` at which it ends: std keeps it as `Timespec { tv_sec, tv_nsec }`.
    Seconds,
    /// The nanoseconds of it.
    Nanoseconds,
    /// File descriptor.
    Fd,
    /// Id of a child process.
    Pid,
    /// Id of an HTTP/2 stream.
    Stream,
    /// Bytes of bodies of an HTTP/2 connection that were not read.
    Unread,
    /// How many bytes the other end may send over the connection.
    Window,
    /// `Interest`: bit 0 to read, bit 1 to write (`io/interest.rs`).
    Interest,
}

/// What a number must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// A byte that is not 0: a `bool`.
    True,
    /// A byte that is 0.
    False,
    /// A word of this value.
    Is(u64),
}

const fn leaf(path: &'static str, kind: ResourceKind, resource: &'static str) -> LeafFact {
    LeafFact {
        path,
        kind,
        resource: Some(resource),
        details: &[],
        waits: None,
        home: None,
        wakers: None,
        readiness: None,
    }
}

const fn nothing(path: &'static str, kind: ResourceKind) -> LeafFact {
    LeafFact { resource: None, ..leaf(path, kind, "") }
}

impl LeafFact {
    const fn with(self, details: &'static [(Detail, &'static str)]) -> Self {
        Self { details, ..self }
    }

    const fn while_at(self, route: &'static str, is: Expected) -> Self {
        Self { waits: Some((route, is)), ..self }
    }

    const fn only_in(self, home: &'static str) -> Self {
        Self { home: Some(home), ..self }
    }

    const fn wakers(self, reader: &'static str, writer: &'static str) -> Self {
        Self { wakers: Some((reader, writer)), ..self }
    }
}

/// The table. Paths and fields are those of tokio 1.40 to 1.54, tokio-util 0.7, tokio-stream 0.1, futures 0.3,
/// async-channel 2, async-lock 3, event-listener 5, flume 0.11 and 0.12, want 0.3, hyper 1, h2 0.4, actix 0.13 and
/// actix-http 3; fields that are not there are left out of the answer.
pub(super) const LEAVES: &[LeafFact] = &[
    leaf("tokio::sync::batch_semaphore::Acquire", ResourceKind::Semaphore, "semaphore *")
        .with(&[(Detail::Wanted, "num_permits"), (Detail::Available, "semaphore * permits")]),
    leaf("tokio::sync::notify::Notified", ResourceKind::Notify, "notify *")
        .with(&[(Detail::Calls, "notify * state")]),
    leaf("tokio::sync::notify::OwnedNotified", ResourceKind::Notify, "notify *")
        .with(&[(Detail::Calls, "notify * state")]),
    leaf("tokio::time::sleep::Sleep", ResourceKind::Timer, "")
        .with(&[(Detail::Seconds, "deadline tv_sec"), (Detail::Nanoseconds, "deadline tv_nsec")]),
    leaf("tokio::runtime::task::join::JoinHandle", ResourceKind::Join, "raw *"),
    leaf("tokio::sync::oneshot::Receiver", ResourceKind::Oneshot, "inner *"),
    leaf("tokio::sync::oneshot::Sender", ResourceKind::Closed, "inner *").only_in("tokio::sync::oneshot::"),
    leaf("tokio::sync::mpsc::chan::Rx", ResourceKind::ChannelRecv, "inner *")
        .with(&[(Detail::Senders, "inner * tx_count")]),
    leaf("tokio::sync::broadcast::Recv", ResourceKind::Broadcast, "receiver * shared *")
        .with(&[(Detail::Senders, "receiver * shared * num_tx")]),
    LeafFact {
        readiness: Some("registration shared * readiness"),
        ..leaf(POLL_EVENTED, ResourceKind::Io, "registration shared *")
            .with(&[(Detail::Fd, "io fd")])
            .wakers("registration shared * waiters reader", "registration shared * waiters writer")
    },
    leaf("tokio::runtime::io::scheduled_io::Readiness", ResourceKind::Io, "scheduled_io *")
        .with(&[(Detail::Interest, "waiter interest")]),
    // An end is identified by what it reads from, also if it waits to write.
    leaf(DUPLEX, ResourceKind::Io, "read *").wakers("read * read_waker", "write * write_waker"),
    leaf("tokio::io::util::mem::SimplexStream", ResourceKind::Io, "").wakers("read_waker", "write_waker"),
    leaf(
        "tokio::process::imp::pidfd_reaper::PidfdReaper",
        ResourceKind::Process,
        "pidfd registration shared *",
    )
    .with(&[(Detail::Pid, "inner pid"), (Detail::Fd, "pidfd io fd")]),
    nothing("tokio::process::imp::reap::Reaper", ResourceKind::Process).with(&[(Detail::Pid, "inner pid")]),
    leaf(
        "tokio_util::sync::cancellation_token::WaitForCancellationFuture",
        ResourceKind::Cancellation,
        "future notify *",
    ),
    leaf(
        "tokio_util::sync::cancellation_token::WaitForCancellationFutureOwned",
        ResourceKind::Cancellation,
        "future notify *",
    ),
    nothing("core::future::pending::Pending", ResourceKind::Never),
    nothing("futures_util::future::pending::Pending", ResourceKind::Never),
    nothing("futures_util::stream::pending::Pending", ResourceKind::Never),
    nothing("tokio_stream::pending::Pending", ResourceKind::Never),
    leaf("futures_channel::mpsc::Receiver", ResourceKind::ChannelRecv, "inner *")
        .with(&[(Detail::Senders, "inner * num_senders")]),
    leaf("futures_channel::mpsc::UnboundedReceiver", ResourceKind::ChannelRecv, "inner *")
        .with(&[(Detail::Senders, "inner * num_senders")]),
    leaf("futures_channel::mpsc::BoundedSenderInner", ResourceKind::ChannelSend, "inner *")
        .while_at("sender_task * is_parked", Expected::True),
    leaf("futures_channel::oneshot::Receiver", ResourceKind::Oneshot, "inner *"),
    leaf("futures_channel::oneshot::Cancellation", ResourceKind::Closed, "inner * inner *"),
    leaf("futures_util::lock::mutex::MutexLockFuture", ResourceKind::Mutex, "mutex *")
        .with(&[(Detail::Locked, "mutex * state")]),
    leaf("futures_util::lock::mutex::OwnedMutexLockFuture", ResourceKind::Mutex, "mutex *")
        .with(&[(Detail::Locked, "mutex * state")]),
    leaf("async_channel::RecvInner", ResourceKind::ChannelRecv, "receiver * channel *")
        .with(&[(Detail::Senders, "receiver * channel * sender_count")]),
    leaf("async_channel::SendInner", ResourceKind::ChannelSend, "sender * channel *"),
    leaf("async_channel::Receiver", ResourceKind::ChannelRecv, "channel *")
        .with(&[(Detail::Senders, "channel * sender_count")]),
    leaf("async_lock::mutex::LockInner", ResourceKind::Mutex, "mutex *")
        .with(&[(Detail::Locked, "mutex * state")]),
    leaf("async_lock::mutex::AcquireSlow", ResourceKind::Mutex, "mutex *")
        .with(&[(Detail::Locked, "mutex * state")]),
    leaf("async_lock::rwlock::raw::RawRead", ResourceKind::Rwlock, "lock *"),
    leaf("async_lock::rwlock::raw::RawUpgradableRead", ResourceKind::Rwlock, "lock *"),
    leaf("async_lock::rwlock::raw::RawWrite", ResourceKind::Rwlock, "lock *"),
    leaf("async_lock::rwlock::raw::RawUpgrade", ResourceKind::Rwlock, "lock *"),
    leaf("async_lock::semaphore::AcquireInner", ResourceKind::Semaphore, "semaphore *"),
    leaf("async_lock::semaphore::AcquireArcInner", ResourceKind::Semaphore, "semaphore *"),
    leaf("async_lock::barrier::BarrierWaitInner", ResourceKind::Barrier, "barrier *"),
    // flume's resource: see `HANDLES`.
    nothing("flume::async::RecvFut", ResourceKind::ChannelRecv),
    nothing("flume::async::SendFut", ResourceKind::ChannelSend),
    leaf("event_listener::EventListener", ResourceKind::Notify, "listener * event *"),
    leaf("want::Giver", ResourceKind::ChannelSend, "inner *").while_at("inner * state", Expected::Is(2)),
    leaf("hyper::body::chan::Receiver", ResourceKind::ChannelRecv, "shared *"),
    leaf("hyper::body::chan::Sender", ResourceKind::ChannelSend, "shared *")
        .while_at("shared * want", Expected::False),
    // The body of a request; its connection is another task.
    leaf("actix_http::h1::payload::Payload", ResourceKind::ChannelRecv, "inner *"),
    leaf("actix::address::channel::AddressReceiver", ResourceKind::ChannelRecv, "inner *")
        .with(&[(Detail::Senders, "inner * num_senders")]),
    // The window may be negative after a change of settings (h2 0.4, `proto/streams/flow_control.rs`).
    leaf("h2::share::RecvStream", ResourceKind::Http2Stream, "inner *").with(&[
        (Detail::Stream, "key stream_id"),
        (Detail::Unread, "inner * actions recv in_flight_data"),
        (Detail::Window, "inner * actions recv flow window_size"),
    ]),
    leaf("h2::share::SendStream", ResourceKind::Http2Stream, "opaque inner *")
        .with(&[(Detail::Stream, "key stream_id")]),
    leaf("h2::client::ResponseFuture", ResourceKind::Http2Stream, "inner *")
        .with(&[(Detail::Stream, "key stream_id")]),
    leaf("h2::client::PushPromises", ResourceKind::Http2Stream, "inner *")
        .with(&[(Detail::Stream, "key stream_id")]),
    // What drives a connection is woken by its streams, too.
    leaf("h2::proto::connection::ConnectionInner", ResourceKind::Http2Connection, "streams inner *"),
    // The request may be cancelled.
    leaf("hyper::client::dispatch::Callback", ResourceKind::Closed, "inner *"),
];

/// Leaves that own or borrow a handle, in an enum of `Owned` and `Ref`: the field, and the route from a handle to the
/// resource.
pub(super) const HANDLES: &[(&str, &str, &str)] =
    &[("flume::async::RecvFut", "receiver", "shared *"), ("flume::async::SendFut", "sender", "shared *")];
