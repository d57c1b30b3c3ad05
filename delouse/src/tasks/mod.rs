//! Every task of every runtime: state, async stack as a tree, what each leaf waits for.

mod blocking_calls;
mod blocking_pools;
mod by_symbols;
mod candidates;
mod cell;
mod contexts;
pub(crate) mod engine;
mod examination;
mod facts;
mod files;
mod header;
mod history;
mod identity;
pub(crate) mod inputs;
mod io;
mod knowledge;
pub(crate) mod layout;
mod leaves;
mod list;
mod listing;
pub(crate) mod memory;
pub(crate) mod other_objects;
mod place;
mod pools;
pub(crate) mod process;
mod root;
pub(crate) mod route;
mod running;
mod runtimes;
mod scan;
mod stack;
#[cfg(all(test, feature = "dump", target_os = "linux", target_arch = "x86_64"))]
mod tests;
mod thread_waits;
mod vtable;
mod walk;

pub use crate::snapshot::Address;
pub(crate) use blocking_calls::{OwnFrames, StackVariable};
pub(crate) use blocking_pools::BlockingPool;
pub(crate) use examination::Examination;
pub(crate) use files::describe as describe_files;
pub(crate) use history::History;
pub use history::Waiting;
pub use io::{Connection, Direction, Io};
pub(crate) use knowledge::Knowledge;
pub(crate) use leaves::DUPLEX;
#[cfg(test)]
pub(crate) use list::list;
pub(crate) use list::{examine, examine_with};
pub use listing::Listing;
pub(crate) use listing::Options;
pub(crate) use place::{LeafPlace, MemoryPlace, Race, TaskPlace};
pub(crate) use root::Root;
pub(crate) use running::{
    current_task_offset, learn_current_task, threads as running_threads, threads_of_one_moment,
};
pub(crate) use thread_waits::{Primitive, ThreadWait};

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::debuginfo::symbols;

/// One task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Task {
    /// tokio's task id (`tokio::task::Id`), which is never 0; 0 for a `main` future, which has none.
    pub id: u64,
    /// What kind of root it is.
    pub kind: TaskKind,
    /// Name or number of its runtime.
    pub runtime: Option<Arc<str>>,
    /// Its state in the scheduler; `None` if the engine does not know it.
    pub state: Option<TaskState>,
    /// The thread that polls it right now (the kernel's id), where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<i32>,
    /// How long it has waited; `None` if it does not wait, or if no earlier capture has seen it in this wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// `file:line:column` of the spawning call, where tokio recorded it (`tokio_unstable`).
    pub spawned_at: Option<Arc<str>>,
    /// The async stack, outermost future first. Tasks that are suspended at the same place share one.
    pub stack: Arc<[Frame]>,
    /// What its leaves wait for.
    pub waits_on: Vec<WaitsOn>,
    /// Of a complete task: the function whose future it was, at its declaration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Arc<Frame>>,
    /// The engine's own text, where it has one that says more than `stack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The futures that its thread drives from inside of it by calls that block, outermost first. What the thread waits
    /// for in the innermost is in `waits_on`, and nothing else is: the frames of `stack` have no waits then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drives: Vec<Driven>,
    /// Of a `main` future that was not registered: the call on whose stack it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_in: Option<BlockingCall>,
}

/// A future that a call drives until it is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Driven {
    /// The call.
    pub call: BlockingCall,
    /// The future's async stack.
    pub stack: Arc<[Frame]>,
}

/// A call that blocks its thread until a future is done: `block_on`, `blocking_lock`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct BlockingCall {
    /// The thread that it blocks (the kernel's id).
    pub thread: i32,
    /// The function that was called.
    pub function: String,
    /// The program's function that has called it, and the line.
    pub caller: Option<Arc<Frame>>,
    /// The future's place on the stack is not known to debug information: it was recognised by its contents.
    pub guess: bool,
}

/// What kind of root a task is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TaskKind {
    /// Spawned with `tokio::spawn`.
    #[default]
    Task,
    /// The future that `block_on` drives.
    Main,
    /// Spawned on a `LocalSet` or a `LocalRuntime`.
    Local,
    /// Spawned with `spawn_blocking`.
    Blocking,
}

