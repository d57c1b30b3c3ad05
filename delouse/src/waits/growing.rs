//! Groups of identical stacks that only grow.
//!
//! Of an earlier capture only counts are kept. New tasks can still be recognised: tokio numbers tasks in the order in
//! which they are spawned, so tasks with higher ids are newer.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::finished::{self, FinishedKind};
use super::kept::Keeper;
use super::sample::{Sample, millis};
use super::{Evidence, Finding, FindingKind, Severity, location};
use crate::tasks::{Frame, Task, TaskKind, TaskState};

/// The shortest time between two captures from which growth can be concluded.
const APART: Duration = Duration::from_secs(1);
/// The least number of tasks by which a group must grow.
const GROWN: usize = 8;
/// A group must also grow by one in this many.
const SHARE: usize = 10;
/// The most groups of a capture that are kept: a few kilobytes.
const MAX_GROUPS: usize = 2048;

/// The groups of one capture: how many tasks have which stack.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// When it was made, by a clock that all captures of the process share.
    at: Duration,
    /// The highest id of a task so far.
    newest: u64,
    groups: HashMap<u64, usize>,
    /// Finished tasks whose results are kept.
    finished: HashMap<FinishedKind, usize>,
}

impl Counts {
    pub(crate) fn new(at: Duration, tasks: &[Task]) -> Self {
        let mut groups: HashMap<u64, usize> = HashMap::new();
        let mut likeness = Likeness::default();
        for task in tasks.iter().filter(|task| counts(task)) {
            *groups.entry(likeness.of(task)).or_default() += 1;
        }
        if groups.len() > MAX_GROUPS {
            let mut largest: Vec<_> = groups.into_iter().collect();
            largest.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
            largest.truncate(MAX_GROUPS);
            groups = largest.into_iter().collect();
        }
        let finished = finished::groups(tasks.iter()).into_iter();
        let finished = finished.map(|(kind, tasks)| (kind, tasks.len())).take(MAX_GROUPS).collect();
        Self { finished, at, newest: tasks.iter().map(|task| task.id).max().unwrap_or(0), groups }
    }

    /// When they were counted.
    pub(crate) fn at(&self) -> Duration {
        self.at
    }
}

/// Whether a task is one of a group: running tasks are at no definite place.
fn counts(task: &Task) -> bool {
    task.kind != TaskKind::Main && matches!(task.state, Some(TaskState::Idle | TaskState::Scheduled))
}

/// Finds tasks with the same stack; most of these share it.
#[derive(Default)]
struct Likeness(FxHashMap<(TaskKind, *const Frame), u64>);

impl Likeness {
    fn of(&mut self, task: &Task) -> u64 {
        *self.0.entry((task.kind, task.stack.as_ptr())).or_insert_with(|| {
            let mut hasher = DefaultHasher::new();
            (task.kind, &task.stack).hash(&mut hasher);
            hasher.finish()
        })
    }
}

/// The groups that new tasks have joined between `earlier` and the tasks of `at`, and that have no fewer of the older
/// ones than then; the largest growth first. Tasks that only moved from one place to another are no growth.
pub(crate) fn check(earlier: &Counts, last: &Sample) -> Vec<Finding> {
    let (tasks, apart) = (&last.listing.tasks, last.at.saturating_sub(earlier.at));
    if apart < APART {
        return Vec::new();
    }
    let mut groups: HashMap<u64, Vec<&Task>> = HashMap::new();
    let mut likenesses = Likeness::default();
    for task in tasks.iter().filter(|task| counts(task)) {
        groups.entry(likenesses.of(task)).or_default().push(task);
    }
    let grown = groups.into_iter().filter_map(|(likeness, group)| {
        let before = *earlier.groups.get(&likeness)?;
        let stayed = group.iter().filter(|task| task.id <= earlier.newest).count();
        let grown = group.len().saturating_sub(stayed);
        (stayed >= before && grown >= GROWN.max(before / SHARE)).then_some((grown, group))
    });
    let mut grown: Vec<_> = grown.collect();
    grown.sort_by_key(|(grown, group)| (std::cmp::Reverse(*grown), group.first().map(|task| task.id)));
    let grown = grown.iter().filter_map(|(grown, group)| finding(*grown, group, apart));
    finished(earlier, apart, last).into_iter().chain(grown).collect()
}

/// Tasks that finish and whose results nothing takes: there are many, new ones have come,
/// and none of the older ones was taken.
fn finished(earlier: &Counts, over: Duration, last: &Sample) -> Option<Finding> {
    let groups = finished::groups(last.listing.tasks.iter());
    let grown = groups.into_iter().filter_map(|(kind, group)| {
        let before = *earlier.finished.get(&kind)?;
        let stayed = group.iter().filter(|task| task.id <= earlier.newest).count();
        let new = group.len().saturating_sub(before);
        (before > 0 && stayed >= before && group.len() >= finished::MANY && new >= GROWN)
            .then_some((new, kind, group))
    });
    let (new, kind, group) = grown.max_by_key(|(new, ..)| *new)?;
    let FinishedKind { function, spawned_at } = kind;
    let of = Evidence::Finished { function, spawned_at, now: group.len(), new, over_ms: millis(over) };
    let evidence = [of].into_iter().chain(last.keeper.iter().map(kept)).collect();
    let tasks = group.iter().map(|task| task.id).collect();
    Some(Finding { kind: FindingKind::FinishedTasks, severity: Severity::Suspected, tasks, evidence })
}

