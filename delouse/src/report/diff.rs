//! What changed between two answers of the same kind: tasks, waits, or diagnoses.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::Serialize;

use super::format::{count, counted, in_place, task};
use super::formats::Renders;
use super::{DiagnosisAnswer, FindingReport, TasksAnswer, WaitsAnswer, kinds};
use crate::tasks::{Task, TaskState, WaitsOn};
use crate::waits::{Edge, TaskIds, location};

/// Groups of each kind that the text lists.
const SHOWN: usize = 12;
/// Ids of tasks that are kept of each group.
const IDS: usize = 100;

/// What is different in the later of two answers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DiffAnswer {
    /// All numbers in one sentence.
    pub(crate) summary: String,
    /// All of it as text for people.
    pub(crate) diff: String,
    /// Groups with more members than before, those that grew by most first.
    pub(crate) grew: Vec<Growth>,
    /// What only the later answer has.
    pub(crate) came: Vec<Group>,
    /// What only the earlier answer has.
    pub(crate) went: Vec<Group>,
    /// What is in both, and in the same wait.
    pub(crate) stayed: Vec<Group>,
    /// How many are in both, and elsewhere than before.
    pub(crate) moved: usize,
}

/// Members with the same description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Group {
    /// Where they wait, or what is wrong.
    pub(crate) what: String,
    pub(crate) count: usize,
    /// Ids of the tasks, the first hundred.
    pub(crate) tasks: Vec<u64>,
}

/// A group that has become larger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Growth {
    pub(crate) what: String,
    pub(crate) before: usize,
    pub(crate) after: usize,
}

/// A member of an answer.
struct Item {
    /// The same in both answers.
    identity: String,
    /// Changes when it goes on.
    state: u64,
    /// The description that it shares with its group.
    what: String,
    tasks: Vec<u64>,
    /// Whether it waits.
    waits: bool,
    /// How many it stands for in the size of its group.
    size: usize,
}

impl Renders for DiffAnswer {
    fn text(&self) -> String {
        self.diff.clone()
    }
}

impl DiffAnswer {
    pub(crate) fn of_tasks(before: &TasksAnswer, after: &TasksAnswer) -> Self {
        let items = |answer: &TasksAnswer| answer.tasks.iter().map(of_task).collect::<Vec<_>>();
        Self::new("task", &items(before), &items(after))
    }

    pub(crate) fn of_waits(before: &WaitsAnswer, after: &WaitsAnswer) -> Self {
        let items = |answer: &WaitsAnswer| answer.graph.edges.iter().map(of_edge).collect::<Vec<_>>();
        Self::new("wait", &items(before), &items(after))
    }

    pub(crate) fn of_diagnoses(before: &DiagnosisAnswer, after: &DiagnosisAnswer) -> Self {
        let named = |at: usize| format!("finding {at}");
        let then = before.findings.iter().enumerate().map(|(at, finding)| of_finding(named(at), finding));
        let mut taken = HashSet::new();
        let now = after.findings.iter().enumerate().map(|(at, finding)| {
            let mut earlier = before.findings.iter().enumerate();
            let same = earlier.position(|(at, earlier)| !taken.contains(&at) && is_same(earlier, finding));
            taken.extend(same);
            of_finding(same.map_or_else(|| format!("new finding {at}"), named), finding)
        });
        let (then, now): (Vec<_>, Vec<_>) = (then.collect(), now.collect());
        let mut diff = Self::new("finding", &then, &now);
        // Sentences of the same finding differ in their numbers: the later one names it.
        let sizes: HashMap<&str, usize> =
            then.iter().map(|item| (item.identity.as_str(), item.size)).collect();
        let grown = now.iter().filter_map(|item| {
            let before = *sizes.get(item.identity.as_str())?;
            let growth = Growth { what: item.what.clone(), before, after: item.size };
            (growth.after > growth.before).then_some(growth)
        });
        diff.grew = grown.collect();
        diff.diff = diff.render("finding");
        diff
    }

