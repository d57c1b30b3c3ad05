//! Tasks as text: groups of equal stacks, the most urgent first.
//!
//! What is alike is shown once, with a count. The program's own functions stand in full; a run of library
//! functions is folded to the one that the program called, and below it is what that waits for.

use std::cmp::Reverse;
use std::fmt::Write as _;

use rustc_hash::FxHashMap;

use super::stack_text::Style;
use super::{format, now, stack_text};
use crate::debuginfo::symbols::shorten;
use crate::report::format::count;
use crate::tasks::{BlockingCall, Driven, Frame, Task, TaskKind, TaskState};
use crate::threads::ThreadStack;

/// Task ids shown of one group.
const MAX_IDS: usize = 8;

/// How much to show.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextOptions {
    /// Every frame of every library, and every wait.
    pub(crate) full: bool,
    /// Which tasks these are, where they are not all.
    pub(crate) selection: Option<String>,
    /// The stacks of threads that run tasks.
    pub(crate) threads: Vec<ThreadStack>,
}

/// Tasks with the same stack, in the same state.
pub(super) struct Group<'t> {
    pub(super) first: &'t Task,
    pub(super) tasks: Vec<&'t Task>,
    /// What they are doing, where they run and that is known.
    pub(super) now: Vec<String>,
}

/// Waits shown of one future of a group, where it is one of a thousand in an answer.
const FEW_WAITS: usize = 2;

struct Page<'o> {
    out: String,
    options: &'o TextOptions,
    max_waits: usize,
    current_dir: String,
}

/// All tasks: those that run or wait for a worker first, then the largest groups.
pub(crate) fn text(tasks: &[Task], notes: &[String], options: &TextOptions) -> String {
    let groups = groups(tasks, options);
    let mut page = Page::new(options);
    page.head(tasks, groups.len());
    for group in &groups {
        page.out.push('\n');
        page.group(group);
    }
    for note in notes {
        page.line(0, &format!("\nnote: {note}"));
    }
    page.out
}

/// How many tasks there are in how many groups and states, without the groups.
pub(super) fn head(tasks: &[Task], options: &TextOptions) -> String {
    let mut page = Page::new(options);
    page.head(tasks, groups(tasks, options).len());
    page.out
}

/// The stack of a group, without its heading.
pub(super) fn body(group: &Group<'_>, options: &TextOptions) -> String {
    let mut page = Page { max_waits: FEW_WAITS, ..Page::new(options) };
    page.body(group);
    page.out
}

/// Those that run or wait for a worker first, then the largest.
pub(super) fn groups<'t>(tasks: &'t [Task], options: &TextOptions) -> Vec<Group<'t>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut known = FxHashMap::default();
    let mut stacks = Stacks::default();
    for task in tasks {
        let thread = task.thread.and_then(|tid| thread(options, tid));
        let now = thread.map(|thread| now::lines(thread, options.full)).unwrap_or_default();
        let calls = (&task.drives, &task.found_in);
        let function = (stacks.number(&task.stack), &task.completed);
        let likeness = (task.kind, &task.runtime, task.state, function, calls, now);
        match known.get(&likeness).and_then(|at: &usize| groups.get_mut(*at)) {
            Some(group) => group.tasks.push(task),
            None => {
                groups.push(Group { first: task, tasks: vec![task], now: likeness.5.clone() });
                known.insert(likeness, groups.len() - 1);
            }
        }
    }
    groups.sort_by_key(|group| (urgency(group.first), Reverse(group.tasks.len())));
    groups
}

fn thread(options: &TextOptions, tid: i32) -> Option<&ThreadStack> {
    options.threads.iter().find(|thread| thread.tid == tid)
}

/// Numbers for stacks, the same for equal ones. A stack that tasks share is looked at once.
#[derive(Default)]
struct Stacks<'t> {
    by_place: FxHashMap<*const Frame, usize>,
    by_value: FxHashMap<&'t [Frame], usize>,
}

impl<'t> Stacks<'t> {
    fn number(&mut self, stack: &'t [Frame]) -> usize {
        if stack.is_empty() {
            return usize::MAX;
        }
        *self.by_place.entry(stack.as_ptr()).or_insert_with(|| {
            let next = self.by_value.len();
            *self.by_value.entry(stack).or_insert(next)
        })
    }
}

