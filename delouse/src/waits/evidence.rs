//! What findings are concluded from, as data, which `report` renders as sentences.
#![allow(unused_qualifications, reason = "schemars derives them")]

mod parties;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Resource;
use super::location::CodeLocation;
use crate::tasks::inputs::Source;

pub use parties::{Party, TaskIds, TaskWait, ThreadAt};

/// One fact. The first one of a finding is its cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Evidence {
    /// A task waits for a resource.
    Waits(TaskWait),
    /// The future that holds the resource is suspended, and its task polls another one.
    NotPolled,
    /// Tasks of which only one branch of a `join!` is stuck; the other branches continue.
    StuckBranches(TaskIds),
    /// All tasks that wait for one another in the same way.
    Circle(TaskIds),
    /// Tasks that wait for tasks of the finding.
    Behind(TaskIds),
    /// Tasks that are leaked in the same way.
    AlikeGroups {
        /// How many groups.
        groups: usize,
        /// How many tasks are in each.
        tasks: usize,
    },
    /// The tasks themselves have all references to what they share.
    OwnReferences {
        /// The reference counts confirm it; otherwise a search of memory found no other reference.
        counted: bool,
    },
    /// An idle task whose references are the scheduler's and those of handles: none is a waker.
    NoWaker {
        /// Where the task waits.
        place: Option<Arc<CodeLocation>>,
        /// The innermost future.
        future: Option<String>,
        /// All of the task's innermost futures are `std::future::pending`.
        pending: bool,
    },
    /// A `JoinHandle` of the task exists, which can abort it.
    JoinHandle,
    /// A thread is inside one poll of a task.
    InPoll {
        /// The thread, or one of them.
        thread: ThreadAt,
        /// How many threads are at the same place.
        threads: usize,
        /// How many samples show it.
        samples: usize,
        /// From the first of them to the last: the shortest time of all threads.
        lasted_ms: u64,
        /// The scheduler took no other task meanwhile; otherwise it may have been several polls.
        one_poll: bool,
    },
    /// A function of the program called a function of a library.
    Called {
        /// The line that calls.
        place: CodeLocation,
        /// The function that is called.
        function: String,
    },
    /// The program's own functions on a thread's stack, innermost first.
    CallPath {
        /// Each called by the next.
        places: Vec<CodeLocation>,
    },
    /// A thread's stack is not available.
    NoStack {
        /// Its id.
        thread: i32,
        /// Why.
        reason: String,
    },
    /// Processor time that the thread used from the first sample to the last.
    ProcessorTime {
        /// In milliseconds.
        used_ms: u64,
    },
    /// The thread is in `block_in_place`: other tasks continue on other threads.
    BlockInPlace,
    /// A task blocks its thread for a lock.
    BlocksThread {
        /// The task.
        task: u64,
        /// Its thread.
        thread: i32,
        /// The lock.
        resource: Arc<Resource>,
        /// The program's own line.
        place: CodeLocation,
        /// The function of a library that it called.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        called: Option<String>,
    },
    /// A lock that threads wait for, and what may hold it.
    Lock {
        /// The lock.
        resource: Arc<Resource>,
        /// How many threads wait for it.
        waiters: usize,
        /// What may hold it, the first few. Empty: perhaps the thread that waits for it.
        holders: Vec<Party>,
    },
    /// Tasks that were woken, and that wait for a worker in each sample.
    Queued(TaskIds),
    /// More tasks wait for what blocked tasks hold.
    MoreWaiters {
        /// How many.
        count: usize,
    },
    /// Tasks that were woken, and that were not polled from the first sample to the last.
    NotRun {
        /// One of them.
        task: u64,
        /// Where it waits.
        place: Option<Arc<CodeLocation>>,
        /// How many there are.
        count: usize,
        /// How many samples show it.
        samples: usize,
        /// From the first of them to the last.
        lasted_ms: u64,
    },
    /// No task of this runtime was being polled.
    NoPolls {
        /// `current_thread 2`.
        runtime: String,
    },
    /// The thread that seems to run the runtime does not return to it.
    BlockedDriver {
        /// The thread.
        thread: ThreadAt,
    },
    /// No thread was found that runs the runtime.
    NoDriver,
    /// So many tasks of this runtime wait that its workers may be overloaded.
    Overloaded {
        /// `multi_thread 1`.
        runtime: String,
    },
    /// No thread waits for the I/O and the timers of the runtime.
    NoEventLoop {
        /// `multi_thread 1`.
        runtime: String,
        /// How many tasks wait for I/O or a timer.
        waiting: usize,
        /// How many tasks have a timer that is due in all samples.
        overdue: usize,
        /// How long ago the first of these was due, in milliseconds.
        overdue_ms: u64,
    },
    /// A thread waits in the drop of a runtime.
    DropsRuntime {
        /// The thread.
        thread: ThreadAt,
        /// How many calls it waits for.
        calls: usize,
        /// How many samples show it.
        samples: usize,
        /// From the first of them to the last.
        lasted_ms: u64,
    },
    /// All threads of a runtime's pool for blocking calls are busy, and calls wait in its queue.
    PoolFull {
        /// `multi_thread 1`.
        runtime: String,
        /// How many threads it has.
        threads: usize,
        /// How many calls are in the queue in all samples.
        queued: usize,
        /// How many samples show it.
        samples: usize,
        /// From the first of them to the last.
        lasted_ms: u64,
    },
    /// Every thread of the pool waits for the end of a call that is in its queue.
    WaitForQueue,
    /// Threads of the pool that are in the same place.
    BusyThreads {
        /// One of them.
        thread: ThreadAt,
        /// How many there are.
        threads: usize,
        /// The function of a library that they called.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        called: Option<String>,
        /// The function or closure that was given to `spawn_blocking`.
        call: Option<Arc<CodeLocation>>,
        /// Their calls.
        #[serde(flatten)]
        tasks: TaskIds,
    },
    /// Calls in the queue of the pool.
    QueuedCalls {
        /// The function or closure that was given to `spawn_blocking`.
        call: Option<Arc<CodeLocation>>,
        /// The calls.
        #[serde(flatten)]
        tasks: TaskIds,
    },
    /// How many files are open.
    OpenFiles {
        /// The process that has them open.
        pid: u32,
        /// Open files.
        open: usize,
        /// How many may be open.
        limit: u64,
        /// How many of each kind: `sockets`, `files`, ….
        kinds: BTreeMap<String, usize>,
    },
    /// Tasks that wait for input or output at one place, each for a file of its own.
    IoAt {
        /// The place.
        place: CodeLocation,
        /// The tasks.
        #[serde(flatten)]
        tasks: TaskIds,
    },
    /// A group of tasks with the same stack has grown, and none has left it.
    Growth {
        /// Where they wait.
        place: Option<Arc<CodeLocation>>,
        /// How many there are.
        now: usize,
        /// How many of these were spawned since the earlier capture.
        new: usize,
        /// The time since the earlier capture, in milliseconds.
        over_ms: u64,
    },
    /// Tasks that have finished, and whose results handles keep: new ones have come, and none was taken.
    Finished {
        /// The function whose futures they were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function: Option<CodeLocation>,
        /// `file:line:column` of the spawning call, where it is known.
        spawned_at: Option<Arc<str>>,
        /// How many there are.
        now: usize,
        /// How many more than in the earlier capture.
        new: usize,
        /// The time since the earlier capture, in milliseconds.
        over_ms: u64,
    },
    /// A variable has handles of many tasks.
    Kept {
        /// The task that has the variable; 0 for a `main` future.
        task: u64,
        /// The variable.
        variable: String,
        /// The function that has it, and its line.
        place: Option<Arc<CodeLocation>>,
        /// How many handles.
        handles: u64,
    },
    /// All of the tasks were spawned at one line.
    SpawnedAt {
        /// `file:line:column`.
        place: Arc<str>,
    },
    /// `notify_waiters` was called before a task began to wait: it wakes only what waits already.
    NotifiedBefore {
        /// The task; 0 for a `main` future.
        task: u64,
        /// The `Notify`.
        resource: Arc<Resource>,
        /// Where the task waits.
        place: Option<Arc<CodeLocation>>,
        /// How often it was called.
        calls: u64,
    },
    /// Fewer tasks wait at a barrier than it was made for.
    BarrierShort {
        /// The barrier.
        resource: Arc<Resource>,
        /// Where they wait.
        place: Option<Arc<CodeLocation>>,
        /// How many tasks wait at it.
        arrived: u64,
        /// How many tasks it is for.
        wanted: u64,
        /// Tasks that were spawned at the same line and have ended.
        ended: TaskIds,
    },
    /// A task is being polled, or waits to be polled again, in each sample.
    PolledWithoutPause {
        /// The task; 0 for a `main` future.
        task: u64,
        /// The line at which its thread was seen last.
        place: Option<Arc<CodeLocation>>,
        /// How many samples show it.
        samples: usize,
        /// From the first of them to the last.
        lasted_ms: u64,
        /// Processor time that the threads of tokio's runtimes have used meanwhile.
        used_ms: u64,
    },
    /// What a task takes from has ended: it gives an answer at once, each time.
    Ended {
        /// What it is.
        source: Source,
        /// The variable.
        variable: String,
        /// The function that has the variable.
        place: Option<Arc<CodeLocation>>,
    },
    /// Why the finding is not certain.
    Doubt {
        /// The reason.
        why: Doubt,
    },
}

