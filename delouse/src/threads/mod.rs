//! The stacks of OS threads.

mod activities;
pub(crate) mod classify;
pub(crate) mod polled;
pub(crate) mod stacks;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Function name for the frame between a signal handler and the code that the signal interrupted.
pub(crate) const SIGNAL_FRAME: &str = "<signal handler called>";

/// One OS thread and its stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct ThreadStack {
    /// The kernel's thread id.
    pub tid: i32,
    /// The thread's name (at most 15 bytes reach the kernel).
    pub name: String,
    /// `running`, `sleeping`, `uninterruptible`, …
    pub state: Option<String>,
    /// The thread's role.
    pub role: ThreadRole,
    /// What it is doing, derived from its stack.
    pub activity: Activity,
    /// Processor time used so far, user and system, in microseconds. Each is rounded down to the kernel's ticks, usually
    /// 10 ms.
    pub cpu_us: Option<u64>,
    /// For how long it could have run, but had no processor, in microseconds: much of that means that the machine is busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_us: Option<u64>,
    /// The task that it polls at this moment, if known.
    pub runs_task: Option<u64>,
    /// Why there are no frames.
    pub unavailable: Option<String>,
    /// Where in the kernel it sleeps: `system call vfork, in the kernel's …`. Only for threads without frames.
    pub kernel: Option<String>,
    /// Why outer frames are missing.
    pub truncated: Option<String>,
    /// The stack, innermost frame first.
    pub frames: Vec<StackFrame>,
}

/// One frame of a thread's stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct StackFrame {
    /// The function's path, without hash and crate disambiguator.
    pub function: Option<String>,
    /// Source file: `src/main.rs` in the workspace, `tokio-1.54.1/src/…` in a dependency, `std/src/…`.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
    /// File name of the module (executable, library) that contains the code.
    pub module: Option<String>,
    /// Program counter, hexadecimal. Frames inlined into each other have the same.
    pub address: String,
    /// Whether it is code of the program, not of std, a dependency or a system library.
    pub own: bool,
    /// Whether the compiler inlined it into the next frame.
    pub inlined: bool,
    /// Whether it was found by a search of the stack, because the code of the frame before it has no unwind tables. The
    /// frames after it depend on it.
    #[serde(default)]
    pub guessed: bool,
}

/// The purpose of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ThreadRole {
    /// Polls tasks of a multi-threaded tokio runtime.
    TokioWorker,
    /// Belongs to a tokio runtime's pool for `spawn_blocking`.
    TokioBlocking,
    /// Is inside `block_on`: the main thread of `#[tokio::main]`, or a current-thread runtime.
    TokioBlockOn,
    /// A thread of delouse.
    Delouse,
    /// Anything else.
    #[default]
    Other,
}

/// What a thread is doing.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activity {
    /// Runs on a processor, or is ready to run.
    Running,
    /// Waits for a mutex or a read-write lock that blocks threads.
    Lock,
    /// Waits for an async lock or semaphore by a call that blocks its thread: `blocking_lock`.
    AsyncLock,
    /// Waits for a lock on a file.
    FileLock,
    /// Waits for a condition variable.
    Condvar,
    /// Waits to send to or receive from a channel.
    Channel,
    /// Waits for other threads at a barrier.
    Barrier,
    /// Waits for another thread to complete a one-time initialisation: `Once`, `LazyLock`.
    Once,
    /// Waits for a job on a pool of threads (rayon).
    Pool,
    /// Waits for a connection or another object that a pool lends (r2d2).
    PoolObject,
    /// Waits in a `block_on` that is not the outermost one of a runtime.
    BlockOn,
    /// Drops a runtime and waits for its threads to end, which wait for calls of `spawn_blocking`.
    Shutdown,
    /// Sleeps for a time.
    Sleep,
    /// Waits for another thread to end.
    Join,
    /// Waits for a child process.
    Child,
    /// Waits to be unparked.
    Park,
    /// Is in a system call that reads, writes, accepts, connects or polls.
    Io,
    /// Waits for a signal.
    Signal,
    /// Waits on a futex for an unknown reason.
    Futex,
    /// Is in another system call.
    Syscall,
    /// Waits for work in a pool, or waits in the outermost `block_on` of a runtime.
    Idle,
    /// Its stack is not available.
    #[default]
    Unknown,
}

#[cfg(test)]
#[cfg(feature = "dump")]
mod tests;

#[cfg(test)]
#[cfg(feature = "dump")]
mod bench;