/// What runs may be what blocks a worker; the main future is where most readers begin.
fn urgency(task: &Task) -> u8 {
    match (task.state, task.kind) {
        (Some(TaskState::Running), TaskKind::Task | TaskKind::Local) => 0,
        (_, TaskKind::Main) => 1,
        (Some(TaskState::Scheduled), _) => 2,
        (Some(TaskState::Complete), _) => 5,
        (_, TaskKind::Blocking) => 4,
        _ => 3,
    }
}

/// `: 2 running, 81 idle`.
fn states(tasks: &[Task]) -> String {
    let of = |state| tasks.iter().filter(|task| task.state == Some(state)).count();
    let counted = [
        (TaskState::Running, "running"),
        (TaskState::Scheduled, "scheduled"),
        (TaskState::Idle, "idle"),
        (TaskState::Complete, "complete"),
    ];
    let counted = counted.into_iter().map(|(state, name)| (of(state), name)).filter(|(n, _)| *n > 0);
    let counted: Vec<String> = counted.map(|(n, name)| format!("{n} {name}")).collect();
    if counted.is_empty() { String::new() } else { format!(": {}", counted.join(", ")) }
}

impl<'o> Page<'o> {
    fn new(options: &'o TextOptions) -> Self {
        let current_dir = std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned();
        Self { out: String::new(), options, max_waits: stack_text::MAX_WAITS, current_dir }
    }

    fn head(&mut self, tasks: &[Task], groups: usize) {
        if let Some(selection) = &self.options.selection {
            self.line(0, selection);
        }
        let alike = count(groups, "distinct stack");
        self.line(0, &format!("{}, {alike}{}", count(tasks.len(), "task"), states(tasks)));
    }

    fn line(&mut self, depth: usize, text: &str) {
        let _infallible = writeln!(self.out, "{:1$}{text}", "", depth * 2);
    }

    fn stack(&mut self, stack: &[Frame], tasks: &[&Task], depth: usize) {
        let style = Style { full: self.options.full, waits: self.max_waits, current_dir: &self.current_dir };
        stack_text::write(&mut self.out, stack, tasks, depth, style);
    }

    fn group(&mut self, group: &Group<'_>) {
        let heading = heading(group, self.options);
        self.line(0, &heading);
        self.body(group);
    }

    fn body(&mut self, group: &Group<'_>) {
        let first = group.first;
        if let Some(place) = &first.spawned_at
            && group.tasks.iter().all(|task| task.spawned_at.as_ref() == Some(place))
        {
            self.line(1, &format!("spawned at {}", shorten(place, Some(&self.current_dir)).0));
        }
        if let Some(call) = &first.found_in {
            let guess = if call.guess { ", and a guess: recognised by its looks" } else { "" };
            let text = format!("driven {} (found on the stack of that thread{guess})", self.call(call));
            self.line(1, &text);
        }
        if let Some(completed) = &first.completed {
            let completed = std::slice::from_ref(completed.as_ref());
            self.stack(completed, &[], 1);
        }
        if first.stack.is_empty() && first.state != Some(TaskState::Complete) {
            self.line(1, "(no stack: its future could not be read)");
        }
        if !group.now.is_empty() {
            self.line(1, "now, innermost first:");
            group.now.iter().for_each(|line| self.line(2, line));
        }
        let begun = first.state == Some(TaskState::Running) && first.kind != TaskKind::Blocking;
        if begun {
            self.line(1, "begun or suspended last:");
        }
        let depth = if begun { 2 } else { 1 };
        let stack = match first.stack.as_ref() {
            [root] if !self.options.full && is_wrapper(root) => &root.children,
            stack => stack,
        };
        // What runs waits for nothing, but in what it drives itself.
        let tasks = if begun || !first.drives.is_empty() { &[] } else { group.tasks.as_slice() };
        self.stack(stack, tasks, depth);
        if let Some((innermost, outer)) = first.drives.split_last() {
            outer.iter().for_each(|driven| self.driven(driven, &[]));
            self.driven(innermost, &[first]);
        }
    }

    /// A future that the task drives by a call that blocks its thread; the `tasks` wait for what it waits for.
    fn driven(&mut self, driven: &Driven, tasks: &[&Task]) {
        let guess = if driven.call.guess { " (a guess: recognised by its looks)" } else { "" };
        self.line(1, &format!("drives, {}{guess}:", self.call(&driven.call)));
        self.stack(&driven.stack, tasks, 2);
    }

