//! What a thread is there for and what it is doing, by the functions on its stack.
//!
//! Function paths are those of std 1.88 to 1.95, tokio 1.40 to 1.54, parking_lot 0.12, crossbeam-channel
//! 0.5, rayon-core 1.12 and glibc. One that has been renamed is no longer recognised, and the thread is
//! listed by its system call; nothing else depends on them.

use super::{Activity, StackFrame, ThreadRole, ThreadStack};
use crate::snapshot::is_our_thread;

/// A function on the stack means this activity. Patterns are paths without types and generic arguments (see
/// [`path`]); `*` stands for anything.
const ACTIVITIES: &[(Activity, &[&str])] = &[
    (
        Activity::Idle,
        &[
            "tokio::runtime::scheduler::multi_thread::worker::park*",
            "tokio::runtime::scheduler::multi_thread::park::*",
            "tokio::runtime::scheduler::current_thread::park*",
            "tokio::runtime::park::park*",
            "rayon_core::sleep::sleep",
        ],
    ),
    (
        Activity::Lock,
        &[
            "*::lock_contended",
            "*::read_contended",
            "*::write_contended",
            "parking_lot::raw_mutex::lock_slow",
            "parking_lot::raw_rwlock::lock_*_slow",
            "pthread_mutex_lock",
            "pthread_mutex_timedlock",
            "pthread_rwlock_rdlock",
            "pthread_rwlock_wrlock",
            "lll_lock_wait*",
        ],
    ),
    (Activity::Condvar, &["*::condvar::*wait*", "pthread_cond_*wait*"]),
    (
        Activity::Channel,
        &[
            "std::sync::mpsc::*recv*",
            "std::sync::mpsc::*send*",
            "std::sync::mpmc::*recv*",
            "std::sync::mpmc::*send*",
            "crossbeam_channel::*recv*",
            "crossbeam_channel::*send*",
            "crossbeam_channel::select::*",
            "flume::*recv*",
            "flume::*send*",
        ],
    ),
    (Activity::Join, &["std::thread::*join", "std::thread::scoped::scope", "pthread_*join*"]),
    (Activity::Sleep, &["std::thread::*sleep*", "nanosleep", "clock_nanosleep*", "usleep", "sleep"]),
    (Activity::Park, &["std::thread::*park", "std::thread::*park_timeout*"]),
    (Activity::Child, &["waitpid", "wait4", "waitid", "wait", "std::process::wait*"]),
    (Activity::Signal, &["sigwait", "sigwaitinfo", "sigtimedwait", "sigsuspend", "pause"]),
    (
        Activity::Io,
        &[
            "read",
            "write",
            "readv",
            "writev",
            "pread64",
            "pwrite64",
            "recv",
            "recvfrom",
            "recvmsg",
            "recvmmsg",
            "send",
            "sendto",
            "sendmsg",
            "sendmmsg",
            "accept",
            "accept4",
            "connect",
            "poll",
            "ppoll",
            "select",
            "pselect",
            "epoll_wait",
            "epoll_pwait",
            "epoll_pwait2",
            "fsync",
            "fdatasync",
            "flock",
            "open",
            "open64",
            "openat",
            "openat64",
            "sendfile",
            "sendfile64",
            "splice",
        ],
    ),
    (Activity::Futex, &["*::futex::futex_wait*", "futex_wait*"]),
];

/// The thread's role. Its name decides only where its stack has no function names.
pub(crate) fn role(name: &str, frames: &[StackFrame]) -> ThreadRole {
    if is_our_thread(name) {
        return ThreadRole::Delouse;
    }
    let mut role = ThreadRole::Other;
    let mut named = false;
    for path in frames.iter().filter_map(path) {
        named |= path.contains("::");
        if matches(&path, "tokio::runtime::scheduler::multi_thread::worker::run*") {
            // Workers are started on the pool for blocking calls, so this one goes first.
            return ThreadRole::TokioWorker;
        } else if matches(&path, "tokio::runtime::blocking::pool::run") {
            role = ThreadRole::TokioBlocking;
        } else if matches(&path, "tokio::runtime::*block_on") {
            role = ThreadRole::TokioBlockOn;
        }
    }
    // tokio's default names, cut at 15 bytes: one for workers and for blocking threads.
    if !named && (name.starts_with("tokio-rt-worker") || name.starts_with("tokio-runtime-w")) {
        return ThreadRole::TokioWorker;
    }
    role
}

