//! Derives a thread's role and activity from the functions on its stack (see [`super::activities`]).

use super::activities::{
    DRIVERS, HANDLE_BLOCK_ON, NO_RUNNERS, RAW_CALLERS, RULES, RUNNERS, RUNTIME_BLOCK_ON, Rule,
};
use super::{Activity, SIGNAL_FRAME, StackFrame, ThreadRole, ThreadStack};
use crate::snapshot::OwnThread;

/// The thread's role. Its name is used only if its stack has no function names.
pub(crate) fn role(name: &str, frames: &[StackFrame]) -> ThreadRole {
    if OwnThread::is_name(name) {
        return ThreadRole::Delouse;
    }
    let mut role = ThreadRole::Other;
    let mut named = false;
    for path in frames.iter().filter_map(path) {
        named |= path.contains("::");
        if matches(&path, "tokio::runtime::scheduler::multi_thread::worker::run*") {
            // tokio starts workers on the pool for blocking calls, so that both functions are on their stacks.
            return ThreadRole::TokioWorker;
        } else if matches(&path, "tokio::runtime::blocking::pool::run") {
            role = ThreadRole::TokioBlocking;
        } else if any(&path, RUNTIME_BLOCK_ON)
            || matches(&path, HANDLE_BLOCK_ON)
            || matches(&path, "tokio::runtime::context::runtime::enter_runtime")
        {
            role = ThreadRole::TokioBlockOn;
        }
    }
    // tokio's default names, truncated to 15 bytes. Workers and blocking threads have the same name.
    if !named && (name.starts_with("tokio-rt-worker") || name.starts_with("tokio-runtime-w")) {
        return ThreadRole::TokioWorker;
    }
    role
}

/// The execution state of a captured thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition {
    /// Its program counter is at a system call instruction.
    pub(crate) in_syscall: bool,
    /// It runs on a processor or is ready to run.
    pub(crate) on_processor: bool,
    /// The arguments of its system call are those of a wait on a futex.
    pub(crate) on_futex: bool,
}

/// The thread's activity.
pub(crate) fn activity(role: ThreadRole, frames: &[StackFrame], condition: Condition) -> Activity {
    if frames.is_empty() {
        return Activity::Unknown;
    }
    let waits = condition.in_syscall && !condition.on_processor;
    match wait(role, frames) {
        // A thread may spin while it waits for a lock.
        Some(Activity::Lock) => Activity::Lock,
        Some(activity) if waits => activity,
        // A thread whose system call has returned does not wait, whatever its functions are called.
        None if waits && condition.on_futex => Activity::Futex,
        None if waits => Activity::Syscall,
        _ => Activity::Running,
    }
}

/// The wait that the functions on a stack mean; `None` if none of them is known.
fn wait(role: ThreadRole, frames: &[StackFrame]) -> Option<Activity> {
    let called = called(frames);
    let mut found = None;
    // From the innermost frame outwards: the outermost name is the most specific (`recv`, then `park`, then `futex`).
    for frame in called {
        let Some(path) = path(frame) else { continue };
        let rule = RULES.iter().find(|rule| rule.fits(&path, found));
        found = rule.map(|rule| rule.activity).or(found);
    }
    let any_path = |frames: &[StackFrame], patterns: &[&str]| {
        frames.iter().filter_map(path).any(|path| any(&path, patterns))
    };
    match found {
        Some(Activity::BlockOn)
            if any_path(called, RUNTIME_BLOCK_ON)
                && !any_path(called, &[HANDLE_BLOCK_ON])
                && !is_nested(frames) =>
        {
            Some(Activity::Idle)
        }
        // An unused thread of the pool for blocking calls.
        Some(Activity::Condvar)
            if role == ThreadRole::TokioBlocking
                && !any_path(frames, &["tokio::runtime::blocking::task::*"])
                && !frames.iter().any(|frame| frame.own) =>
        {
            Some(Activity::Idle)
        }
        found => found,
    }
}

impl Rule {
    fn fits(&self, path: &str, found: Option<Activity>) -> bool {
        // glibc's internal names: `__GI___clock_nanosleep`, `__libc_read`.
        let bare = path.trim_start_matches("__GI_").trim_start_matches('_').trim_start_matches("libc_");
        let last = path.rsplit("::").next().filter(|_| path.starts_with(RAW_CALLERS));
        let fits = |pattern: &&str| {
            matches(path, pattern)
                || (!path.contains("::") && matches(bare, pattern))
                || last.is_some_and(|last| matches(last, pattern))
        };
        let within = self.within.is_empty() || found.is_some_and(|found| self.within.contains(&found));
        within && self.patterns.iter().any(fits)
    }
}

