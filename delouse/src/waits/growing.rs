//! Groups of identical stacks that only grow.
//!
//! Of an earlier capture only counts are kept. Who is new shows all the same: tokio numbers tasks in the order of
//! their spawning, so those of then are the ones with the lower ids.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{Finding, FindingKind, Severity, words};
use crate::tasks::{Frame, Task, TaskKind, TaskState};

/// Less time between two captures tells nothing.
const APART: Duration = Duration::from_secs(1);
/// A group has to grow by that many tasks at least.
const GROWN: usize = 8;
/// And by one in so many.
const SHARE: usize = 10;
/// Groups of a capture that are kept: a few kilobytes.
const MAX_GROUPS: usize = 2048;

/// The groups of one capture: how many tasks have which stack.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// When, on a clock that all captures of the process share.
    at: Duration,
    /// The highest id of a task so far.
    newest: u64,
    groups: HashMap<u64, usize>,
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
        Self { at, newest: tasks.iter().map(|task| task.id).max().unwrap_or(0), groups }
    }

    /// When they were counted.
    pub(crate) fn at(&self) -> Duration {
        self.at
    }
}

/// Whether a task is one of a group: those that run stand at no certain place.
fn counts(task: &Task) -> bool {
    task.kind != TaskKind::Main && matches!(task.state, Some(TaskState::Idle | TaskState::Scheduled))
}

/// Tells tasks with the same stack; most of those share it.
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
pub(crate) fn check(earlier: &Counts, at: Duration, tasks: &[Task]) -> Vec<Finding> {
    let apart = at.saturating_sub(earlier.at);
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
    grown.iter().filter_map(|(grown, group)| finding(*grown, group, apart)).collect()
}

fn finding(grown: usize, group: &[&Task], apart: Duration) -> Option<Finding> {
    let example = group.first()?;
    let place = words::user_frame(&example.stack).map_or("(no stack)".to_owned(), words::frame_at);
    let apart = words::span(apart);
    let older = group.len().saturating_sub(grown);
    let mut evidence = vec![format!(
        "{} now: {grown} were spawned since, and {older} before, no fewer than there were at that place then",
        words::count(group.len(), "task")
    )];
    if let Some(spawned) = &example.spawned_at
        && group.iter().all(|task| task.spawned_at.as_ref() == Some(spawned))
    {
        evidence.push(format!("all were spawned at {}", words::place(spawned, None)));
    }
    Some(Finding {
        kind: FindingKind::GrowingGroup,
        severity: Severity::Suspected,
        summary: format!(
            "{} tasks wait in {place}, {grown} of them in the last {apart}, and they do not become fewer",
            group.len()
        ),
        tasks: group.iter().map(|task| task.id).collect(),
        evidence,
        remedy: Some(
            "find out what should end them, and why it does not; bound how many may be spawned".to_owned(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::made_up;
    use super::*;

    fn tasks(ids: impl IntoIterator<Item = u64>, function: &str) -> Vec<Task> {
        ids.into_iter().map(|id| made_up::task(id, function, 5)).collect()
    }

    fn found(before: &[Task], after: &[Task], seconds: u64) -> Vec<Finding> {
        let earlier = Counts::new(Duration::from_secs(100), before);
        check(&earlier, Duration::from_secs(100 + seconds), after)
    }

    #[test]
    fn a_group_that_nobody_leaves() {
        let found = found(&tasks(1..=20, "app::lingers"), &tasks(1..=50, "app::lingers"), 2);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].summary,
            "50 tasks wait in app::lingers at src/main.rs:5, 30 of them in the last 2.0 s, and they do \
             not become fewer"
        );
        assert_eq!(found[0].tasks.len(), 50);
    }

    #[test]
    fn groups_that_come_and_go() {
        let before = tasks(1..=20, "app::request");
        // Twice as many, but others; as many; fewer; somewhat more; too soon; new altogether.
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
        // A large group wants more than a few.
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
        let many: Vec<Task> = (1..=5000).map(|id| made_up::task(id, &format!("app::f{id}"), 1)).collect();
        assert_eq!(Counts::new(Duration::ZERO, &many).groups.len(), MAX_GROUPS);
    }
}