    fn new(noun: &str, before: &[Item], after: &[Item]) -> Self {
        let then: HashMap<&str, &Item> = before.iter().map(|item| (item.identity.as_str(), item)).collect();
        let now: HashMap<&str, &Item> = after.iter().map(|item| (item.identity.as_str(), item)).collect();
        let came = groups(after.iter().filter(|item| !then.contains_key(item.identity.as_str())));
        let went = groups(before.iter().filter(|item| !now.contains_key(item.identity.as_str())));
        let same = |item: &&Item| then.get(item.identity.as_str()).map(|earlier| earlier.state == item.state);
        let stayed = groups(after.iter().filter(|item| item.waits && same(item) == Some(true)));
        let moved = after.iter().filter(|item| same(item) == Some(false)).count();
        let total = |groups: &[Group]| groups.iter().map(|group| group.count).sum::<usize>();
        let in_both = match (noun, total(&stayed)) {
            ("finding", stay) => format!("{stay} stayed"),
            (_, 1) => format!("1 in both is in the same wait, {moved} moved on"),
            (_, stay) => format!("{stay} in both are in the same wait, {moved} moved on"),
        };
        let (members, now) = (count(before.len(), noun), after.len());
        let (new, gone) = (total(&came), total(&went));
        let summary = format!("{members} before, {now} after: {new} came, {gone} went, {in_both}");
        let grew = grown(before, after);
        let mut diff = Self { summary, diff: String::new(), grew, came, went, stayed, moved };
        diff.diff = diff.render(noun);
        diff
    }

    fn render(&self, noun: &str) -> String {
        let mut out = format!("{}\n", self.summary);
        if !self.grew.is_empty() {
            out.push_str("\nGrew\n");
            for Growth { what, before, after } in self.grew.iter().take(SHOWN) {
                let _infallible = writeln!(out, "  {before} -> {after}  {what}");
            }
            more(&mut out, self.grew.len());
        }
        let stayed = if noun == "finding" { "Stayed" } else { "In the same wait in both" };
        for (title, groups) in [("Came", &self.came), ("Went", &self.went), (stayed, &self.stayed)] {
            if groups.is_empty() {
                continue;
            }
            let _infallible = writeln!(out, "\n{title}");
            for group in groups.iter().take(SHOWN) {
                let _infallible = writeln!(out, "  {}", group_text(group, noun));
            }
            more(&mut out, groups.len());
        }
        out
    }
}

fn more(out: &mut String, groups: usize) {
    if groups > SHOWN {
        let _infallible = writeln!(out, "  and {} more groups (--json has them all)", groups - SHOWN);
    }
}

fn group_text(group: &Group, noun: &str) -> String {
    let Group { what, count: members, tasks } = group;
    if noun == "finding" {
        return what.clone();
    }
    let ids = TaskIds { count: *members, ..TaskIds::of(tasks.iter().copied()) };
    match (tasks.as_slice(), noun) {
        ([only], "task") if *members == 1 => format!("{} {what}", task(*only)),
        (_, "task") => format!("{} {what}", counted(&ids)),
        _ => format!("{} {what}", count(*members, noun)),
    }
}

/// The items by what they are, the largest group first.
fn groups<'i>(items: impl Iterator<Item = &'i Item>) -> Vec<Group> {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for item in items {
        let new = || Group { what: item.what.clone(), count: 0, tasks: Vec::new() };
        let group = groups.entry(&item.what).or_insert_with(new);
        group.count += 1;
        let room = IDS.saturating_sub(group.tasks.len());
        group.tasks.extend(item.tasks.iter().take(room));
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| Reverse(group.count));
    groups
}

/// The groups that are larger after than before.
fn grown(before: &[Item], after: &[Item]) -> Vec<Growth> {
    let mut sizes: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    before.iter().for_each(|item| sizes.entry(&item.what).or_default().0 += item.size);
    after.iter().for_each(|item| sizes.entry(&item.what).or_default().1 += item.size);
    // What is new altogether has come.
    let grown = sizes.into_iter().filter(|(_, (before, after))| *before > 0 && after > before);
    let mut grown: Vec<Growth> =
        grown.map(|(what, (before, after))| Growth { what: what.to_owned(), before, after }).collect();
    grown.sort_by_key(|growth| Reverse(growth.after - growth.before));
    grown
}

