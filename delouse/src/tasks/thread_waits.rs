//! Threads that wait in a primitive which blocks them: a channel of std, crossbeam, flume or kanal, a condition variable, a
//! barrier, the end of another thread. Locks are found by their futexes (`waits/thread_locks.rs`), calls that drive futures
//! by [`super::blocking_calls`].
//!
//! What a thread waits in is known by the functions on its stack between the system call and the program's own code.

use std::ops::Range;

use super::blocking_calls::{frames, function};
use super::process::Process;
use super::{Frame, Origin};
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::modules::Modules;
use crate::debuginfo::types::{Scope, names};
use crate::debuginfo::unwind::StackPlace;
use crate::snapshot::{Address, FutexWait, Thread};
use crate::threads::classify::plain;

/// The most functions on a stack before the program's own.
const MAX_FRAMES: usize = 64;

/// What a thread waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Primitive {
    /// For a message of a channel.
    Receive,
    /// For room in a channel.
    Send,
    /// For the end of another thread.
    Join,
    Condvar,
    Barrier,
    /// For a lock, or for the end of an initialisation.
    Lock,
}

/// A thread that waits in such a primitive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ThreadWait {
    pub(crate) tid: i32,
    pub(crate) primitive: Primitive,
    pub(crate) futex: FutexWait,
    /// The function that the program has called: `std::sync::mpsc::Receiver::recv`.
    pub(crate) function: String,
    /// The program's function that has called it, and the line.
    pub(crate) caller: Frame,
    /// The part of the stack from its top to the end of that function's frame.
    pub(crate) frames: Range<Address>,
}

/// The wait of a thread with these frames; `None` if it does not wait in such a primitive, or not for the program's own code.
pub(super) fn of_thread(
    process: &Process<'_, '_>,
    modules: &Modules,
    places: &[StackPlace],
    thread: &Thread,
) -> Option<ThreadWait> {
    let futex = thread.registers.ok()?.futex.filter(|futex| !futex.timed)?;
    // Otherwise it has been woken, and has not run yet.
    if process.memory.half(futex.address) != Some(futex.expected) {
        return None;
    }
    let mut found: Option<Primitive> = None;
    let mut called = String::new();
    for frame in frames(process, modules, places).take_while(|frame| frame.index < MAX_FRAMES) {
        let code = frame.code;
        let scopes = process.types.scopes(code);
        let innermost = process.types.source_at(code);
        if scopes.is_empty()
            && let Some(path) = symbol(process, code)
        {
            found = primitive(&path).or(found);
            called = path;
        }
        for (depth, scope) in scopes.iter().enumerate() {
            let source = scope.call_site.clone().or_else(|| innermost.clone().filter(|_| depth == 0));
            if let Some(source) = source
                && Origin::of_file(&source.file) == Origin::User
            {
                let caller = Frame {
                    function: function(scope),
                    file: Some(source.shown.to_string()),
                    line: Some(source.line),
                    ..Frame::default()
                };
                let top = places.first().map_or(frame.place.sp, |top| top.sp);
                return Some(ThreadWait {
                    tid: thread.tid,
                    primitive: found?,
                    futex,
                    function: called,
                    caller,
                    frames: top..frame.caller_sp,
                });
            }
            if is_runner(scope) {
                return None;
            }
            found = primitive(&scope.path).or(found);
            called = function(scope);
        }
    }
    None
}

/// Whether a function runs a task of tokio's: what is outside of it is not the program's.
fn is_runner(scope: &Scope) -> bool {
    scope.path.starts_with("tokio::runtime::blocking::")
        || scope.path.starts_with("tokio::runtime::scheduler::")
}

/// The function at an address of which there is no type information, as in the parts of std that are compiled in advance.
fn symbol(process: &Process<'_, '_>, code: FileAddress) -> Option<String> {
    let name = std::str::from_utf8(process.types.symbol_before(code)?).ok()?;
    Some(plain(&crate::debuginfo::symbols::readable(name)))
}

/// The primitive that a function is part of, by its path. Function paths are those of std 1.88 to 1.95, crossbeam-channel 0.5,
/// flume 0.11 and 0.12, kanal 0.1 and parking_lot 0.12.
fn primitive(path: &str) -> Option<Primitive> {
    const CHANNELS: [&str; 5] =
        ["std::sync::mpsc::", "std::sync::mpmc::", "crossbeam_channel::", "flume::", "kanal::"];
    const LOCKS: [&str; 10] = [
        "std::sync::poison::mutex::",
        "std::sync::poison::rwlock::",
        "std::sync::poison::once::",
        "std::sync::once::",
        "std::sync::once_lock::",
        "std::sync::lazy_lock::",
        "parking_lot::raw_mutex::",
        "parking_lot::raw_rwlock::",
        "lock_api::mutex::",
        "lock_api::rwlock::",
    ];
    let name = names::last_segment(names::without_parameters(path));
    let part_of = |module: &str| path.starts_with(module);
    if CHANNELS.into_iter().any(part_of) {
        return match name {
            name if name.contains("recv") || name == "next" || name == "iter" => Some(Primitive::Receive),
            name if name.contains("send") => Some(Primitive::Send),
            _ => None,
        };
    }
    match name {
        "join" if part_of("std::thread::") => Some(Primitive::Join),
        "wait" if part_of("std::sync::barrier::") => Some(Primitive::Barrier),
        name if name.starts_with("wait") && path.contains("::condvar::") => Some(Primitive::Condvar),
        _ if LOCKS.into_iter().any(part_of) => Some(Primitive::Lock),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_block() {
        let of = |path| primitive(path);
        assert_eq!(of("std::sync::mpsc::{impl#9}::recv<u64>"), Some(Primitive::Receive));
        assert_eq!(of("std::sync::mpmc::array::{impl#1}::send<u64>"), Some(Primitive::Send));
        assert_eq!(of("crossbeam_channel::channel::{impl#15}::recv<u64>"), Some(Primitive::Receive));
        assert_eq!(of("flume::{impl#30}::send_sync"), Some(Primitive::Send));
        assert_eq!(of("std::thread::{impl#10}::join<()>"), Some(Primitive::Join));
        assert_eq!(of("std::sync::poison::condvar::{impl#2}::wait<bool>"), Some(Primitive::Condvar));
        assert_eq!(of("parking_lot::condvar::{impl#3}::wait_until_internal"), Some(Primitive::Condvar));
        assert_eq!(of("std::sync::barrier::{impl#1}::wait"), Some(Primitive::Barrier));
        assert_eq!(of("std::thread::park"), None);
        assert_eq!(of("app::flume::recv"), None);
    }
}
