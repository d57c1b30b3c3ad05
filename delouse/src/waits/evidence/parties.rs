//! The tasks and threads that take part in a finding.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::location::{self, CodeLocation};
use super::super::sample::Sample;
use super::super::{Edge, Holder, Resource};
use crate::tasks::ResourceKind;
use crate::tasks::layout::handles;
use crate::threads::{Activity, ThreadStack};

/// Ids of tasks that are listed; all of them are counted.
const MAX_IDS: usize = 8;

/// Tasks, of which the first few are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskIds {
    /// Ids of the first few; 0 for a `main` future.
    pub tasks: Vec<u64>,
    /// How many there are.
    pub count: usize,
}

impl TaskIds {
    pub(crate) fn of(ids: impl IntoIterator<Item = u64>) -> Self {
        let mut list = Self::default();
        for id in ids {
            list.count += 1;
            if list.tasks.len() < MAX_IDS {
                list.tasks.push(id);
            }
        }
        list
    }
}

/// A task that waits, and what can end that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskWait {
    /// Id of the task; 0 for a `main` future.
    pub task: u64,
    /// Of one of several `main` futures: the thread that drives it. If `blocks`, the thread itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<i32>,
    /// It is a thread that waits, outside of any task.
    #[serde(default, skip_serializing_if = "crate::waits::is_false")]
    pub blocks: bool,
    /// The program's innermost function that waits.
    pub place: Option<Arc<CodeLocation>>,
    /// What it waits for.
    pub resource: Arc<Resource>,
    /// The type of the innermost future, if it is not known what that waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub future: Option<Arc<str>>,
    /// What holds it, or can signal it: the first few.
    pub holders: Vec<Party>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "crate::waits::is_zero")]
    pub more_holders: usize,
    /// Nothing else can end the wait, or holds the resource.
    pub all_known: bool,
    /// It waits to read what another task reads: a task that waits to write is between them.
    #[serde(default, skip_serializing_if = "crate::waits::is_false")]
    pub behind_writer: bool,
}

impl TaskWait {
    /// The wait of an edge, for what these `holders` have.
    pub(in crate::waits) fn new<'h>(edge: &Edge, holders: impl Iterator<Item = &'h Holder>) -> Self {
        Self {
            task: edge.waiter.unwrap_or_default(),
            thread: edge.thread.filter(|_| edge.waiter.is_none()),
            place: edge.place.clone(),
            resource: edge.resource.clone(),
            future: edge.leaf.clone().filter(|_| edge.resource.kind == ResourceKind::Unknown),
            holders: holders.map(Party::from).collect(),
            ..Self::default()
        }
    }
}

/// A task or thread that holds a resource, or has a handle of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Party {
    /// Id of the task; 0 for a `main` future.
    pub task: Option<u64>,
    /// The OS thread, where the handle is on its stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<ThreadAt>,
    /// The variable with the handle: `guard`, `hub.senders[…]`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variable: String,
    /// The function that has the variable, and where it is suspended.
    pub place: Option<Arc<CodeLocation>>,
    /// The type of the handle: `MutexGuard`, `Sender`, ….
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub handle: String,
    /// Counters confirm it; otherwise it is one of several that may hold the resource.
    pub certain: bool,
}

impl Party {
    /// Whether it is an object of a pool.
    pub(crate) fn is_pooled(&self) -> bool {
        handles::is_pooled(&self.handle)
    }

    /// Whether it can only reach the resource, to notify it or add permits, and holds no part of it.
    pub(crate) fn is_access(&self) -> bool {
        handles::is_access(&self.handle)
    }

    /// The holder, with what its thread does in a sample.
    pub(in crate::waits) fn in_sample(holder: &Holder, sample: &Sample) -> Self {
        let thread = holder.thread.map(|tid| ThreadAt::in_sample(tid, sample));
        Self { thread, ..Self::from(holder) }
    }
}

impl From<&Holder> for Party {
    fn from(holder: &Holder) -> Self {
        Self {
            task: holder.task,
            thread: holder.thread.map(|tid| ThreadAt { tid, ..ThreadAt::default() }),
            variable: holder.variable.clone(),
            place: holder.place.clone(),
            handle: holder.handle.clone(),
            certain: holder.certain,
        }
    }
}

/// An OS thread, and what it does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThreadAt {
    /// Its id.
    pub tid: i32,
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it does, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<Activity>,
    /// The program's own line on its stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<CodeLocation>,
}

impl ThreadAt {
    pub(in crate::waits) fn in_sample(tid: i32, sample: &Sample) -> Self {
        let Some(thread) = sample.thread(tid) else { return Self { tid, ..Self::default() } };
        Self::of(thread)
    }

    pub(in crate::waits) fn of(thread: &ThreadStack) -> Self {
        Self {
            tid: thread.tid,
            name: thread.name.clone(),
            activity: Some(thread.activity),
            place: location::own_line(thread).map(|(place, _)| place),
        }
    }
}
