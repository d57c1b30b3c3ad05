//! Which of the tasks an answer is about.

use std::fmt::{self, Write as _};

use super::format::thousands;
use super::json::name;
use crate::tasks::{Frame, Task, TaskKind, TaskState, WaitsOn};

/// What was asked for; a task is shown where all of it fits. The default fits every task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    ids: Option<Vec<u64>>,
    state: Option<TaskState>,
    kind: Option<TaskKind>,
    text: Option<String>,
}

/// A value that no task can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    #[error(
        "task is `{0}`, which is no list of task ids: write a number, or several with commas between them (0 is the main \
         future)"
    )]
    Task(String),
    #[error(
        "match is empty: write a part of a function's name, of a place in the source, of a kind of resource or of an address"
    )]
    EmptyMatch,
}

impl Filter {
    /// From the parameters `task`, `state`, `kind` and `match` of a request.
    pub(crate) fn parse(
        task: Option<&str>,
        state: Option<TaskState>,
        kind: Option<TaskKind>,
        text: Option<&str>,
    ) -> Result<Self, FilterError> {
        Ok(Self {
            ids: task.map(Self::ids).transpose()?,
            state,
            kind,
            text: match text {
                Some("") => return Err(FilterError::EmptyMatch),
                text => text.map(str::to_owned),
            },
        })
    }

    /// One task.
    #[cfg(feature = "dump")]
    pub(crate) fn of_task(id: u64) -> Self {
        Self { ids: Some(vec![id]), ..Self::default() }
    }

    /// The ids of tasks in a list: `17,18`.
    pub(crate) fn ids(list: &str) -> Result<Vec<u64>, FilterError> {
        let ids = list.split(',').map(|id| id.trim().parse()).collect::<Result<_, _>>();
        ids.map_err(|_| FilterError::Task(list.to_owned()))
    }

    /// Leaves those that fit, and says so in a sentence: `3 of 1,204 tasks match state=idle`. `None` where
    /// nothing was asked for.
    pub(crate) fn apply(&self, tasks: &mut Vec<Task>) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let total = tasks.len();
        let mut line = String::new();
        tasks.retain(|task| self.fits(task, &mut line));
        let noun = if total == 1 { "task" } else { "tasks" };
        Some(format!("{} of {} {noun} match {self}", thousands(tasks.len()), thousands(total)))
    }

    /// `line` is scratch space.
    fn fits(&self, task: &Task, line: &mut String) -> bool {
        let mut contains = |text: &str, what: fmt::Arguments<'_>| {
            line.clear();
            let _infallible = line.write_fmt(what);
            has(line.as_bytes(), text.as_bytes())
        };
        self.ids.as_ref().is_none_or(|ids| ids.contains(&task.id))
            && self.state.is_none_or(|state| task.state == Some(state))
            && self.kind.is_none_or(|kind| task.kind == kind)
            && self.text.as_ref().is_none_or(|text| {
                let mut contains = |what: fmt::Arguments<'_>| contains(text, what);
                let calls = task.drives.iter().map(|driven| &driven.call).chain(&task.found_in);
                let callers = calls.clone().filter_map(|call| call.caller.as_deref());
                let driven = task.drives.iter().flat_map(|driven| driven.stack.iter());
                let mut frames = task.stack.iter().chain(callers).chain(driven);
                frames.any(|frame| any_frame(frame, &mut contains))
                    || calls.clone().any(|call| contains(format_args!("{}", call.function)))
                    || task.spawned_at.as_ref().is_some_and(|place| contains(format_args!("{place}")))
                    || task.trace.as_ref().is_some_and(|trace| contains(format_args!("{trace}")))
                    || task.waits_on.iter().any(|waits| any_wait(waits, &mut contains))
            })
    }
}

/// Whether `text` contains `part`, ASCII letters in either case: names of others are rare.
fn has(text: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else { return true };
    memchr::memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), text)
        .any(|at| text.get(at..at + part.len()).is_some_and(|found| found.eq_ignore_ascii_case(part)))
}

/// As in a request, without what was not asked for: `state=idle match=sleep`.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(ids) = &self.ids {
            let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
            parts.push(format!("task={}", ids.join(",")));
        }
        parts.extend(self.state.map(|state| format!("state={}", name(&state))));
        parts.extend(self.kind.map(|kind| format!("kind={}", name(&kind))));
        parts.extend(self.text.as_ref().map(|text| format!("match={}", text.escape_debug())));
        f.write_str(&parts.join(" "))
    }
}