/// What the thread is doing. `in_syscall`: its program counter is at a system call instruction.
pub(crate) fn activity(role: ThreadRole, frames: &[StackFrame], in_syscall: bool) -> Activity {
    if frames.is_empty() {
        return Activity::Unknown;
    }
    let mut found = None;
    let mut runs_blocking_task = false;
    // Outwards until the program's own code: what that called is what it waits in, and of several names
    // the outermost says most (`recv` rather than `park` rather than `futex`).
    for frame in frames.iter().take_while(|f| !f.own) {
        if frame.function.as_deref() == Some(super::stacks::SIGNAL_FRAME) {
            break;
        }
        let Some(path) = path(frame) else { continue };
        runs_blocking_task |= matches(&path, "tokio::runtime::blocking::task::*");
        // glibc's own names for its functions: `__GI___clock_nanosleep`, `__libc_read`.
        let bare = path.trim_start_matches("__GI_").trim_start_matches('_').trim_start_matches("libc_");
        let rule = ACTIVITIES.iter().find(|(_, patterns)| {
            patterns.iter().any(|p| matches(&path, p) || (!path.contains("::") && matches(bare, p)))
        });
        if let Some((activity, _)) = rule
            && found != Some(Activity::Idle)
        {
            found = Some(*activity);
        }
    }
    let has_own = frames.iter().any(|f| f.own);
    if role == ThreadRole::TokioBlocking
        && !runs_blocking_task
        && !has_own
        && found == Some(Activity::Condvar)
    {
        return Activity::Idle;
    }
    match found {
        // The name of the system call's wrapper says nothing once the call has returned.
        Some(Activity::Io) if !in_syscall => Activity::Running,
        Some(activity) => activity,
        None if in_syscall => Activity::Syscall,
        None => Activity::Running,
    }
}

/// Whether the futures that threads drive by `block_on` all wait: those threads are idle, and not inside of a poll that
/// has called `block_on` once more.
pub(crate) fn mains_rest(threads: &[ThreadStack]) -> bool {
    let rests = |thread: &ThreadStack| {
        let mut outside = thread.frames.iter().skip_while(|frame| !frame.own);
        let nested =
            outside.any(|frame| path(frame).is_some_and(|path| path.starts_with("tokio::runtime::")));
        thread.activity == Activity::Idle && !nested
    };
    let mut mains = threads.iter().filter(|thread| thread.role == ThreadRole::TokioBlockOn).peekable();
    mains.peek().is_some() && mains.all(rests)
}

/// Whether `path` is what `pattern` says.
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

/// A frame's function by modules alone, `tokio::runtime::park::park` for
/// `<tokio::runtime::park::Inner>::park`: types come and go between versions. With line tables only, DWARF
/// has but `park` for what was inlined; then the source file tells the modules.
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

/// The module of a source file as shortened: `tokio-1.54.1/src/runtime/park.rs` is `tokio::runtime::park`.
fn modules(file: &str) -> Option<String> {
    let (package, inside) = file.strip_suffix(".rs")?.split_once("/src/")?;
    let is_version = |v: &str| v.starts_with(|c: char| c.is_ascii_digit());
    let name = package.rsplit_once('-').filter(|(_, v)| is_version(v)).map_or(package, |(name, _)| name);
    let inside = inside.strip_suffix("/mod").unwrap_or(inside).replace('/', "::");
    Some(format!("{}::{inside}", name.replace('-', "_")))
}

