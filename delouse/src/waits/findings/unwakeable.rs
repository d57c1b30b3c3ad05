//! Tasks that nothing can wake.

use super::Judge;
use super::sentences::{count_waiting, ids};
use crate::tasks::{Frame, ResourceKind};
use crate::waits::islands::Island;
use crate::waits::liveness;
use crate::waits::words::count;
use crate::waits::{Finding, FindingKind, Severity};

impl Judge<'_, '_, '_, '_, '_> {
    /// Whether a task that nothing wakes is news: `pending()` is written on purpose, and no trouble unless
    /// others wait for what such a task has.
    pub(super) fn is_worth_telling(&self, island: &Island, number: u32) -> bool {
        let on_purpose =
            self.task(number).is_some_and(|task| leaves(&task.stack).iter().all(|leaf| is_pending(leaf)));
        let blocked = island
            .behind
            .iter()
            .any(|task| self.teller.waits.of_task(*task).iter().any(|wait| wait.kind != ResourceKind::Join));
        !on_purpose || blocked
    }

    pub(super) fn unwakeable(&mut self, islands: &[Island]) -> Finding {
        let numbers: Vec<u32> = islands
            .iter()
            .flat_map(|island| &island.vertices)
            .filter_map(|vertex| self.graph.task(*vertex))
            .collect();
        let of = self.ids(numbers.iter().copied());
        let first = numbers.first().and_then(|number| self.task(*number));
        let stack = first.map(|task| leaves(&task.stack)).unwrap_or_default();
        let leaf = stack.first().map(|frame| format!("`{}`", frame.function));
        let waits = numbers.first().map(|number| self.teller.waits.of_task(*number)).unwrap_or_default();
        let place = waits.first().and_then(|wait| self.teller.place(wait));
        let place = place.map(|place| format!(" at `{place}`")).unwrap_or_default();
        let mut evidence = vec![
            "idle, and no reference to it is a waker: the scheduler's list and handles account for all"
                .to_owned(),
        ];
        let mut behind = Vec::new();
        for island in islands {
            behind.extend(self.ids(island.behind.iter().copied()));
        }
        if !behind.is_empty() {
            evidence.push(format!("{} for what it has: {}", count_waiting(behind.len()), ids(&behind)));
        }
        let joined = numbers.iter().filter_map(|number| self.teller.examination.places.get(*number as usize));
        if joined.clone().any(liveness::has_join_handle) {
            evidence.push("somebody has its `JoinHandle`, and could still abort it".to_owned());
        }
        let who = match of.as_slice() {
            [only] => format!("Task {only} can never be woken"),
            several => format!("{} can never be woken", count(several.len(), "task")),
        };
        let remedy = if !stack.is_empty() && stack.iter().all(|leaf| is_pending(leaf)) {
            "`pending()` never ends: let go of what others wait for before it is awaited, or end the task"
        } else {
            "a future that returns `Pending` must keep a clone of the waker of that call, and wake it"
        };
        let awaits = leaf.map(|leaf| format!(": {leaf} kept no waker")).unwrap_or_default();
        let mut tasks = of;
        tasks.extend(behind);
        Finding {
            kind: FindingKind::UnwakeableTask,
            severity: Severity::Certain,
            summary: format!("{who}{place}{awaits}"),
            tasks,
            evidence,
            remedy: Some(remedy.to_owned()),
        }
    }
}

/// Whether it is `std::future::pending()`, which is written on purpose.
fn is_pending(leaf: &Frame) -> bool {
    leaf.function.contains("::pending::Pending<")
}

/// The innermost frames. The depth is bounded by the walk's.
fn leaves(frames: &[Frame]) -> Vec<&Frame> {
    frames
        .iter()
        .flat_map(|frame| if frame.children.is_empty() { vec![frame] } else { leaves(&frame.children) })
        .collect()
}