/// The state of a task in the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TaskState {
    /// Waits to be woken.
    Idle,
    /// Was woken and waits for a worker.
    Scheduled,
    /// Is being polled right now.
    Running,
    /// Has ended; a `JoinHandle` keeps it.
    Complete,
}

/// One future of an async stack, with those that it waits for below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Frame {
    /// The async function, block or type, as its author wrote it.
    pub function: String,
    /// Source file.
    pub file: Option<String>,
    /// Line of the `.await` it is suspended at; of a function that has completed, of its declaration.
    pub line: Option<u32>,
    /// The line is that of the function's declaration: the `.await` is in a macro of a library, and the debug
    /// information does not have the line of the macro's call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_declaration: bool,
    /// Whose code it is.
    #[serde(default)]
    pub origin: Origin,
    /// Of the outermost future, where that is a library's: the program's own function or type that is part of its type,
    /// as the handler is of a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carries: Option<String>,
    /// How many entries of the task's `waits_on` are this frame's own. `waits_on` has the order of the stack: a frame's
    /// own entries come first, those of its children follow, and each frame's follow those of the frame before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waits: u32,
    /// The futures that it waits for: one below an `.await`, several below `select!` and its like.
    pub children: Vec<Frame>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Whose code a frame is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Origin {
    /// The program's own, or a path dependency's.
    #[default]
    User,
    /// A crate's from a registry or a git repository.
    Dependency,
    /// The standard library's.
    Std,
}

impl Origin {
    /// Whose code a source file is.
    pub(crate) fn of_file(file: &str) -> Self {
        match symbols::shorten(file, None).1 {
            symbols::Origin::Std => Self::Std,
            symbols::Origin::Dependency => Self::Dependency,
            symbols::Origin::Own => Self::User,
        }
    }
}

/// What a leaf future waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct WaitsOn {
    /// The kind of resource.
    pub kind: ResourceKind,
    /// Its address: the same resource has the same address in every task.
    pub address: Option<Address>,
    /// Permits that it wants of a semaphore: 1 for a mutex. Of a barrier, how many tasks it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u64>,
    /// Permits that the semaphore has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// Tasks that are at the barrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<u64>,
    /// How often `notify_waiters` was called of the `Notify` before this wait began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notified_before: Option<u64>,
    /// Handles that can still send into the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub senders: Option<u64>,
    /// File descriptor of the socket, pipe or process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<i32>,
    /// What is known of the input or output.
    // In a box: of a hundred thousand tasks, most wait for something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Box<Io>>,
    /// The number of the signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The id of the child process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The id of the HTTP/2 stream within its connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<u32>,
    /// The task that is joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u64>,
    /// When a timer fires, in nanoseconds of the monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// Time until then at the moment of capture, in milliseconds; negative where it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_ms: Option<i64>,
}

/// Kinds of resource that a task can wait for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
#[non_exhaustive]
pub enum ResourceKind {
    Timer,
    Mutex,
    Rwlock,
    Semaphore,
    ChannelRecv,
    ChannelSend,
    Oneshot,
    Watch,
    Broadcast,
    Notify,
    /// A condition variable, which blocks the thread.
    Condvar,
    /// The end of all receivers of a channel.
    Closed,
    Barrier,
    /// The value of a `OnceCell` that another task is making.
    OnceCell,
    /// The value of a `SetOnce`.
    SetOnce,
    /// The cancellation of a `CancellationToken`.
    Cancellation,
    Join,
    /// A lock of the standard library or of parking_lot, which blocks the thread.
    Lock,
    /// The only thread that could poll the task.
    Thread,
    Io,
    /// What the other end of a connection does, which is in the program, too.
    Connection,
    /// A signal from outside of the process.
    Signal,
    /// The end of a child process.
    Process,
    /// What the other end does with a stream of an HTTP/2 connection.
    #[serde(rename = "http2_stream")]
    Http2Stream,
    /// What the program does with the streams of an HTTP/2 connection that the task drives.
    #[serde(rename = "http2_connection")]
    Http2Connection,
    /// A future that never ends: `std::future::pending`.
    Never,
    /// The task has yielded, by `yield_now` or for tokio's budget is used up: it is woken when others had their turn.
    Yield,
    #[default]
    Unknown,
}
