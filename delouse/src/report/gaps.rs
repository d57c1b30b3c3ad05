//! What was not read, and what could not be judged, in words.

use super::format::{count, size, tasks};
use super::kinds;
use crate::waits::{Gap, NotCovered, TaskIds, Unjudged, UnjudgedTasks};

/// The gap as part of a sentence: `task 7 may run: …`.
pub(super) fn gap(gap: &Gap) -> String {
    match gap {
        Gap::TornCapture => "memory was read while the program ran".to_owned(),
        Gap::SearchCut => "the search for holders ran out of time".to_owned(),
        Gap::MissingTasks { note } => note.clone(),
        Gap::RunningTasks(running @ TaskIds { count: 1, .. }) => {
            format!("{} may run: what it holds is on its thread's stack", tasks(running))
        }
        Gap::RunningTasks(running) => {
            format!("{} may run: what they hold is on their threads' stacks", tasks(running))
        }
        Gap::UnreadTasks(unread) => format!("not all variables of {} could be read", tasks(unread)),
        Gap::UnplacedVariables { count: n } => format!(
            "in {}, the place of a variable that has the name of an earlier one is not known",
            count(*n, "suspended function")
        ),
        Gap::UnreadValues { count: n } => {
            format!("{} behind an `Arc` or `Rc` could not be read to the end", count(*n, "value"))
        }
    }
}

/// All gaps in one parenthesis; `None` where there is none.
pub(super) fn gaps(gaps: &[Gap]) -> Option<String> {
    let texts: Vec<String> = gaps.iter().map(gap).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Why tasks could not be judged.
pub(super) fn unjudged(of: &UnjudgedTasks) -> String {
    let ended_by = match of.thread {
        Some(tid) => format!("what holds the lock that its thread {tid} waits for"),
        None => kinds::words(of.resource).ended_by.to_owned(),
    };
    match of.why {
        Unjudged::NoFuture => "its future could not be read".to_owned(),
        Unjudged::UnknownFuture => "delouse does not know what this type of future waits for".to_owned(),
        Unjudged::UnknownResource => "it could not be read what it waits for".to_owned(),
        Unjudged::UnknownHandles => {
            format!("delouse does not know {ended_by}: it knows no handles of this type")
        }
        Unjudged::UnknownTask => "the task that it waits for was not found".to_owned(),
        Unjudged::MoreHandles => {
            format!("delouse does not know {ended_by}: more handles exist than were found")
        }
        Unjudged::NoHandles => format!("delouse does not know {ended_by}: no handle was found"),
        Unjudged::Unread => "not all of its variables could be read".to_owned(),
        Unjudged::MoreWakers => "something that was not found has a waker of it".to_owned(),
        Unjudged::OpenBranch => "delouse cannot tell what else may end this branch of a `join!`".to_owned(),
        Unjudged::Behind => "what could end its wait is not judged itself".to_owned(),
    }
}

/// What an analysis does not cover.
pub(crate) fn not_covered(missing: &NotCovered) -> String {
    match missing {
        NotCovered::Waits { shortage } => {
            format!("what tasks wait for and what holds it, as not all was read: {shortage}")
        }
        NotCovered::Holders => {
            "too much memory to find what holds what in time: holders may be missing".to_owned()
        }
        NotCovered::Types => {
            "what tasks wait for and what holds it: the debug information has no types".to_owned()
        }
        NotCovered::Memory { lacking } => {
            let lacking = size(*lacking);
            format!(
                "{lacking} of the program's memory, which the truncated core file lacks: tasks may have been there"
            )
        }
        NotCovered::Capture { why } => format!("tasks and threads: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_name_the_tasks_that_they_are_about() {
        let running = Gap::RunningTasks(TaskIds::of([7]));
        assert_eq!(gap(&running), "task 7 may run: what it holds is on its thread's stack");
        let unread = Gap::UnreadTasks(TaskIds::of(1..=90));
        assert_eq!(
            gaps(&[Gap::TornCapture, unread]).as_deref(),
            Some(
                "memory was read while the program ran; not all variables of tasks 1, 2, 3, 4, 5, 6, 7, 8 and 82 more could be read"
            )
        );
        assert_eq!(gaps(&[]), None);
        let json = serde_json::to_value(&running).unwrap();
        assert_eq!(json, serde_json::json!({ "kind": "running_tasks", "tasks": [7], "count": 1 }));
    }
}
