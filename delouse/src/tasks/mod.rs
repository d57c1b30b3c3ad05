//! Every task of every runtime: state, async stack as a tree, what each leaf waits for.

pub(crate) mod engine;
pub(crate) mod roots;
mod taskdump;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One task, as every engine tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// tokio's task id (`tokio::task::Id`), which is never 0; 0 for a `main` future, which has none.
    pub id: u64,
    /// What kind of root it is.
    pub kind: TaskKind,
    /// Name or number of its runtime.
    pub runtime: Option<String>,
    /// What the scheduler thinks of it; `None` where the engine cannot tell.
    pub state: Option<TaskState>,
    /// `file:line:column` of the spawning call, where tokio recorded it (`tokio_unstable`).
    pub spawned_at: Option<String>,
    /// The async stack, outermost future first.
    pub stack: Vec<Frame>,
    /// What its leaves wait for.
    pub waits_on: Vec<WaitsOn>,
    /// The engine's own text, where it has one that says more than `stack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// What kind of root a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Spawned with `tokio::spawn`.
    Task,
    /// The future that `block_on` drives.
    Main,
    /// Spawned on a `LocalSet` or a `LocalRuntime`.
    Local,
    /// Spawned with `spawn_blocking`.
    Blocking,
}

/// What the scheduler thinks of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// The async function, block or type, as its author wrote it.
    pub function: String,
    /// Source file.
    pub file: Option<String>,
    /// Line of the `.await` it is suspended at.
    pub line: Option<u32>,
    /// The futures that it waits for: one below an `.await`, several below `select!` and its like.
    pub children: Vec<Frame>,
}

/// What a leaf future waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct WaitsOn {
    /// The kind of resource.
    pub kind: ResourceKind,
    /// Its address, hexadecimal: the same resource has the same address in every task.
    pub address: Option<String>,
}

/// Kinds of resource that a task can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
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
    Join,
    Io,
    Unknown,
}