    /// `by tokio::sync::mutex::Mutex::blocking_lock, called in app::append at src/main.rs:9`.
    fn call(&self, call: &BlockingCall) -> String {
        let caller = call.caller.as_ref().map(|caller| {
            let place = match (&caller.file, caller.line) {
                (Some(file), Some(line)) => {
                    format!(" at {file}:{line}")
                }
                _ => String::new(),
            };
            format!(", called in {}{place}", caller.function)
        });
        format!("by {}{}", call.function, caller.unwrap_or_default())
    }
}

fn heading(group: &Group<'_>, options: &TextOptions) -> String {
    let first = group.first;
    let what = match (first.kind, &first.found_in) {
        (TaskKind::Main, Some(call)) => format!("a future that thread {} drives", call.thread),
        (TaskKind::Main, None) => "the main future".to_owned(),
        (kind, _) => {
            let noun = match kind {
                TaskKind::Blocking => "blocking task",
                TaskKind::Local => "local task",
                _ => "task",
            };
            match group.tasks.as_slice() {
                [one] => format!("{noun} {}", one.id),
                tasks => count(tasks.len(), noun),
            }
        }
    };
    let runtime = first.runtime.as_ref().map(|runtime| format!(", runtime {runtime}")).unwrap_or_default();
    let state = match first.state {
        Some(TaskState::Running) => format!(", running{}", on_threads(&group.tasks, options)),
        Some(TaskState::Scheduled) => ", woken, waiting for a worker".to_owned(),
        Some(TaskState::Complete) => ", complete, kept by its JoinHandle".to_owned(),
        Some(TaskState::Idle) | None => String::new(),
    };
    let ids = if group.tasks.len() > 1 { format!(": {}", ids(&group.tasks)) } else { String::new() };
    format!("{what}{runtime}{state}{}{ids}", waiting(group))
}

/// `, waiting for at least 42.0 s`.
fn waiting(group: &Group<'_>) -> String {
    let longest =
        group.tasks.iter().filter_map(|task| task.waiting).max_by_key(|waiting| waiting.at_least_ms);
    let which = if group.tasks.len() > 1 { "the longest " } else { "" };
    format::waiting(longest).map(|time| format!(", {which}waiting {time}")).unwrap_or_default()
}

/// ` on thread 25639 (tokio-rt-0)`.
fn on_threads(tasks: &[&Task], options: &TextOptions) -> String {
    let tids: Vec<i32> = tasks.iter().filter_map(|task| task.thread).collect();
    let name = |tid: &i32| match thread(options, *tid).filter(|thread| !thread.name.is_empty()) {
        Some(thread) => format!("{tid} ({})", thread.name),
        None => tid.to_string(),
    };
    let mut names: Vec<String> = tids.iter().take(MAX_IDS).map(name).collect();
    if tids.len() > MAX_IDS {
        names.push(format!("and {} more", tids.len() - MAX_IDS));
    }
    match tids.len() {
        0 => String::new(),
        1 => format!(" on thread {}", names.join(", ")),
        _ => format!(" on threads {}", names.join(", ")),
    }
}

/// What tokio puts around every task in a build with its task dump.
fn is_wrapper(frame: &Frame) -> bool {
    frame.function.starts_with("tokio::runtime::task::trace::Root<") && !frame.children.is_empty()
}

/// The first few, and how many more. tokio counts ids up: the smallest is the oldest task's. When a task was
/// spawned, nothing in memory tells.
fn ids(group: &[&Task]) -> String {
    let mut ids: Vec<u64> = group.iter().map(|task| task.id).collect();
    ids.sort_unstable();
    let shown = ids.iter().take(MAX_IDS).enumerate();
    let shown = shown.map(|(at, id)| if at == 0 { format!("{id} (oldest)") } else { id.to_string() });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if group.len() > MAX_IDS {
        let _infallible = write!(text, ", and {} more", group.len() - MAX_IDS);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::waits::fixtures;

    #[test]
    fn a_line_of_a_declaration_is_marked() {
        let mut task = fixtures::task(4, "app::run", 10);
        let mut stack = task.stack.to_vec();
        stack.iter_mut().for_each(|frame| frame.at_declaration = true);
        task.stack = Arc::from(stack);
        let text = text(&[task], &[], &TextOptions::default());
        assert!(text.contains("app::run, declared at src/main.rs:10"), "{text}");
    }
}
