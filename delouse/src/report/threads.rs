//! `/stacktrace/rust` as text: worst first, the same stack once, the program's own line marked, the rest
//! folded.

mod thread_groups;

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::activities::doing;
use super::format::{FULL_HINT, count, duration};
use super::formats::{FOLDED, PPROF, Renderer, Renders};
use super::profile::{self, Profile};
use crate::snapshot::Capture;
use crate::threads::SIGNAL_FRAME;
use crate::threads::{Activity, StackFrame, ThreadRole, ThreadStack};
pub use thread_groups::{ThreadGroup, ThreadSummary};

/// Every OS thread of the process.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct ThreadsAnswer {
    /// All of it as text for people: worst first, identical stacks in groups. With `groups`, only how many there are.
    pub stacktrace: String,
    /// How the capture went.
    pub capture: Capture,
    /// With `?groups=true`, instead of `threads`: the threads in groups of equal stacks, worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ThreadGroup>,
    /// The threads, ordered by id.
    pub threads: Vec<ThreadStack>,
}

impl Renders for ThreadsAnswer {
    const RENDERERS: &'static [Renderer<Self>] = &[
        Renderer::JSON,
        Renderer::TEXT,
        Renderer {
            format: FOLDED,
            render: |answer| Ok(profile::folded(&Profile::of_threads(&answer.threads)).into()),
        },
        Renderer {
            format: PPROF,
            render: |answer| profile::document(&Profile::of_threads(&answer.threads), "threadcreate"),
        },
    ];

    fn text(&self) -> String {
        self.stacktrace.clone()
    }
}

impl ThreadsAnswer {
    /// `full` for text that leaves out nothing.
    pub(crate) fn new((threads, capture): (Vec<ThreadStack>, Capture), full: bool) -> Self {
        Self { stacktrace: text(&threads, &capture, full), capture, groups: Vec::new(), threads }
    }

    /// Groups instead of threads.
    pub(crate) fn group(&mut self, full: bool) {
        let mut stacktrace = String::new();
        head(&mut stacktrace, &self.threads, &self.capture);
        self.groups = groups(&self.threads).iter().map(|group| ThreadGroup::of(group, full)).collect();
        self.stacktrace = stacktrace;
        self.threads = Vec::new();
    }
}

/// Runs of foreign frames up to this length are shown.
const SHORT_RUN: usize = 2;
/// Thread ids of one group that are listed.
const LISTED: usize = 8;
/// Functions' names are cut here unless all is asked for: those of adapters around futures fill screens.
const NAME: usize = 160;

/// Marks a frame that was found by a search.
const GUESS: &str = " (a guess: the code of the frame above has no unwind tables)";

/// The answer as text. `full` shows every frame with its address.
pub(crate) fn text(threads: &[ThreadStack], capture: &Capture, full: bool) -> String {
    let mut out = String::new();
    head(&mut out, threads, capture);
    let (ours, theirs): (Vec<_>, Vec<_>) =
        groups(threads).into_iter().partition(|group| group.example.role == ThreadRole::Delouse && !full);
    for group in &theirs {
        group_text(&mut out, group, full);
    }
    let ours = ours.iter().map(|group| group.threads.len()).sum();
    if ours > 0 {
        let _ = writeln!(out, "\n{} of delouse itself {FULL_HINT}", count(ours, "thread"));
    }
    if !capture.notes.is_empty() {
        out.push_str("\nNotes:\n");
        for note in &capture.notes {
            let _ = writeln!(out, "  {note}");
        }
    }
    out
}

fn head(out: &mut String, threads: &[ThreadStack], capture: &Capture) {
    let _ = write!(out, "{}", count(threads.len(), "thread"));
    let unavailable = threads.iter().filter(|t| t.unavailable.is_some()).count();
    if unavailable > 0 {
        let _ = write!(out, ", {unavailable} without a stack");
    }
    if capture.pause_us > 0 {
        let _ = write!(out, ", paused for {}", duration(Duration::from_micros(capture.pause_us)));
    }
    out.push_str(if capture.consistent {
        ", all at one moment\n"
    } else {
        ", each at a moment of its own\n"
    });
}

/// Threads that do the same at the same place.
struct Group<'a> {
    threads: Vec<&'a ThreadStack>,
    /// The first one's.
    example: &'a ThreadStack,
}

/// What makes two stacks the same: everything that is shown of them.
type Key<'a> = (ThreadRole, Activity, [Option<&'a str>; 2], Vec<Place<'a>>);

/// Function, or address where it has no name; file; line.
type Place<'a> = (&'a str, Option<&'a str>, Option<u32>);

fn place(frame: &StackFrame) -> Place<'_> {
    (frame.function.as_deref().unwrap_or(&frame.address), frame.file.as_deref(), frame.line)
}

