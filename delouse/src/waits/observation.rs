//! Observations: what is true of the program and may be wrong.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kept::{ClosedSocket, Keeper, UnreadBody};
use super::{CodeLocation, Resource, ThreadAt};
use crate::tasks::{ResourceKind, Waiting};

/// An observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    /// Ids of the tasks that it is about.
    pub(crate) tasks: Vec<u64>,
    /// How many tasks, timers or connections it is about.
    pub(crate) count: usize,
    /// How long the one that has waited longest has waited.
    pub(crate) waiting: Option<Waiting>,
    /// What was observed.
    pub(crate) fact: Observed,
}

/// What was observed, worst first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Observed {
    /// A shutdown that has begun, and that waits for tasks that wait for messages.
    Shutdown { task: u64, place: Option<Arc<CodeLocation>>, name: &'static str, awaited: Vec<Awaited> },
    /// Threads that were blocked in all samples on something that other threads should release soon, and did not run.
    BlockedThreads { thread: ThreadAt, lasted_ms: u64 },
    /// Timers whose time is over, and whose tasks were not woken.
    OverdueTimers { place: Option<Arc<CodeLocation>>, places: usize, by_ms: u64 },
    /// A long wait for something that other tasks are meant to give back.
    LongWait { place: Option<Arc<CodeLocation>>, resource: Arc<Resource>, held: Option<Held> },
    /// Tasks wait for permits of a semaphore, which has too few, and of which no task holds one.
    NoPermits { place: Option<Arc<CodeLocation>>, wanted: u64, free: u64 },
    /// A task that was busy in each sample.
    Busy { place: Option<Arc<CodeLocation>>, ended: Option<String>, used_ms: u64, over_ms: u64 },
    /// A child process that cannot write more to a pipe.
    BlockedChild { pid: i32, place: Option<Arc<CodeLocation>> },
    /// Many tasks wait for one lock or semaphore.
    Contention { place: Option<Arc<CodeLocation>>, resource: Arc<Resource>, held: Option<Held> },
    /// An HTTP/2 connection whose window is used up by bodies that the program does not read.
    Http2Window { place: Option<Arc<CodeLocation>>, bytes: u64, bodies: Vec<UnreadBody> },
    /// Connections whose other end does not read.
    UnreadData { place: Option<Arc<CodeLocation>>, bytes: u64 },
    /// Connections that the other end has closed and the program has not.
    ClosedByPeer { peers: Vec<String>, socket: Option<ClosedSocket> },
    /// Many finished tasks of one function, and a variable that keeps handles of that many.
    FinishedTasks { function: Option<CodeLocation>, spawned_at: Option<Arc<str>>, keeper: Option<Keeper> },
    /// Tasks with the same stack that only became more.
    Growth { place: Option<Arc<CodeLocation>>, new: usize, over_ms: u64 },
    /// Tasks of which it is not known whether they will continue.
    NotJudged,
}

/// What holds a resource, and what it waits for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) by: u64,
    /// It is not only one of several that may hold it.
    pub(crate) certain: bool,
    pub(crate) place: Option<Arc<CodeLocation>>,
    pub(crate) waits_for: ResourceKind,
}

/// Kinds of observation, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ObservationKind {
    /// A shutdown that has begun, and that waits for tasks that wait for messages.
    Shutdown,
    /// Threads that have waited for a lock, a connection of a pool or an initialisation since the first sample.
    BlockedThreads,
    /// Timers whose time is over, and whose tasks were not woken.
    OverdueTimers,
    /// A wait of ten seconds or more for a lock, a permit, room in a channel, or the answer to a request.
    LongWait,
    /// Tasks wait for permits of a semaphore, which has too few, and of which no task holds one.
    NoPermits,
    /// A task that was being polled, or waited to be polled, in each sample, while the runtime's threads computed.
    Busy,
    /// A child process that the program waits for, and that cannot write more to a pipe.
    BlockedChild,
    /// Ten or more tasks wait for one lock or semaphore.
    Contention,
    /// An HTTP/2 connection whose window is used up by bodies that the program does not read.
    Http2Window,
    /// Connections whose other end does not read what was sent.
    UnreadData,
    /// Connections that the other end has closed and the program has not.
    ClosedByPeer,
    /// A hundred or more finished tasks that were spawned at one line, and whose results handles keep.
    FinishedTasks,
    /// Tasks with the same stack that only became more since an earlier diagnosis.
    Growth,
    /// Tasks of which it is not known whether they will continue.
    NotJudged,
}

impl Observed {
    /// Its kind.
    pub(crate) fn kind(&self) -> ObservationKind {
        match self {
            Self::Shutdown { .. } => ObservationKind::Shutdown,
            Self::BlockedThreads { .. } => ObservationKind::BlockedThreads,
            Self::OverdueTimers { .. } => ObservationKind::OverdueTimers,
            Self::LongWait { .. } => ObservationKind::LongWait,
            Self::NoPermits { .. } => ObservationKind::NoPermits,
            Self::Busy { .. } => ObservationKind::Busy,
            Self::BlockedChild { .. } => ObservationKind::BlockedChild,
            Self::FinishedTasks { .. } => ObservationKind::FinishedTasks,
            Self::Contention { .. } => ObservationKind::Contention,
            Self::Http2Window { .. } => ObservationKind::Http2Window,
            Self::UnreadData { .. } => ObservationKind::UnreadData,
            Self::ClosedByPeer { .. } => ObservationKind::ClosedByPeer,
            Self::Growth { .. } => ObservationKind::Growth,
            Self::NotJudged => ObservationKind::NotJudged,
        }
    }
}

/// A task that a shutdown waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Awaited {
    pub(crate) task: u64,
    pub(crate) place: Option<Arc<CodeLocation>>,
    pub(crate) resource: Arc<Resource>,
}
