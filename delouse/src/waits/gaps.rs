//! What one capture did not read of the places where holders of resources can be.
//!
//! "Held by no task" is a claim about every task. It is made only where no gap is left.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::holders::Holders;
use super::words;
use crate::tasks::{Examination, TaskKind, TaskState};

/// Task ids that a gap lists.
const MAX_IDS: usize = 8;

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
    RunningTasks {
        /// Their ids, the first few; 0 for a `main` future.
        tasks: Vec<u64>,
        /// How many there are.
        count: usize,
    },
    /// Tasks whose variables could not all be read.
    UnreadTasks {
        /// Their ids, the first few; 0 for a `main` future.
        tasks: Vec<u64>,
        /// How many there are.
        count: usize,
    },
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
            TaskKind::Main => !mains_rest && task.found_in.is_none(),
            _ => task.state == Some(TaskState::Running),
        };
        let running = listing.tasks.iter().filter(runs).map(|task| task.id);
        if let Some((tasks, count)) = first_few(running) {
            gaps.push(Self::RunningTasks { tasks, count });
        }
        let complete = holders.ownership.complete.iter();
        let unread = listing.tasks.iter().zip(complete).filter(|(_, all)| !**all).map(|(task, _)| task.id);
        if let Some((tasks, count)) = first_few(unread) {
            gaps.push(Self::UnreadTasks { tasks, count });
        }
        if holders.ownership.unplaced > 0 {
            gaps.push(Self::UnplacedVariables { count: holders.ownership.unplaced });
        }
        let count = holders.ownership.objects.iter().filter(|object| object.cut).count();
        if count > 0 {
            gaps.push(Self::UnreadValues { count });
        }
        gaps
    }

    /// The gap as part of a sentence: `task 7 may run: …`.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::TornCapture => "memory was read while the program ran".to_owned(),
            Self::SearchCut => "the search for holders ran out of time".to_owned(),
            Self::MissingTasks { note } => note.clone(),
            Self::RunningTasks { tasks, count } => match count {
                1 => format!("{} may run: what it holds is on its thread's stack", some(tasks, *count)),
                _ => format!("{} may run: what they hold is on their threads' stacks", some(tasks, *count)),
            },
            Self::UnreadTasks { tasks, count } => {
                format!("not all variables of {} could be read", some(tasks, *count))
            }
            Self::UnplacedVariables { count } => format!(
                "in {}, the place of a variable that has the name of an earlier one is not known",
                words::count(*count, "suspended function")
            ),
            Self::UnreadValues { count } => {
                format!(
                    "{} behind an `Arc` or `Rc` could not be read to the end",
                    words::count(*count, "value")
                )
            }
        }
    }
}

/// All gaps in one parenthesis; `None` where there is none.
pub(crate) fn text(gaps: &[Gap]) -> Option<String> {
    let texts: Vec<String> = gaps.iter().map(Gap::text).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn first_few(ids: impl Iterator<Item = u64>) -> Option<(Vec<u64>, usize)> {
    let (mut first, mut count) = (Vec::new(), 0);
    for id in ids {
        count += 1;
        if first.len() < MAX_IDS {
            first.push(id);
        }
    }
    (count > 0).then_some((first, count))
}

/// `tasks 4, 5 and 90 more`.
fn some(ids: &[u64], count: usize) -> String {
    match count.saturating_sub(ids.len()) {
        0 => words::ids(ids),
        more => format!("{} and {more} more", words::ids(ids)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_name_the_tasks_that_they_are_about() {
        let running = Gap::RunningTasks { tasks: vec![7], count: 1 };
        assert_eq!(running.text(), "task 7 may run: what it holds is on its thread's stack");
        let unread = Gap::UnreadTasks { tasks: (1..=8).collect(), count: 90 };
        assert_eq!(
            text(&[Gap::TornCapture, unread]).as_deref(),
            Some(
                "memory was read while the program ran; not all variables of tasks 1, 2, 3, 4, 5, 6, 7, 8 and 82 more could be read"
            )
        );
        assert_eq!(text(&[]), None);
        let json = serde_json::to_value(&running).unwrap();
        assert_eq!(json, serde_json::json!({ "kind": "running_tasks", "tasks": [7], "count": 1 }));
    }
}
