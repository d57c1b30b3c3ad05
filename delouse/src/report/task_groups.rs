//! Tasks in groups of equal stacks, as data: a hundred thousand tasks in an answer of some kilobytes.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::task_text::{Group, TextOptions, body, groups};
use crate::tasks::{ResourceKind, Task, TaskKind, TaskState, Waiting};
use crate::waits::{CodeLocation, location};

/// Ids of tasks that are listed of one group.
const IDS: usize = 8;
/// The most bytes of groups in one answer: the largest groups come first, and those beyond are counted.
const BYTES: usize = 800_000;
/// Bytes of a group beside its text and its places.
const FIELDS: usize = 400;

/// Tasks with the same stack, in the same state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct TaskGroup {
    /// Names the group, for `?group=`. The same stack in the same state has the same name in each answer.
    pub key: String,
    /// How many tasks it has.
    pub count: usize,
    /// What kind of root they are.
    pub kind: TaskKind,
    /// Name or number of their runtime.
    pub runtime: Option<Arc<str>>,
    /// Their state in the scheduler.
    pub state: Option<TaskState>,
    /// How long the one that has waited longest has waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// `file:line:column` of the spawning call, where all of them have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawned_at: Option<Arc<str>>,
    /// `function at file:line` of the program's innermost function.
    pub place: Option<String>,
    /// The kinds of resource that they wait for.
    pub waits_on: Vec<ResourceKind>,
    /// The threads that poll them, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub threads: Vec<i32>,
    /// Ids of the tasks, the first few: the smallest is the oldest task's.
    pub tasks: Vec<u64>,
    /// The stack as text for people, with what the tasks wait for.
    pub text: String,
}

/// Some of the groups of an answer, and how many there are beside these.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) groups: Vec<TaskGroup>,
    pub(super) more: usize,
}

impl Groups {
    /// The groups of `tasks`: those that run or wait for a worker first, then the largest; `limit` of them at most, without
    /// the first `offset`.
    pub(super) fn of(tasks: &[Task], options: &TextOptions, offset: usize, limit: usize) -> Self {
        let all = groups(tasks, options);
        let mut bytes = 0;
        let mut listed = Vec::new();
        for group in all.iter().skip(offset).take(limit) {
            let group = TaskGroup::of(group, options);
            bytes += group.bytes();
            if bytes > BYTES && !listed.is_empty() {
                break;
            }
            listed.push(group);
        }
        let more = all.len().saturating_sub(offset + listed.len());
        Self { groups: listed, more }
    }
}

/// Leaves the tasks of the group with that key.
pub(super) fn retain(tasks: &mut Vec<Task>, options: &TextOptions, wanted: &str) {
    let groups = groups(tasks, options);
    let group = groups.iter().find(|group| key(group) == wanted);
    let ids = |group: &Group<'_>| group.tasks.iter().map(|task| identity(task)).collect();
    let ids: BTreeSet<_> = group.map(ids).unwrap_or_default();
    tasks.retain(|task| ids.contains(&identity(task)));
}

/// Main futures share the id 0; each has a stack of its own.
fn identity(task: &Task) -> (u64, *const crate::tasks::Frame) {
    (task.id, if task.id == 0 { task.stack.as_ptr() } else { std::ptr::null() })
}

fn key(group: &Group<'_>) -> String {
    let first = group.first;
    let mut hasher = DefaultHasher::new();
    (first.kind, &first.runtime, first.state, &first.stack, &first.completed).hash(&mut hasher);
    (&first.drives, &first.found_in, &group.now).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl TaskGroup {
    /// About how long it is as JSON.
    fn bytes(&self) -> usize {
        let places =
            self.place.as_ref().map_or(0, String::len) + self.spawned_at.as_ref().map_or(0, |at| at.len());
        self.text.len() + self.text.lines().count() + places + FIELDS
    }

    fn of(group: &Group<'_>, options: &TextOptions) -> Self {
        let first = group.first;
        let kinds: BTreeSet<ResourceKind> =
            group.tasks.iter().flat_map(|task| &task.waits_on).map(|waits| waits.kind).collect();
        let mut ids: Vec<u64> = group.tasks.iter().map(|task| task.id).collect();
        ids.sort_unstable();
        ids.truncate(IDS);
        let stack = first.drives.last().map_or(&first.stack, |driven| &driven.stack);
        let place = match &first.completed {
            Some(completed) => Some(CodeLocation::of_frame(completed).to_string()),
            None => location::of_task(stack).map(|place| place.to_string()),
        };
        Self {
            key: key(group),
            count: group.tasks.len(),
            kind: first.kind,
            runtime: first.runtime.clone(),
            state: first.state,
            waiting: group
                .tasks
                .iter()
                .filter_map(|task| task.waiting)
                .max_by_key(|waiting| waiting.at_least_ms),
            spawned_at: first
                .spawned_at
                .clone()
                .filter(|place| group.tasks.iter().all(|task| task.spawned_at.as_ref() == Some(place))),
            place,
            waits_on: kinds.into_iter().collect(),
            threads: group.tasks.iter().filter_map(|task| task.thread).take(IDS).collect(),
            tasks: ids,
            text: body(group, options),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waits::fixtures;

    fn tasks() -> Vec<Task> {
        let place = |id: u64| if id.is_multiple_of(4) { "app::rare" } else { "app::often" };
        (1..=1000).map(|id| fixtures::task(id, place(id), 10)).collect()
    }

    #[test]
    fn a_group_can_be_asked_for_by_its_key() {
        let options = TextOptions::default();
        let Groups { groups, more } = Groups::of(&tasks(), &options, 0, 10);
        let counts: Vec<usize> = groups.iter().map(|group| group.count).collect();
        assert_eq!((counts, more), (vec![750, 250], 0));
        assert_eq!(groups[0].place.as_deref(), Some("app::often at src/main.rs:10"));
        assert_eq!(groups[0].tasks, [1, 2, 3, 5, 6, 7, 9, 10]);
        assert!(groups[0].text.contains("app::often at src/main.rs:10"), "{}", groups[0].text);
        let mut of_rare = tasks();
        retain(&mut of_rare, &options, &groups[1].key);
        assert!(of_rare.len() == 250 && of_rare.iter().all(|task| task.id.is_multiple_of(4)));
        retain(&mut of_rare, &options, "nonsense");
        assert!(of_rare.is_empty());
    }

    #[test]
    fn pages_of_groups() {
        let options = TextOptions::default();
        let Groups { groups, more } = Groups::of(&tasks(), &options, 1, 1);
        assert_eq!((groups.len(), groups[0].count, more), (1, 250, 0));
        assert_eq!(Groups::of(&tasks(), &options, 0, 1).more, 1);
        assert_eq!(Groups::of(&tasks(), &options, 9, 9).groups.len(), 0);
    }

    #[test]
    fn a_hundred_thousand_different_stacks_are_one_short_answer() {
        let tasks: Vec<Task> =
            (1..100_000).map(|id| fixtures::task(id, &format!("app::f{id}"), 10)).collect();
        let Groups { groups, more } = Groups::of(&tasks, &TextOptions::default(), 0, usize::MAX);
        assert_eq!(groups.len() + more, tasks.len());
        let length = serde_json::to_vec(&groups).unwrap().len();
        assert!(more > 0 && length < BYTES, "{length}");
    }
}