fn any_frame(frame: &Frame, contains: &mut impl FnMut(fmt::Arguments<'_>) -> bool) -> bool {
    contains(format_args!("{}", frame.function))
        || frame.carries.as_ref().is_some_and(|carries| contains(format_args!("{carries}")))
        || match (&frame.file, frame.line) {
            (Some(file), Some(line)) => contains(format_args!("{file}:{line}")),
            (Some(file), None) => contains(format_args!("{file}")),
            _ => false,
        }
        || frame.children.iter().any(|child| any_frame(child, contains))
}

fn any_wait(waits: &WaitsOn, contains: &mut impl FnMut(fmt::Arguments<'_>) -> bool) -> bool {
    contains(format_args!("{}", waits.kind.name()))
        || waits.address.is_some_and(|address| contains(format_args!("{address}")))
        || waits.io.as_ref().is_some_and(|io| {
            let texts = [&io.local, &io.peer, &io.state].into_iter().flatten();
            texts.into_iter().any(|text| contains(format_args!("{text}")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::ResourceKind;

    fn frame(function: &str, line: u32, children: Vec<Frame>) -> Frame {
        Frame {
            function: function.to_owned(),
            file: Some("src/main.rs".to_owned()),
            line: Some(line),
            children,
            ..Frame::default()
        }
    }

    fn task(id: u64, state: TaskState, function: &str) -> Task {
        Task {
            id,
            kind: if id == 0 { TaskKind::Main } else { TaskKind::Task },
            state: Some(state),
            spawned_at: Some(format!("src/spawn.rs:{id}:9").into()),
            stack: vec![frame("app::outer", 10, vec![frame(function, 20, Vec::new())])].into(),
            waits_on: vec![WaitsOn {
                kind: ResourceKind::ChannelRecv,
                address: Some(crate::model::Address::new(0xabc00 + id)),
                ..WaitsOn::default()
            }],
            ..Task::default()
        }
    }

    fn tasks() -> Vec<Task> {
        vec![
            task(0, TaskState::Idle, "app::main"),
            task(7, TaskState::Idle, "app::Server::handle"),
            task(8, TaskState::Running, "app::Server::handle"),
            task(70, TaskState::Complete, "app::beat"),
        ]
    }

    fn left(task: &str, state: &str, kind: &str, text: &str) -> Vec<u64> {
        let given = |value| Some(value).filter(|value: &&str| !value.is_empty());
        let state = given(state).map(|name| serde_json::from_value(name.into()).unwrap());
        let kind = given(kind).map(|name| serde_json::from_value(name.into()).unwrap());
        let filter = Filter::parse(given(task), state, kind, given(text)).unwrap();
        let mut tasks = tasks();
        filter.apply(&mut tasks);
        tasks.iter().map(|task| task.id).collect()
    }

    #[test]
    fn each_by_itself() {
        assert_eq!(left("", "", "", ""), [0, 7, 8, 70]);
        assert_eq!(left("7", "", "", ""), [7]);
        assert_eq!(left("70, 8,99", "", "", ""), [8, 70]);
        assert_eq!(left("", "running", "", ""), [8]);
        assert_eq!(left("", "", "main", ""), [0]);
        assert!(left("", "", "blocking", "").is_empty());
    }

    #[test]
    fn text_is_searched_for_everywhere() {
        assert_eq!(left("", "", "", "server::HANDLE"), [7, 8], "a frame below another, in either case");
        assert_eq!(left("", "", "", "main.rs:20"), [0, 7, 8, 70], "a place in a frame");
        assert!(left("", "", "", "main.rs:11").is_empty());
        assert_eq!(left("", "", "", "spawn.rs:70"), [70], "where it was spawned");
        assert_eq!(left("", "", "", "0xABC08"), [8], "an address");
        assert_eq!(left("", "", "", "channel_recv"), [0, 7, 8, 70], "a kind of resource");
        assert!(left("", "", "", "beat is far longer than any of the strings that are there").is_empty());
    }

    #[test]
    fn all_of_it_has_to_fit() {
        assert_eq!(left("7,8", "running", "task", "handle"), [8]);
        assert!(left("7,8", "complete", "task", "handle").is_empty());
    }

    #[test]
    fn the_sentence_says_what_was_left_out() {
        let filter = Filter::parse(Some("1,2"), Some(TaskState::Idle), None, Some("a\nb")).unwrap();
        let mut many = vec![task(1, TaskState::Idle, "a\nb"); 1204];
        assert_eq!(
            filter.apply(&mut many),
            Some("1,204 of 1,204 tasks match task=1,2 state=idle match=a\\nb".to_owned())
        );
        assert_eq!(Filter::default().apply(&mut many), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_right() {
        let error = |task, text| Filter::parse(task, None, None, text).unwrap_err().to_string();
        for list in ["", "x", "1,", "-1", "1;2", "99999999999999999999999"] {
            assert!(error(Some(list), None).contains(&format!("task is `{list}`")), "{list}");
        }
        assert!(error(None, Some("")).contains("match is empty"));
    }

    #[test]
    fn names_are_those_of_json() {
        for kind in [ResourceKind::ChannelRecv, ResourceKind::Rwlock, ResourceKind::Io, ResourceKind::Unknown]
        {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        for state in [TaskState::Idle, TaskState::Scheduled, TaskState::Running, TaskState::Complete] {
            let filter = Filter::parse(None, Some(state), None, None).unwrap();
            assert_eq!(serde_json::to_value(state).unwrap(), filter.to_string().replace("state=", ""));
        }
        for kind in [TaskKind::Task, TaskKind::Main, TaskKind::Local, TaskKind::Blocking] {
            let filter = Filter::parse(None, None, Some(kind), None).unwrap();
            assert_eq!(serde_json::to_value(kind).unwrap(), filter.to_string().replace("kind=", ""));
        }
    }
}
