//! What tokio's thread locals know: a thread's runtime, and the task that it polls.

use super::facts::{self, Notes};
use super::process::Process;
use super::route::Route;

/// What a thread local of tokio's says: `runtime/context.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThreadContext {
    pub(super) tid: i32,
    /// Where the thread's current `scheduler::Handle` lies.
    pub(super) handle: Option<u64>,
    /// The id of the task that it polls.
    pub(super) task: Option<u64>,
}

/// The contexts of all threads whose thread pointer is known.
///
/// A thread local of the executable lies below the thread pointer (variant II of the TLS ABI, x86_64),
/// at its symbol's value in the TLS segment.
pub(super) fn thread_contexts(process: &Process<'_, '_>, notes: &mut Notes) -> Vec<ThreadContext> {
    let threads = process.memory.snapshot().threads();
    let pointers = threads.iter().filter_map(|t| Some((t.tid, t.registers.ok()?.tls)));
    let pointers: Vec<(i32, u64)> = pointers.filter(|(_, tls)| *tls != 0).collect();
    if pointers.is_empty() || !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    let Some((offset, handle, task)) = context_routes(process) else {
        notes.missing(&facts::CONTEXT);
        return Vec::new();
    };
    if task.is_none() {
        notes.missing(&facts::CURRENT_TASK);
    }
    let context = |(tid, tls): (i32, u64)| {
        let at = tls.checked_sub(offset)?;
        let word = |route: &Route| {
            Some((route.follow(process, at)?, process.memory.word(route.follow(process, at)?)?))
        };
        Some(ThreadContext {
            tid,
            // `Option<scheduler::Handle>`: the tags of `Handle`, or one more for `None`.
            handle: word(&handle).filter(|(_, tag)| *tag <= 1).map(|(at, _)| at),
            task: task.as_ref().and_then(word).map(|(_, id)| id).filter(|id| *id != 0),
        })
    };
    pointers.into_iter().filter_map(context).collect()
}

/// How far below its thread pointer a thread keeps the id of the task that it polls.
pub(super) fn task_id_below(process: &Process<'_, '_>) -> Option<u64> {
    let (offset, _, task) = context_routes(process).filter(|_| cfg!(target_arch = "x86_64"))?;
    offset.checked_sub(task?.offset()?)
}

/// How far below the thread pointer the context lies, and the ways into it.
fn context_routes(process: &Process<'_, '_>) -> Option<(u64, Route, Option<Route>)> {
    let types = process.types;
    let context = types.symbols_with("7runtime7context7CONTEXT");
    let value = memchr::memmem::Finder::new("RUST_STD_INTERNAL_VAL");
    let variable = context.iter().find(|symbol| value.find(symbol.name).is_some())?;
    let tls = types.image().tls()?;
    let size = tls.size.checked_next_multiple_of(tls.align.max(1))?;
    let offset = size.checked_sub(variable.address)?;
    let near = types.symbols_with("7runtime7context");
    let of = near.iter().take(256).find_map(|symbol| types.variable(variable.name, symbol.address))?;
    let handle = Route::compile(process, of, "current handle")?;
    Some((offset, handle, Route::compile(process, of, "current_task_id")))
}
