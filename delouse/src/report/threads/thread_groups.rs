//! Threads in groups of equal stacks, as data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Group, doing_what, stack_text};
use crate::threads::{Activity, ThreadRole, ThreadStack};

/// Threads that are listed of one group.
const LISTED: usize = 100;

/// Threads that do the same at the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct ThreadGroup {
    /// How many threads it has.
    pub count: usize,
    /// Their role.
    pub role: ThreadRole,
    /// What they are doing, derived from their stack.
    pub activity: Activity,
    /// The same in words: `waiting for a lock on a tokio worker`.
    pub doing: String,
    /// The threads, the first hundred.
    pub threads: Vec<ThreadSummary>,
    /// The stack as text for people, innermost frame first.
    pub text: String,
}

/// A thread without its stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct ThreadSummary {
    /// The kernel's thread id.
    pub tid: i32,
    /// The thread's name.
    pub name: String,
    /// `running`, `sleeping`, `uninterruptible`, …
    pub state: Option<String>,
    /// Processor time used so far, in microseconds.
    pub cpu_us: Option<u64>,
    /// The task that it polls at this moment, if known.
    pub runs_task: Option<u64>,
}

impl ThreadGroup {
    pub(super) fn of(group: &Group<'_>, full: bool) -> Self {
        let example = group.example;
        let mut text = String::new();
        stack_text(&mut text, example, full);
        Self {
            count: group.threads.len(),
            role: example.role,
            activity: example.activity,
            doing: doing_what(example),
            threads: group.threads.iter().take(LISTED).map(|thread| ThreadSummary::of(thread)).collect(),
            text,
        }
    }
}

impl ThreadSummary {
    fn of(thread: &ThreadStack) -> Self {
        Self {
            tid: thread.tid,
            name: thread.name.clone(),
            state: thread.state.clone(),
            cpu_us: thread.cpu_us,
            runs_task: thread.runs_task,
        }
    }
}