/// Why a finding is not certain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Doubt {
    /// It is only concluded from its idle thread that a main future waits.
    MainFuture,
    /// Debug information does not have the place of a future that a thread drives: it was recognised by its contents.
    RecognisedFuture {
        /// The thread.
        thread: i32,
    },
    /// Memory was read while the program ran, each task at a different moment.
    TornCapture,
    /// A handle may be a stale copy, and other tasks can reach the resource.
    StaleHandle {
        /// The variable with the handle.
        variable: String,
        /// The resource's id.
        resource: String,
    },
    /// More handles of a resource are in variables than exist.
    TooManyHandles {
        /// The resource's id.
        resource: String,
    },
    /// Something outside of all tasks may hold a resource.
    HeldElsewhere {
        /// The resource's id.
        resource: String,
    },
    /// That a thread holds a lock is concluded from the lock's address, which is on its stack.
    AddressOnStack {
        /// The lock's id.
        resource: String,
    },
    /// Something that is not stuck can reach a semaphore, and could add permits.
    CanAddPermits {
        /// The task; `None` for a static, or a value that tasks share.
        task: Option<u64>,
        /// The semaphore's id.
        resource: String,
    },
    /// A variable of the function was moved or dropped, perhaps this one.
    MovedVariable {
        /// The variable.
        variable: String,
    },
    /// A task is running, and could hold a resource.
    RunningTask {
        /// The task.
        task: u64,
        /// The resource's id.
        resource: String,
    },
    /// The task may also do other work, which is not seen.
    MayDoMore,
    /// Types of futures are not known: that nothing else can wake their tasks is concluded from where the wakers are.
    ByWakers {
        /// The types, the first few.
        futures: Vec<String>,
    },
    /// A timer of the task is over, and the task was not woken: the task seems not to poll the branch that waits for it.
    TimerNotPolled {
        /// The task.
        task: u64,
        /// For how long it is over, in milliseconds.
        over_ms: u64,
    },
    /// A timeout of one of the tasks ends it; nothing else was found that does.
    EndsByTimeout {
        /// When, in milliseconds from the capture; negative if the time is over.
        in_ms: Option<i64>,
    },
    /// The end of a connection of one of the tasks ends it, or the shutdown of the server; nothing else was found that does.
    EndsByConnection,
    /// That nothing else uses a connection is concluded from the descriptors of the program, which the kernel has described
    /// after the capture.
    OwnConnection,
    /// What threads wait for may still come: it is not known what could end these waits.
    MayBeWoken,
    /// A `JoinHandle` or `AbortHandle` of these tasks exists, which can abort them.
    CanBeAborted(TaskIds),
    /// The address of what the tasks share is elsewhere in memory, too: in a handle that was not found, or a stale one.
    AddressElsewhere,
    /// More references to what the tasks share are in variables than exist.
    TooManyReferences,
    /// More references to what the tasks share exist than were found.
    MissingReferences,
}