fn groups(threads: &[ThreadStack]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut by_key: HashMap<Key<'_>, usize> = HashMap::new();
    for thread in threads {
        let key = (
            thread.role,
            thread.activity,
            [thread.unavailable.as_deref(), thread.kernel.as_deref()],
            thread.frames.iter().map(place).collect(),
        );
        let at = *by_key.entry(key).or_insert_with(|| {
            groups.push(Group { threads: Vec::new(), example: thread });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(at) {
            group.threads.push(thread);
        }
    }
    groups.sort_by_key(|g| {
        let cpu = g.threads.iter().filter_map(|t| t.cpu_us).max();
        (rank(g.example), std::cmp::Reverse((g.threads.len(), cpu)))
    });
    groups
}

/// The worse, the lower.
fn rank(thread: &ThreadStack) -> u8 {
    let own = thread.frames.iter().any(|f| f.own);
    let worker = thread.role == ThreadRole::TokioWorker;
    match thread.activity {
        _ if thread.role == ThreadRole::Delouse => 9,
        Activity::Idle => 8,
        Activity::Running if own => 0,
        Activity::Lock | Activity::AsyncLock | Activity::Once if own => 1,
        Activity::Unknown => 4,
        // A worker that waits for anything but work keeps its other tasks waiting.
        _ if own && worker => 2,
        Activity::Running => 3,
        Activity::Lock | Activity::AsyncLock | Activity::Once => 5,
        _ if own => 6,
        _ => 7,
    }
}

/// `waiting for a lock on a tokio worker`.
fn doing_what(thread: &ThreadStack) -> String {
    let mut what = doing(thread.activity).now();
    match thread.role {
        ThreadRole::Delouse => what.push_str(" (delouse's own)"),
        ThreadRole::TokioWorker if thread.activity == Activity::Idle => what.push_str(" (tokio worker)"),
        ThreadRole::TokioWorker => what.push_str(" on a tokio worker"),
        ThreadRole::TokioBlocking => what.push_str(" (tokio's pool for blocking calls)"),
        ThreadRole::TokioBlockOn if thread.activity != Activity::BlockOn => what.push_str(" (in block_on)"),
        ThreadRole::TokioBlockOn => {}
        ThreadRole::Other => {}
    }
    what
}

fn group_text(out: &mut String, group: &Group<'_>, full: bool) {
    let _ = writeln!(out, "\n{} {}", count(group.threads.len(), "thread"), doing_what(group.example));
    for thread in group.threads.iter().take(LISTED) {
        let _ = write!(out, "  {}", thread.tid);
        if !thread.name.is_empty() {
            let _ = write!(out, " {}", thread.name);
        }
        if let Some(state) = &thread.state {
            let _ = write!(out, ", {state}");
        }
        if let Some(cpu) = thread.cpu_us {
            // User and system time are each rounded down to the kernel's ticks of 10 ms.
            let cpu = if cpu == 0 { "under 20 ms".to_owned() } else { duration(Duration::from_micros(cpu)) };
            let _ = write!(out, ", {cpu} of processor time");
        }
        if let Some(task) = thread.runs_task {
            let _ = write!(out, ", polls task {task}");
        }
        out.push('\n');
    }
    if group.threads.len() > LISTED {
        let rest: Vec<_> = group.threads.iter().skip(LISTED).take(100).map(|t| t.tid.to_string()).collect();
        let _ = writeln!(out, "  and {}: {}", group.threads.len() - LISTED, rest.join(" "));
    }
    stack_text(out, group.example, full);
}

fn stack_text(out: &mut String, thread: &ThreadStack, full: bool) {
    if let Some(reason) = &thread.unavailable {
        let _ = writeln!(out, "    no stack: {reason}");
        if let Some(kernel) = &thread.kernel {
            let _ = writeln!(out, "    it sleeps in {kernel}");
        }
    }
    if full {
        let mut repeats = Repeats::default();
        for frame in &thread.frames {
            if !repeats.again(out, frame) {
                frame_text(out, frame, own_mark(thread, frame), true);
            }
        }
        repeats.end(out);
    } else {
        folded(out, thread);
    }
    if let Some(why) = &thread.truncated {
        let _ = writeln!(out, "      … {why}");
    }
}

/// The innermost frame of the program's own code gets the mark.
fn own_mark(thread: &ThreadStack, frame: &StackFrame) -> bool {
    thread.frames.iter().find(|f| f.own).is_some_and(|own| std::ptr::eq(own, frame))
}

/// Own frames, the call that each of them made, and a line for what is left out between them.
fn folded(out: &mut String, thread: &ThreadStack) {
    let has_own = thread.frames.iter().any(|f| f.own);
    let mut run: Vec<&StackFrame> = Vec::new();
    let mut folds = 0;
    let mut repeats = Repeats::default();
    for frame in &thread.frames {
        if repeats.again(out, frame) {
            continue;
        }
        let is_signal = frame.function.as_deref() == Some(SIGNAL_FRAME);
        if !frame.own && !is_signal {
            run.push(frame);
            continue;
        }
        // The last one before own code is what that called.
        if run.len() <= SHORT_RUN {
            run.iter().for_each(|f| frame_text(out, f, false, false));
        } else if let Some((callee, inner)) = run.split_last() {
            fold(out, inner, &mut folds);
            frame_text(out, callee, false, false);
        }
        run.clear();
        frame_text(out, frame, own_mark(thread, frame), false);
    }
    repeats.end(out);
    // Without own code, the innermost frames say what there is to say.
    let shown = match thread.activity {
        _ if has_own => 0,
        Activity::Idle => 1,
        _ => SHORT_RUN + 1,
    };
    run.iter().take(shown).for_each(|f| frame_text(out, f, false, false));
    match run.get(shown..) {
        Some([single]) => frame_text(out, single, false, false),
        Some(rest) => fold(out, rest, &mut folds),
        None => {}
    }
}

/// A recursion is one line and a number.
#[derive(Default)]
struct Repeats<'a> {
    last: Option<Place<'a>>,
    times: usize,
}

impl<'a> Repeats<'a> {
    /// Whether `frame` is the program's own and the same as the one before.
    fn again(&mut self, out: &mut String, frame: &'a StackFrame) -> bool {
        let this = Some(place(frame)).filter(|_| frame.own);
        if this.is_some() && this == self.last {
            self.times += 1;
            return true;
        }
        self.end(out);
        self.last = this;
        false
    }

    fn end(&mut self, out: &mut String) {
        if self.times > 0 {
            let _ = writeln!(
                out,
                "      … the same {} more",
                if self.times == 1 { "once".to_owned() } else { format!("{} times", self.times) }
            );
        }
        self.times = 0;
    }
}

fn fold(out: &mut String, frames: &[&StackFrame], folds: &mut usize) {
    if frames.is_empty() {
        return;
    }
    let mut crates: Vec<&str> = Vec::new();
    for name in frames.iter().map(|f| crate_of(f)) {
        if !crates.contains(&name) {
            crates.push(name);
        }
    }
    let more = if crates.len() > 4 { ", …" } else { "" };
    crates.truncate(4);
    let hint = if *folds == 0 { format!(" {FULL_HINT}") } else { String::new() };
    *folds += 1;
    let _ = writeln!(out, "      … {} of {}{more}{hint}", count(frames.len(), "frame"), crates.join(", "));
}

fn frame_text(out: &mut String, frame: &StackFrame, mark: bool, full: bool) {
    out.push_str(if mark { "    → " } else { "      " });
    if full {
        let _ = write!(out, "{} ", frame.address);
    }
    let function = frame.function.as_deref().unwrap_or(&frame.address);
    match function.char_indices().nth(NAME).filter(|_| !full) {
        Some((end, _)) => {
            let _ = write!(out, "{}…", function.get(..end).unwrap_or(function));
        }
        None => out.push_str(function),
    }
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => {
            let _ = write!(out, " at {file}:{line}");
        }
        (Some(file), None, _) => {
            let _ = write!(out, " at {file}");
        }
        (None, _, Some(module)) if !function.starts_with(module.as_str()) => {
            let _ = write!(out, " in {module}");
        }
        _ => {}
    }
    if frame.guessed {
        out.push_str(GUESS);
    }
    out.push('\n');
}

/// The crate or library that a frame's code comes from, as short as it goes.
fn crate_of(frame: &StackFrame) -> &str {
    if let Some(file) = &frame.file
        && let Some((first, _)) =
            file.split_once('/').filter(|(first, _)| !matches!(*first, "src" | "." | ".." | ""))
    {
        // `tokio-1.54.1` is tokio.
        let version = first
            .rfind('-')
            .filter(|&at| first.get(at + 1..).is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit())));
        return version.and_then(|at| first.get(..at)).unwrap_or(first);
    }
    let function = frame.function.as_deref().unwrap_or_default().trim_start_matches(['<', '&']);
    match function.split_once("::") {
        // rustc's own, without a file: the frame of `catch_unwind`, the start of a panic.
        _ if function.starts_with("__rust") => "std",
        Some((root, _)) if root.chars().all(|c| c.is_alphanumeric() || c == '_') => root,
        _ => frame.module.as_deref().unwrap_or("unknown code"),
    }
}

#[cfg(test)]
mod tests;