fn kept(keeper: &Keeper) -> Evidence {
    let Keeper { task, variable, place, handles } = keeper.clone();
    Evidence::Kept { task, variable, place, handles }
}

fn finding(new: usize, group: &[&Task], over: Duration) -> Option<Finding> {
    let example = group.first()?;
    let place = location::of_task(&example.stack);
    let mut evidence = vec![Evidence::Growth { place, now: group.len(), new, over_ms: millis(over) }];
    if let Some(place) = &example.spawned_at
        && group.iter().all(|task| task.spawned_at.as_ref() == Some(place))
    {
        evidence.push(Evidence::SpawnedAt { place: place.clone() });
    }
    let tasks = group.iter().map(|task| task.id).collect();
    Some(Finding { kind: FindingKind::GrowingGroup, severity: Severity::Suspected, tasks, evidence })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;
    use crate::report::FindingReport;

    fn tasks(ids: impl IntoIterator<Item = u64>, function: &str) -> Vec<Task> {
        ids.into_iter().map(|id| fixtures::task(id, function, 5)).collect()
    }

    fn found(before: &[Task], after: &[Task], seconds: u64) -> Vec<FindingReport> {
        let earlier = Counts::new(Duration::from_secs(100), before);
        let last = fixtures::sample((100 + seconds) * 1000, after.to_vec(), Vec::new());

        fixtures::reported(check(&earlier, &last))
    }

    #[test]
    fn a_group_that_no_task_leaves() {
        let found = found(&tasks(1..=20, "app::lingers"), &tasks(1..=50, "app::lingers"), 2);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].summary,
            "50 tasks wait in app::lingers at src/main.rs:5, 30 of them spawned in the last 2.0 s, and \
             none of the older ones has left"
        );
        assert_eq!(found[0].tasks.len(), 50);
    }

    fn finished_tasks(ids: impl IntoIterator<Item = u64>) -> Vec<Task> {
        let finished = |id| Task {
            state: Some(TaskState::Complete),
            stack: [].into(),
            spawned_at: Some("src/main.rs:7:13".into()),
            ..fixtures::task(id, "app::query", 5)
        };
        ids.into_iter().map(finished).collect()
    }

    #[test]
    fn results_that_nothing_takes() {
        let found = found(&finished_tasks(1..=300), &finished_tasks(1..=400), 2);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].summary,
            "400 tasks that were spawned at src/main.rs:7:13 have finished, and handles keep their results: 100 more in \
             the last 2.0 s, and none of the older ones was taken"
        );
    }

    #[test]
    fn results_that_are_taken() {
        let before = finished_tasks(1..=300);
        // Drained meanwhile; joined one after the other; too few; too soon; no new ones.
        for (after, seconds) in [
            (finished_tasks(301..=700), 2),
            (finished_tasks(2..=500), 2),
            (finished_tasks(1..=500), 0),
            (finished_tasks(1..=300), 2),
        ] {
            assert_eq!(found(&before, &after, seconds), []);
        }
        assert_eq!(found(&finished_tasks(1..=10), &finished_tasks(1..=60), 2), []);
    }

    #[test]
    fn groups_that_come_and_go() {
        let before = tasks(1..=20, "app::request");
        // Twice as many, but others; as many; fewer; somewhat more; too soon; a new group.
        for (after, seconds) in [
            (tasks(15..=55, "app::request"), 2),
            (tasks(1..=20, "app::request"), 2),
            (tasks(1..=10, "app::request"), 2),
            (tasks(1..=25, "app::request"), 2),
            (tasks(1..=50, "app::request"), 0),
            (tasks(21..=90, "app::another"), 2),
        ] {
            assert_eq!(found(&before, &after, seconds), [], "{} tasks", after.len());
        }
        // A large group must grow by more than a few.
        assert_eq!(found(&tasks(1..=1000, "app::request"), &tasks(1..=1050, "app::request"), 60), []);
    }

    #[test]
    fn tasks_that_only_moved() {
        let mut before = tasks(1..=10, "app::reads");
        before.extend(tasks(11..=510, "app::handles"));
        assert_eq!(found(&before, &tasks(1..=510, "app::reads"), 2), []);
    }

    #[test]
    fn the_largest_growth_comes_first() {
        let mut before = tasks(1..=10, "app::few");
        before.extend(tasks(11..=20, "app::many"));
        let mut after = before.clone();
        after.extend(tasks(21..=30, "app::few"));
        after.extend(tasks(31..=90, "app::many"));
        let found = found(&before, &after, 1);
        assert_eq!(found.len(), 2);
        assert!(found[0].summary.contains("app::many"), "{found:?}");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<Task> = (1..=5000).map(|id| fixtures::task(id, &format!("app::f{id}"), 1)).collect();
        assert_eq!(Counts::new(Duration::ZERO, &many).groups.len(), MAX_GROUPS);
    }
}
