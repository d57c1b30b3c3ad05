//! The places where holders of resources can be and that a capture did not read.
//!
//! "Held by no task" is a claim about every task. It is made only if there is no gap.
#![allow(unused_qualifications, reason = "schemars derives them")]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TaskIds;
use super::holders::Holders;
use crate::tasks::{Examination, TaskKind, TaskState};

/// Notes on the listing that are gaps.
const MAX_NOTES: usize = 8;

/// Something that delouse did not read, and where holders may be that it does not list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Gap {
    /// Memory was read while the program ran.
    TornCapture,
    /// The search for holders ran out of time or room.
    SearchCut,
    /// Tasks or stacks are missing from the listing.
    MissingTasks {
        /// Which, and why.
        note: String,
    },
    /// Tasks that run, or may run: what they hold is on the stacks of their threads.
    RunningTasks(TaskIds),
    /// Tasks whose variables could not all be read.
    UnreadTasks(TaskIds),
    /// Functions with a variable that has the name of an earlier one, and whose place is not known.
    UnplacedVariables {
        /// How many there are.
        count: usize,
    },
    /// Values behind an `Arc` or `Rc` that could not be read to their end.
    UnreadValues {
        /// How many there are.
        count: usize,
    },
}

impl Gap {
    /// The gaps of a capture. `mains_rest`: no thread polls a main future.
    pub(super) fn of(
        examination: &Examination<'_, '_, '_>,
        holders: &Holders,
        mains_rest: bool,
    ) -> Vec<Self> {
        let listing = &examination.listing;
        let mut gaps = Vec::new();
        if !examination.process.memory.snapshot().capture().consistent {
            gaps.push(Self::TornCapture);
        }
        if holders.ownership.cut {
            gaps.push(Self::SearchCut);
        }
        let notes = listing.notes.iter().take(MAX_NOTES).cloned();
        gaps.extend(notes.map(|note| Self::MissingTasks { note }));
        let runs = |task: &&crate::tasks::Task| match task.kind {
            TaskKind::Main if task.found_in.is_none() => !mains_rest,
            _ => task.state == Some(TaskState::Running),
        };
        let running = listing.tasks.iter().filter(runs).map(|task| task.id);
        gaps.extend(some(running).map(Self::RunningTasks));
        let complete = holders.ownership.complete.iter();
        let unread = listing.tasks.iter().zip(complete).filter(|(_, all)| !**all).map(|(task, _)| task.id);
        gaps.extend(some(unread).map(Self::UnreadTasks));
        if holders.ownership.unplaced > 0 {
            gaps.push(Self::UnplacedVariables { count: holders.ownership.unplaced });
        }
        let count = holders.ownership.objects.iter().filter(|object| object.cut).count();
        if count > 0 {
            gaps.push(Self::UnreadValues { count });
        }
        gaps
    }
}

fn some(ids: impl Iterator<Item = u64>) -> Option<TaskIds> {
    Some(TaskIds::of(ids)).filter(|tasks| tasks.count > 0)
}
