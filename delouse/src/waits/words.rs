//! Tasks, places and numbers in the words that findings share.

use std::sync::LazyLock;
use std::time::Duration;

use crate::debuginfo::symbols::shorten;
use crate::tasks::{Frame, Origin, Task};
use crate::threads::{StackFrame, ThreadStack};

/// Where the program ran when it was first asked: a call of the kernel for each of a hundred thousand places takes
/// its time.
static HERE: LazyLock<Option<String>> =
    LazyLock::new(|| std::env::current_dir().ok()?.into_os_string().into_string().ok());

/// Ids that are listed before "and N more".
const LISTED: usize = 8;

/// `file:line` as people know it, relative to where the program runs.
pub(crate) fn place(file: &str, line: Option<u32>) -> String {
    let short = shorten(file, HERE.as_deref()).0;
    line.map_or(short.clone(), |line| format!("{short}:{line}"))
}

/// A task in a sentence.
pub(crate) fn name(id: u64) -> String {
    if id == 0 { "the main future".to_owned() } else { format!("task {id}") }
}

/// A task among others.
pub(crate) fn short(id: u64) -> String {
    if id == 0 { "main".to_owned() } else { id.to_string() }
}

/// `task 12 (app::transfer at src/main.rs:31)`.
pub(crate) fn task(task: &Task) -> String {
    let name = name(task.id);
    match user_frame(&task.stack) {
        Some(frame) => format!("{name} ({})", frame_at(frame)),
        None => name,
    }
}

/// `function at file:line`; with what a library's future carries in front.
pub(crate) fn frame_at(frame: &Frame) -> String {
    let carries = frame.carries.as_ref().map(|carries| format!("{carries}, in ")).unwrap_or_default();
    match &frame.file {
        Some(file) => {
            let at = if frame.at_declaration { ", declared at" } else { " at" };
            format!("{carries}{}{at} {}", frame.function, place(file, frame.line))
        }
        None => format!("{carries}{}", frame.function),
    }
}

/// The innermost frame of the program's own that all branches of the stack have in common; the outermost one at
/// all where there is none of its own.
pub(crate) fn user_frame(stack: &[Frame]) -> Option<&Frame> {
    let mut found = None;
    let mut level = stack;
    while let [frame] = level {
        if frame.origin == Origin::User {
            found = Some(frame);
        }
        level = &frame.children;
    }
    // A branch of its own below tells more than the `select!` above only where it is the only one.
    let mut own = level.iter().filter_map(|branch| user_frame(std::slice::from_ref(branch)));
    match (own.next().filter(|frame| frame.origin == Origin::User), own.next()) {
        (Some(only), None) => Some(only),
        _ => found.or_else(|| stack.first()),
    }
}

/// The program's own line on a thread's stack, `function at file:line`, and the foreign function that it called.
pub(crate) fn own_line(thread: &ThreadStack) -> Option<(String, Option<&str>)> {
    let at = thread.frames.iter().position(|frame| frame.own)?;
    let own = thread.frames.get(at)?;
    let called = at.checked_sub(1).and_then(|inner| thread.frames.get(inner));
    Some((stack_frame_at(own), called.and_then(|frame| frame.function.as_deref())))
}

/// Frames of the program's own on one stack that are told.
const OWN: usize = 4;

/// The program's own part of a thread's stack, innermost first; `None` where it is one function.
pub(crate) fn own_path(thread: &ThreadStack) -> Option<String> {
    let own: Vec<String> =
        thread.frames.iter().filter(|frame| frame.own).take(OWN).map(stack_frame_at).collect();
    (own.len() > 1).then(|| own.join(", called by "))
}

fn stack_frame_at(frame: &StackFrame) -> String {
    // The body of an `async fn` is a closure to the symbol table: its author knows it by the function's name.
    let function = frame.function.as_deref().unwrap_or(&frame.address).trim_end_matches("::{{closure}}");
    match &frame.file {
        Some(file) => format!("{function} at {}", place(file, frame.line)),
        None => function.to_owned(),
    }
}

/// `task 7`, `tasks 7, 9, 12 and 4 more`.
pub(crate) fn ids(ids: &[u64]) -> String {
    let listed: Vec<String> = ids.iter().take(LISTED).map(|id| short(*id)).collect();
    match ids.len() {
        1 if ids.contains(&0) => name(0),
        1 => format!("task {}", listed.concat()),
        n if n > LISTED => format!("tasks {} and {} more", listed.join(", "), n - LISTED),
        _ => format!("tasks {}", listed.join(", ")),
    }
}

/// `90 tasks (tasks 1, 2, 3 and 87 more)`, of which only some ids may be known.
pub(crate) fn many(count: usize, some: &[u64]) -> String {
    let listed: Vec<String> = some.iter().take(LISTED).map(|id| short(*id)).collect();
    let more = count.saturating_sub(listed.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{count} tasks ({}{more})", listed.join(", "))
}

/// `1 task`, `2 tasks`.
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `looked twice, 150 ms apart`.
pub(crate) fn looked(times: usize, apart: &str) -> String {
    match times {
        2 => format!("looked twice, {apart} apart"),
        times => format!("looked {times} times in {apart}"),
    }
}

/// `150 ms`, `2.0 s`, `3 min 5 s`.
pub(crate) fn span(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms @ 1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        ms => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}
