//! Tasks that nothing can wake.

use super::{Judge, behind};
use crate::tasks::{Frame, ResourceKind};
use crate::waits::components::Component;
use crate::waits::wakers;
use crate::waits::{Evidence, Finding, FindingKind, Severity};

impl Judge<'_, '_, '_, '_, '_> {
    /// Whether a task that nothing wakes is reported. `pending()` is written on purpose, and is a fault only if others
    /// wait for what such a task owns.
    pub(super) fn is_worth_reporting(&self, component: &Component, number: u32) -> bool {
        let on_purpose =
            self.task(number).is_some_and(|task| leaves(&task.stack).iter().all(|leaf| is_pending(leaf)));
        let blocked = component
            .behind
            .iter()
            .any(|task| self.edges.waits.of_task(*task).iter().any(|wait| wait.kind != ResourceKind::Join));
        !on_purpose || blocked
    }

    pub(super) fn unwakeable(&mut self, components: &[Component]) -> Finding {
        let numbers: Vec<u32> = components
            .iter()
            .flat_map(|component| &component.vertices)
            .filter_map(|vertex| self.graph.task(*vertex))
            .collect();
        let mut tasks = self.ids(numbers.iter().copied());
        let first = numbers.first().and_then(|number| self.task(*number));
        let stack = first.map(|task| leaves(&task.stack)).unwrap_or_default();
        let waits = numbers.first().map(|number| self.edges.waits.of_task(*number)).unwrap_or_default();
        let mut evidence = vec![Evidence::NoWaker {
            place: waits.first().and_then(|wait| self.edges.place(wait)),
            future: stack.first().map(|frame| frame.function.clone()),
            pending: !stack.is_empty() && stack.iter().all(|leaf| is_pending(leaf)),
        }];
        let waiting = self.behind(components);
        evidence.extend(behind(&waiting));
        let mut places =
            numbers.iter().filter_map(|number| self.edges.examination.places.get(*number as usize));
        evidence.extend(places.any(wakers::has_join_handle).then_some(Evidence::JoinHandle));
        tasks.extend(waiting);
        Finding { kind: FindingKind::UnwakeableTask, severity: Severity::Certain, tasks, evidence }
    }
}

/// Whether it is `std::future::pending()`, which is written on purpose.
fn is_pending(leaf: &Frame) -> bool {
    leaf.function.contains("::pending::Pending<")
}

/// The innermost frames. The walk that made the stack has bounded its depth.
fn leaves(frames: &[Frame]) -> Vec<&Frame> {
    frames
        .iter()
        .flat_map(|frame| if frame.children.is_empty() { vec![frame] } else { leaves(&frame.children) })
        .collect()
}
