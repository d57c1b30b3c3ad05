//! Assumptions about the internals of tokio and rustc, in one place.
//!
//! Each one is looked up by name in the type information of the examined program. If it does not hold, the answer is
//! less complete, and says so with the texts given here.

use std::collections::BTreeSet;

/// An assumption.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fact {
    /// The type, field or function that is looked up.
    pub(super) name: &'static str,
    /// What is missing from the answer without it.
    pub(super) without: &'static str,
}

/// `runtime/task/core.rs`: a task begins with its header.
pub(super) const HEADER: Fact =
    Fact { name: "tokio's task header (state, vtable, owner_id)", without: "no tasks can be listed" };
/// `runtime/task/raw.rs`: the vtable has the offsets of a task's parts.
pub(super) const VTABLE: Fact =
    Fact { name: "tokio's task vtable (…_offset)", without: "no tasks can be listed" };
/// `runtime/task/core.rs`: the links of the list of all tasks are in the trailer.
pub(super) const TRAILER: Fact =
    Fact { name: "tokio's task trailer (owned)", without: "the links are assumed to come first in it" };
/// `runtime/task/core.rs`: a task's stage contains its future, and later its output.
pub(super) const STAGE: Fact = Fact {
    name: "tokio's task stage (Cell, Core or Stage) for some tasks",
    without: "where their futures start is computed, and may be wrong",
};
/// `runtime/task/list.rs`, `util/sharded_list.rs`: every scheduler owns a list of its tasks.
pub(super) const OWNED: Fact = Fact {
    name: "tokio's list of owned tasks (owned, lists, head)",
    without: "tasks are found by scanning memory only",
};
/// `runtime/context.rs`: every thread has a reference to its runtime.
pub(super) const CONTEXT: Fact = Fact {
    name: "tokio's thread local CONTEXT (current, handle)",
    without: "runtimes are found by their tasks only",
};
/// `runtime/context.rs`: every thread has the id of the task that it polls.
pub(super) const CURRENT_TASK: Fact = Fact {
    name: "tokio's thread local CONTEXT (current_task_id)",
    without: "which thread runs a task is not known",
};
/// `runtime/scheduler/`: a scheduler counts the tasks that it takes.
pub(super) const ROUNDS: Fact = Fact {
    name: "the tick of tokio's scheduler (scheduler, inner, core, tick)",
    without: "one long poll cannot be distinguished from several in a row",
};
/// The functions that task vtables point to, by their symbols.
pub(super) const POLL: Fact = Fact {
    name: "tokio's function runtime::task::raw::poll with its types",
    without: "no tasks can be listed: build with `debug = \"full\"` in the profile, or nothing was spawned",
};

/// Notes about a capture for its readers; each is listed once.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes(BTreeSet<String>);

impl Notes {
    pub(super) fn missing(&mut self, fact: &Fact) {
        self.add(format!("{} not found: {}", fact.name, fact.without));
    }

    pub(super) fn add(&mut self, note: String) {
        // A longer list would not be read.
        if self.0.len() < 64 {
            self.0.insert(note);
        }
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.0.into_iter().collect()
    }
}
