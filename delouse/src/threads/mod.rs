//! Every OS thread's stack.

mod activities;
pub(crate) mod capture;
pub(crate) mod classify;
pub(crate) mod polled;
mod portable;
pub(crate) mod stacks;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One OS thread and its stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThreadStack {
    /// The kernel's thread id.
    pub tid: i32,
    /// The thread's name (at most 15 bytes reach the kernel).
    pub name: String,
    /// `running`, `sleeping`, `uninterruptible`, …
    pub state: Option<String>,
    /// What the thread is there for.
    pub role: ThreadRole,
    /// What it is doing, as far as its stack tells.
    pub activity: Activity,
    /// Processor time used so far, user and system, in microseconds.
    pub cpu_us: Option<u64>,
    /// The task that it polls right now, where that can be known.
    pub runs_task: Option<u64>,
    /// Why there are no frames, where there are none.
    pub unavailable: Option<String>,
    /// Where in the kernel it sleeps, for those without frames: `system call vfork, in the kernel's …`.
    pub kernel: Option<String>,
    /// Why outer frames are missing, where they are.
    pub truncated: Option<String>,
    /// The stack, innermost frame first.
    pub frames: Vec<StackFrame>,
}

/// One frame of a thread's stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct StackFrame {
    /// The function as its author wrote it: no hash, no crate disambiguator.
    pub function: Option<String>,
    /// Source file: `src/main.rs` in the workspace, `tokio-1.54.1/src/…` of a dependency, `std/src/…`.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
    /// File name of the module (executable, library) that holds the code.
    pub module: Option<String>,
    /// Program counter, hexadecimal; the same for all functions inlined at one place.
    pub address: String,
    /// Whether it is the program's own code: not std, not a dependency, not a library of the system.
    pub own: bool,
    /// Whether the compiler inlined it into the next frame.
    pub inlined: bool,
}

/// What a thread is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThreadRole {
    /// Polls tasks of a multi-threaded tokio runtime.
    TokioWorker,
    /// Belongs to a tokio runtime's pool for `spawn_blocking`.
    TokioBlocking,
    /// Is inside of `block_on`: the main thread of `#[tokio::main]`, or a current-thread runtime.
    TokioBlockOn,
    /// One of delouse's own.
    Delouse,
    /// Anything else.
    Other,
}

/// What a thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// On a processor, or ready for one.
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
    /// Waits for another thread to end an initialisation that is made once: `Once`, `LazyLock`.
    Once,
    /// Waits for a job that a pool of threads runs (rayon).
    Pool,
    /// Drives a future that waits: inside of `block_on`, but not in the outermost one of a runtime.
    BlockOn,
    /// Drops a runtime, and waits for its threads to end: tasks of `spawn_blocking` keep them.
    Shutdown,
    /// Sleeps for a time.
    Sleep,
    /// Waits for another thread's end.
    Join,
    /// Waits for a child process.
    Child,
    /// Waits to be unparked.
    Park,
    /// Is in a system call that reads, writes, accepts, connects or polls.
    Io,
    /// Waits for a signal.
    Signal,
    /// Waits on a futex for a reason that its stack does not tell.
    Futex,
    /// In some other system call.
    Syscall,
    /// A thread of a pool that waits for work, or one in a runtime's outermost `block_on` whose future waits.
    Idle,
    /// Its stack could not be had.
    Unknown,
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod bench;