/// The inner frames of a stack, up to the program's own code or to a function that polls a future. Only these tell what
/// the thread waits for.
fn called(frames: &[StackFrame]) -> &[StackFrame] {
    let end = frames
        .iter()
        .position(|frame| frame.own || frame.function.as_deref() == Some(SIGNAL_FRAME) || is_runner(frame));
    frames.get(..end.unwrap_or(frames.len())).unwrap_or_default()
}

/// Whether a function polls a future, or runs a job of a pool.
fn is_runner(frame: &StackFrame) -> bool {
    path(frame).is_some_and(|path| any(&path, RUNNERS) && !any(&path, NO_RUNNERS))
}

/// Whether the innermost `block_on` of a thread is called from another future or from a task.
pub(crate) fn is_nested(frames: &[StackFrame]) -> bool {
    let outside = frames.get(called(frames).len()..).unwrap_or_default();
    outside.iter().filter_map(path).any(|path| any(&path, DRIVERS))
}

/// Whether a thread waits in its outermost `block_on`, so that the future that it drives is not being polled.
pub(crate) fn rests(thread: &ThreadStack) -> bool {
    thread.activity == Activity::Idle || thread.activity == Activity::BlockOn && !is_nested(&thread.frames)
}

/// Whether no future that a thread drives by `block_on` is being polled. False if there is no such thread.
pub(crate) fn mains_rest(threads: &[ThreadStack]) -> bool {
    let mut mains = threads.iter().filter(|thread| thread.role == ThreadRole::TokioBlockOn).peekable();
    mains.peek().is_some() && mains.all(rests)
}

fn any(path: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| matches(path, pattern))
}

/// Whether `path` matches `pattern`.
fn matches(path: &str, pattern: &str) -> bool {
    let (first, others) = pattern.split_once('*').map_or((pattern, None), |(f, o)| (f, Some(o)));
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let Some(others) = others else { return rest.is_empty() };
    let (middle, last) = others.rsplit_once('*').map_or(("", others), |(m, l)| (m, l));
    let Some(before) = rest.strip_suffix(last) else { return false };
    rest = before;
    for part in middle.split('*') {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

/// The path of a frame's function by modules, without types: `tokio::runtime::park::park` for
/// `<tokio::runtime::park::Inner>::park`, because types change between versions. With line tables only, DWARF has only the
/// name `park` for inlined functions; then the modules are derived from the source file.
fn path(frame: &StackFrame) -> Option<String> {
    let path = plain(frame.function.as_deref()?);
    if !path.contains("::")
        && let Some(modules) = frame.file.as_deref().and_then(modules)
    {
        return Some(format!("{modules}::{path}"));
    }
    let is_type = |part: &str| part.starts_with(|c: char| c.is_ascii_uppercase());
    Some(path.split("::").filter(|part| !is_type(part)).collect::<Vec<_>>().join("::"))
}

/// The module of a shortened source path: `tokio::runtime::park` for `tokio-1.54.1/src/runtime/park.rs`.
fn modules(file: &str) -> Option<String> {
    let (package, inside) = file.strip_suffix(".rs")?.split_once("/src/")?;
    let is_version = |v: &str| v.starts_with(|c: char| c.is_ascii_digit());
    let name = package.rsplit_once('-').filter(|(_, v)| is_version(v)).map_or(package, |(name, _)| name);
    let inside = inside.strip_suffix("/mod").unwrap_or(inside).replace('/', "::");
    Some(format!("{}::{inside}", name.replace('-', "_")))
}

/// A function's path without generic arguments, and with `T::f` for `<T as Trait>::f`. The result is the same for both of
/// rustc's mangling schemes.
pub(crate) fn plain(function: &str) -> String {
    let mut path = String::with_capacity(function.len());
    let mut stack: Vec<bool> = Vec::new();
    let mut previous = ' ';
    for (at, c) in function.char_indices() {
        let shown = stack.iter().all(|&shown| shown);
        match c {
            '<' => {
                // At the start of a path: `<T as Trait>` or `<T>`. Elsewhere: generic arguments.
                let qualified = shown && (path.is_empty() || path.ends_with(['&', ' ', '(']));
                stack.push(qualified);
                if !qualified && shown && path.ends_with("::") {
                    path.truncate(path.len() - 2);
                }
            }
            '>' if previous != '-' => {
                stack.pop();
            }
            ' ' if shown
                && !stack.is_empty()
                && function.get(at..).is_some_and(|rest| rest.starts_with(" as ")) =>
            {
                if let Some(top) = stack.last_mut() {
                    *top = false;
                }
            }
            _ if shown => path.push(c),
            _ => {}
        }
        previous = c;
    }
    path
}

#[cfg(test)]
mod tests;