/// A function's path without generic arguments, and of `<T as Trait>::f` the path `T::f`: the same for both
/// ways that rustc has to mangle names.
pub(crate) fn plain(function: &str) -> String {
    let mut path = String::with_capacity(function.len());
    let mut stack: Vec<bool> = Vec::new();
    let mut previous = ' ';
    for (at, c) in function.char_indices() {
        let shown = stack.iter().all(|&shown| shown);
        match c {
            '<' => {
                // At the start of a path it is `<T as Trait>` or `<T>`, elsewhere generic arguments.
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
mod tests {
    use super::*;

    #[test]
    fn plain_paths() {
        for (name, path) in [
            ("std::sync::mpsc::Receiver<T>::recv", "std::sync::mpsc::Receiver::recv"),
            ("<std::sync::mpsc::Receiver<i32>>::recv", "std::sync::mpsc::Receiver::recv"),
            ("std::thread::sleep", "std::thread::sleep"),
            (
                "<alloc::boxed::Box<dyn core::ops::FnOnce<(), Output = i32>> as core::ops::FnOnce<()>>::call_once",
                "alloc::boxed::Box::call_once",
            ),
            ("<fn() -> i32 as core::ops::FnOnce<()>>::call_once", "fn() -> i32::call_once"),
            ("core::iter::Iterator::map::<u8, fn(u8) -> u8>", "core::iter::Iterator::map"),
            ("<T>", "T"),
            (">>><<<::<", ""),
        ] {
            let got = plain(name);
            if path.is_empty() {
                continue;
            }
            assert_eq!(got, path, "{name}");
        }
    }

    #[test]
    fn patterns_match_whole_paths() {
        assert!(matches("a::b::lock_contended", "*::lock_contended"));
        assert!(!matches("a::b::lock_contended_not", "*::lock_contended"));
        assert!(matches("std::thread::join_handle::join", "std::thread::*join"));
        assert!(matches("parking_lot::raw_rwlock::lock_shared_slow", "parking_lot::raw_rwlock::lock_*_slow"));
        assert!(matches("std::sync::poison::condvar::wait_while", "*::condvar::*wait*"));
        assert!(!matches("std::sync::condvar::notify", "*::condvar::*wait*"));
        assert!(matches("std::thread::functions::sleep", "std::thread::*sleep*"));
        assert!(matches("std::thread::sleep_until", "std::thread::*sleep*"));
        assert!(!matches("pread", "read"));
        assert!(!matches("reader", "read"));
    }

    fn frame(function: &str, own: bool) -> StackFrame {
        StackFrame {
            function: Some(function.to_owned()),
            file: None,
            line: None,
            module: None,
            address: "0x1".to_owned(),
            own,
            inlined: false,
        }
    }

    #[test]
    fn the_outermost_name_before_own_code_decides() {
        let stack = [
            frame("std::sys::pal::unix::futex::futex_wait", false),
            frame("std::thread::park", false),
            frame("std::sync::mpmc::list::Channel<T>::recv", false),
            frame("app::worker", true),
            frame("<std::sys::sync::mutex::futex::Mutex>::lock_contended", false),
        ];
        assert_eq!(activity(ThreadRole::Other, &stack, true), Activity::Channel);
        assert_eq!(activity(ThreadRole::Other, &stack[3..], false), Activity::Running);
        assert_eq!(activity(ThreadRole::Other, &[frame("__libc_read", false)], true), Activity::Io);
        assert_eq!(activity(ThreadRole::Other, &[], false), Activity::Unknown);
        assert_eq!(activity(ThreadRole::Other, &stack[4..], true), Activity::Lock);
    }

    #[test]
    fn files_stand_in_for_modules_where_dwarf_has_none() {
        let mut bare = frame("park_internal", false);
        bare.file = Some("tokio-1.54.1/src/runtime/scheduler/multi_thread/worker.rs".to_owned());
        assert_eq!(activity(ThreadRole::TokioWorker, &[bare.clone()], true), Activity::Idle);
        bare.function = Some("run".to_owned());
        assert_eq!(role("", &[bare]), ThreadRole::TokioWorker);
    }
}
