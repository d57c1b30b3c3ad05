//! Which of the tasks an answer is about.

use std::fmt::{self, Write as _};

use crate::tasks::{Frame, ResourceKind, Task, TaskKind, TaskState, WaitsOn};

/// What was asked for; a task is shown where all of it fits. The default fits every task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    ids: Option<Vec<u64>>,
    state: Option<TaskState>,
    kind: Option<TaskKind>,
    text: Option<String>,
}

/// A value that no task can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FilterError {
    Task(String),
    State(String),
    Kind(String),
    EmptyMatch,
}

const STATES: [(&str, TaskState); 4] = [
    ("idle", TaskState::Idle),
    ("scheduled", TaskState::Scheduled),
    ("running", TaskState::Running),
    ("complete", TaskState::Complete),
];

const KINDS: [(&str, TaskKind); 4] = [
    ("task", TaskKind::Task),
    ("main", TaskKind::Main),
    ("local", TaskKind::Local),
    ("blocking", TaskKind::Blocking),
];

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(value) => write!(
                f,
                "task is `{value}`, which is no list of task ids: write a number, or several with commas \
                 between them (0 is the main future)"
            ),
            Self::State(value) => write!(f, "there is no state `{value}`: use {}", names(&STATES)),
            Self::Kind(value) => write!(
                f,
                "there is no kind `{value}`: use {}; by what they wait for, tasks are chosen with match=",
                names(&KINDS)
            ),
            Self::EmptyMatch => f.write_str(
                "match is empty: write a part of a function's name, of a place in the source, of a kind of \
                 resource or of an address",
            ),
        }
    }
}

/// `a, b or c`.
fn names<T>(all: &[(&str, T)]) -> String {
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    names.split_last().map_or_else(String::new, |(last, rest)| format!("{} or {last}", rest.join(", ")))
}

fn named<T: Copy>(all: &[(&str, T)], name: &str) -> Option<T> {
    all.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

impl Filter {
    /// From the parameters `task`, `state`, `kind` and `match` of a request.
    pub(crate) fn parse(
        task: Option<&str>,
        state: Option<&str>,
        kind: Option<&str>,
        text: Option<&str>,
    ) -> Result<Self, FilterError> {
        let id = |list: &str| list.split(',').map(|id| id.trim().parse()).collect::<Result<_, _>>().ok();
        Ok(Self {
            ids: task.map(|list| id(list).ok_or_else(|| FilterError::Task(list.to_owned()))).transpose()?,
            state: state
                .map(|name| named(&STATES, name).ok_or_else(|| FilterError::State(name.to_owned())))
                .transpose()?,
            kind: kind
                .map(|name| named(&KINDS, name).ok_or_else(|| FilterError::Kind(name.to_owned())))
                .transpose()?,
            text: match text {
                Some("") => return Err(FilterError::EmptyMatch),
                text => text.map(str::to_owned),
            },
        })
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
        let state = STATES.iter().find(|(_, state)| Some(*state) == self.state);
        parts.extend(state.map(|(name, _)| format!("state={name}")));
        let kind = KINDS.iter().find(|(_, kind)| Some(*kind) == self.kind);
        parts.extend(kind.map(|(name, _)| format!("kind={name}")));
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
    contains(format_args!("{}", kind_name(waits.kind)))
        || waits.address.is_some_and(|address| contains(format_args!("{address}")))
        || waits.io.as_ref().is_some_and(|io| {
            let texts = [&io.local, &io.peer, &io.state].into_iter().flatten();
            texts.into_iter().any(|text| contains(format_args!("{text}")))
        })
}

/// As in JSON.
fn kind_name(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Timer => "timer",
        ResourceKind::Mutex => "mutex",
        ResourceKind::Rwlock => "rwlock",
        ResourceKind::Semaphore => "semaphore",
        ResourceKind::ChannelRecv => "channel_recv",
        ResourceKind::ChannelSend => "channel_send",
        ResourceKind::Oneshot => "oneshot",
        ResourceKind::Watch => "watch",
        ResourceKind::Broadcast => "broadcast",
        ResourceKind::Notify => "notify",
        ResourceKind::Closed => "closed",
        ResourceKind::Barrier => "barrier",
        ResourceKind::OnceCell => "once_cell",
        ResourceKind::SetOnce => "set_once",
        ResourceKind::Cancellation => "cancellation",
        ResourceKind::Signal => "signal",
        ResourceKind::Process => "process",
        ResourceKind::Http2Stream => "http2_stream",
        ResourceKind::Never => "never",
        ResourceKind::Join => "join",
        ResourceKind::Lock => "lock",
        ResourceKind::Thread => "thread",
        ResourceKind::Io => "io",
        ResourceKind::Unknown => "unknown",
    }
}

/// `1,204`.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
            runtime: None,
            state: Some(state),
            thread: None,
            spawned_at: Some(format!("src/spawn.rs:{id}:9").into()),
            stack: vec![frame("app::outer", 10, vec![frame(function, 20, Vec::new())])].into(),
            waits_on: vec![WaitsOn {
                kind: ResourceKind::ChannelRecv,
                address: Some(crate::Address(0xabc00 + id)),
                ..WaitsOn::default()
            }],
            trace: None,
            drives: Vec::new(),
            found_in: None,
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
        let filter = Filter::parse(given(task), given(state), given(kind), given(text)).unwrap();
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
        let filter = Filter::parse(Some("1,2"), Some("idle"), None, Some("a\nb")).unwrap();
        let mut many = vec![task(1, TaskState::Idle, "a\nb"); 1204];
        assert_eq!(
            filter.apply(&mut many),
            Some("1,204 of 1,204 tasks match task=1,2 state=idle match=a\\nb".to_owned())
        );
        assert_eq!(Filter::default().apply(&mut many), None);
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_right() {
        let error = |t, s, k, m| Filter::parse(t, s, k, m).unwrap_err().to_string();
        for list in ["", "x", "1,", "-1", "1;2", "99999999999999999999999"] {
            assert!(error(Some(list), None, None, None).contains(&format!("task is `{list}`")), "{list}");
        }
        let told = error(None, Some("asleep"), None, None);
        assert_eq!(told, "there is no state `asleep`: use idle, scheduled, running or complete");
        let told = error(None, None, Some("Task"), None);
        assert_eq!(
            told,
            "there is no kind `Task`: use task, main, local or blocking; by what they wait for, tasks are chosen with match="
        );
        assert!(error(None, None, None, Some("")).contains("match is empty"));
    }

    #[test]
    fn names_are_those_of_json() {
        for kind in [ResourceKind::ChannelRecv, ResourceKind::Rwlock, ResourceKind::Io, ResourceKind::Unknown]
        {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind_name(kind));
        }
        for (name, state) in STATES {
            assert_eq!(serde_json::to_value(state).unwrap(), name);
        }
        for (name, kind) in KINDS {
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
        }
    }
}
