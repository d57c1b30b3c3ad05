//! The answer of `/stacktrace/tokio`.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::debuginfo::symbols::shorten;
use crate::snapshot::Capture;
use crate::tasks::engine::{EngineName, TaskList};
use crate::tasks::{Frame, Task, TaskKind};

/// Every task of every runtime.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TasksAnswer {
    /// All of it as text for people: identical stacks in groups, the largest first.
    pub stacktrace: String,
    /// Who found the tasks.
    pub engine: EngineName,
    /// How the capture went.
    pub capture: Capture,
    /// The tasks, ordered by id.
    pub tasks: Vec<Task>,
}

impl TasksAnswer {
    pub(crate) fn new(engine: EngineName, list: TaskList) -> Self {
        let TaskList { tasks, capture } = list;
        Self { stacktrace: text(&tasks, &capture), engine, capture, tasks }
    }
}

/// What makes two tasks look the same to a person.
fn likeness(task: &Task) -> (TaskKind, &Option<String>, &[Frame]) {
    (task.kind, &task.runtime, &task.stack)
}

fn text(tasks: &[Task], capture: &Capture) -> String {
    let mut groups: Vec<Vec<&Task>> = Vec::new();
    let mut known = HashMap::new();
    for task in tasks {
        let at = *known.entry(likeness(task)).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.push(task),
            None => groups.push(vec![task]),
        }
    }
    groups.sort_by_key(|group| Reverse(group.len()));
    let current_dir = std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned();
    let mut out = format!("{}, {}\n", count(tasks.len(), "task"), count(groups.len(), "distinct stack"));
    for group in &groups {
        out.push('\n');
        describe(&mut out, group, &current_dir);
    }
    for note in &capture.notes {
        let _infallible = write!(out, "\nnote: {note}\n");
    }
    out
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn describe(out: &mut String, group: &[&Task], current_dir: &str) {
    let Some(first) = group.first() else { return };
    let runtime = first.runtime.as_ref().map(|r| format!(", runtime {r}")).unwrap_or_default();
    let _infallible = match (first.kind, group) {
        (TaskKind::Main, _) => writeln!(out, "the main future"),
        (_, [one]) => writeln!(out, "task {}{runtime}", one.id),
        _ => writeln!(out, "{}{runtime}: {}", count(group.len(), "task"), ids(group)),
    };
    if first.stack.is_empty() {
        out.push_str("  (empty trace: it waits for something that is not tokio's)\n");
    }
    frames(out, &first.stack, 1, current_dir);
}

fn frames(out: &mut String, level: &[Frame], depth: usize, current_dir: &str) {
    for frame in level {
        let _infallible = write!(out, "{:1$}{2}", "", depth * 2, frame.function);
        if let (Some(file), Some(line)) = (&frame.file, frame.line) {
            let _infallible = write!(out, " at {}:{line}", shorten(file, Some(current_dir)).0);
        }
        out.push('\n');
        frames(out, &frame.children, depth + 1, current_dir);
    }
}

/// The first few, and how many more.
fn ids(group: &[&Task]) -> String {
    const SHOWN: usize = 8;
    let mut text = group.iter().take(SHOWN).map(|t| t.id.to_string()).collect::<Vec<_>>().join(", ");
    if group.len() > SHOWN {
        let _infallible = write!(text, ", and {} more", group.len() - SHOWN);
    }
    text
}