fn of_task(task: &Task) -> Item {
    let place =
        location::of_task(&task.stack).map_or_else(|| "(no stack)".to_owned(), |place| place.to_string());
    let mut hasher = DefaultHasher::new();
    (task.state, &task.stack).hash(&mut hasher);
    task.waits_on.iter().for_each(|waits| settled(waits).hash(&mut hasher));
    let outermost = task.stack.first().map_or("", |frame| frame.function.as_str());
    Item {
        identity: if task.id == 0 { format!("main {outermost}") } else { task.id.to_string() },
        state: hasher.finish(),
        what: match task.state {
            Some(TaskState::Complete) => {
                format!("finished, spawned at {}", task.spawned_at.as_deref().unwrap_or("?"))
            }
            _ => format!("in {place}"),
        },
        tasks: vec![task.id],
        waits: task.state == Some(TaskState::Idle),
        size: 1,
    }
}

/// A wait without what changes while it lasts.
fn settled(waits: &WaitsOn) -> WaitsOn {
    WaitsOn { in_ms: None, available: None, arrived: None, senders: None, io: None, ..waits.clone() }
}

fn of_edge(edge: &Edge) -> Item {
    let party = match (edge.waiter, edge.thread) {
        (Some(id), _) => task(id),
        (None, thread) => format!("thread {}", thread.unwrap_or_default()),
    };
    let resource = &edge.resource;
    let place = in_place(edge.place.as_ref());
    let address = resource.address.as_ref().unwrap_or(&resource.id);
    let deadline = edge.outside.as_ref().and_then(|outside| outside.deadline);
    Item {
        identity: format!("{party}{place} {:?} {address} {deadline:?}", resource.kind),
        state: 0,
        what: format!("for {}{place}", kinds::words(resource.kind).wanted),
        tasks: edge.waiter.into_iter().collect(),
        waits: true,
        size: 1,
    }
}

/// Whether two findings are about the same trouble: later ones may be about more tasks.
fn is_same(one: &FindingReport, other: &FindingReport) -> bool {
    let tasks: HashSet<u64> = one.tasks.iter().copied().collect();
    let overlap = || other.tasks.iter().any(|task| tasks.contains(task));
    one.kind == other.kind && ((tasks.is_empty() && other.tasks.is_empty()) || overlap())
}

fn of_finding(identity: String, finding: &FindingReport) -> Item {
    Item {
        identity,
        state: 0,
        what: finding.headline(),
        tasks: finding.tasks.clone(),
        waits: true,
        size: finding.tasks.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(identity: &str, state: u64, what: &str) -> Item {
        let tasks = identity.parse().into_iter().collect();
        Item { identity: identity.to_owned(), state, what: what.to_owned(), tasks, waits: true, size: 1 }
    }

    #[test]
    fn what_came_went_stayed_and_grew() {
        let before = [item("1", 1, "in app::a"), item("2", 1, "in app::a"), item("3", 1, "in app::b")];
        let after = [
            item("1", 1, "in app::a"),
            item("2", 2, "in app::a"),
            item("4", 1, "in app::a"),
            item("5", 1, "in app::c"),
        ];
        let diff = DiffAnswer::new("task", &before, &after);
        assert_eq!(
            diff.diff,
            "3 tasks before, 4 after: 2 came, 1 went, 1 in both is in the same wait, 1 moved on\n\n\
             Grew\n  2 -> 3  in app::a\n\n\
             Came\n  task 4 in app::a\n  task 5 in app::c\n\n\
             Went\n  task 3 in app::b\n\n\
             In the same wait in both\n  task 1 in app::a\n"
        );
        assert_eq!((diff.moved, diff.came.len(), diff.went.len()), (1, 2, 1));
    }

    #[test]
    fn nothing_changed() {
        let items = || [item("1", 1, "in app::a")];
        let diff = DiffAnswer::new("task", &items(), &items());
        assert!(diff.came.is_empty() && diff.went.is_empty() && diff.grew.is_empty() && diff.moved == 0);
        assert!(diff.diff.starts_with("1 task before, 1 after: 0 came, 0 went"), "{}", diff.diff);
    }
}
