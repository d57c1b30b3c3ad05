//! Lists the tasks of a program without type information: of each task its id, its state, and its outermost future.
//!
//! The type of the future is in the name of tokio's `poll::<T, S>`, which programs built with `debug = 1` or with v0
//! symbol mangling have; in others, only ids and states are available. The layouts of tokio 1.40 to 1.54 are assumed, and
//! memory that does not look like a task by these is ignored.

use std::collections::{HashMap, HashSet};

use super::facts::Notes;
use super::header::{Headers, Kinds};
use super::knowledge::Knowledge;
use super::process::Process;
use super::root::own_scheduler;
use super::{Frame, Options, Origin, Root, Task, TaskKind, TaskState, scan};
use crate::debuginfo::symbols::readable;
use crate::debuginfo::types::names;
use crate::snapshot::Address;

/// Tokio counts ids up from 1: a larger number is no id.
const MAX_ID: u64 = 1 << 48;

/// What is missing from the list.
const LIMITED: &str = "only the outermost future of each task is shown, where its name is known";
/// What to do about that, if the program was built without types.
const ADVICE: &str = "write into Cargo.toml: [profile.release] debug = \"full\" (a dev build has it, unless \
     [profile.dev] says otherwise)";

/// What the name of a task's `poll::<T, S>` contains.
struct PollName {
    kind: TaskKind,
    /// The flavor of its runtime, as other answers name it.
    scheduler: &'static str,
    future: String,
}

/// Returns what looks like a task in memory, and the future of each `block_on` among `roots`. Adds to `notes` what is
/// missing and why.
pub(super) fn list(
    process: &Process<'_, '_>,
    knowledge: &Knowledge<'_>,
    roots: &[Root],
    options: &Options,
    notes: &mut Notes,
) -> Vec<Task> {
    let kinds = Kinds::assumed();
    let headers = Headers::new(process, &kinds);
    let own = own_scheduler(process, roots);
    let mut found = Vec::new();
    scan::each_header(
        process,
        &headers,
        knowledge.vtables(process),
        options.scan,
        notes,
        |header, vtable| {
            found.push((header, vtable));
        },
    );
    let all: HashSet<Address> = found.iter().map(|(header, _)| *header).collect();
    let mut poll_names: HashMap<Address, Option<PollName>> = HashMap::new();
    let mut ids = HashSet::new();
    let mut tasks = Vec::new();
    for (header, vtable) in found {
        let name = poll_names.entry(vtable).or_insert_with(|| poll_name(process, vtable));
        let name = name.as_ref();
        let (Some(id), Some(state)) = (headers.id(header).filter(|id| *id < MAX_ID), headers.state(header))
        else {
            continue;
        };
        let state = state.meaning();
        let owner = headers.owner(header).unwrap_or(0);
        let blocking = name.is_some_and(|name| name.kind == TaskKind::Blocking);
        // Tokio runs its workers as blocking tasks; they are not the program's.
        let worker = "tokio::runtime::scheduler::multi_thread::worker::";
        let is_worker = name.is_some_and(|name| name.future.starts_with(worker));
        let belongs = if blocking { state != TaskState::Complete && !is_worker } else { owner != 0 };
        let is_own = own.is_some() && headers.scheduler(header) == own;
        // A freed task may still be in memory, but its neighbours in the list may be gone.
        let linked = headers
            .neighbours(header)
            .is_some_and(|(prev, next)| [prev, next].iter().all(|link| link.is_null() || all.contains(link)));
        if !belongs || is_own || !linked || !ids.insert(id) {
            continue;
        }
        let frame = name.filter(|_| state != TaskState::Complete).map(|name| frame(process, &name.future));
        tasks.push(Task {
            id,
            kind: name.map_or(TaskKind::Task, |name| name.kind),
            runtime: name.filter(|_| !blocking).map(|name| format!("{} {owner}", name.scheduler).into()),
            state: Some(state),
            stack: frame.into_iter().collect(),
            ..Task::default()
        });
    }
    tasks.extend(roots.iter().filter_map(|root| main_task(process, root)));
    tasks.sort_by_key(|task| task.id);
    notes.add(match process.types.image().shortage() {
        Some(shortage) => format!("the debug information was not read, so {LIMITED}. {shortage}"),
        None => {
            let missing = process.types.missing();
            let advice = missing.as_deref().unwrap_or(ADVICE);
            format!(
                "the debug information has no types, so {LIMITED}. For stacks and for what tasks wait for, {advice}"
            )
        }
    });
    tasks
}

/// The future that `block_on` drives, by the name of its poll function.
fn main_task(process: &Process<'_, '_>, root: &Root) -> Option<Task> {
    let Root::Future { poll, .. } = root else { return None };
    let address = process.bias.file_address(*poll);
    let name = process.types.symbols_at(address).next();
    let name = name.map(|name| readable(&String::from_utf8_lossy(name)));
    let stack = name.iter().map(|name| frame(process, &without_closure(name))).collect();
    Some(Task { kind: TaskKind::Main, stack, ..Task::default() })
}

/// The function that a coroutine is part of: the symbol of its poll function is that of a closure in it.
fn without_closure(name: &str) -> String {
    ["::{{closure}}", "::{closure#0}"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name)
        .to_owned()
}

fn frame(process: &Process<'_, '_>, function: &str) -> Frame {
    let origin = match function.trim_start_matches('<').split("::").next().unwrap_or_default() {
        "core" | "alloc" | "std" => Origin::Std,
        krate if process.types.is_dependency(krate) => Origin::Dependency,
        _ => Origin::User,
    };
    Frame { function: function.to_owned(), origin, ..Frame::default() }
}

/// Reads the name of the first function of a task's vtable, `poll::<T, S>`, from debug information or else from symbols.
fn poll_name(process: &Process<'_, '_>, vtable: Address) -> Option<PollName> {
    let poll = process.bias.file_address(process.memory.address(vtable)?);
    let described = process.types.function_name(poll);
    described.as_deref().and_then(parse_poll).or_else(|| {
        process.types.symbols_at(poll).find_map(|name| parse_poll(&readable(&String::from_utf8_lossy(name))))
    })
}

/// Parses `poll<app::beat::{async_fn_env#0}, alloc::sync::Arc<…>>` of debug information, or
/// `tokio::runtime::task::raw::poll::<app::beat::{closure#0}, alloc::sync::Arc<…>>` of a symbol.
fn parse_poll(poll: &str) -> Option<PollName> {
    let (_, arguments) = poll.split_once("poll")?;
    let [future, scheduler] = names::top_arguments(arguments.trim_start_matches("::"))?[..] else {
        return None;
    };
    let (kind, flavor) = match scheduler {
        name if name.contains("blocking::schedule::") => (TaskKind::Blocking, "blocking pool"),
        name if name.contains("task::local::Shared") => (TaskKind::Local, "LocalSet"),
        name if name.contains("::current_thread::") => (TaskKind::Task, "current_thread"),
        name if name.contains("::multi_thread::") => (TaskKind::Task, "multi_thread"),
        _ => return None,
    };
    // Tokio wraps the closure of `spawn_blocking` and, with some of its features, futures: show what is inside.
    let mut future = future;
    for wrapper in ["BlockingTask", "trace::Root", "Instrumented"] {
        let path = names::without_parameters(future);
        let is_wrapped = path.starts_with("tokio::") && path.ends_with(wrapper);
        if let Some([inner]) = names::top_arguments(&future[path.len()..]).filter(|_| is_wrapped).as_deref() {
            future = inner;
        }
    }
    Some(PollName { kind, scheduler: flavor, future: names::ty(&without_closure(future)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(poll: &str) -> Option<(TaskKind, &'static str, String)> {
        parse_poll(poll).map(|name| (name.kind, name.scheduler, name.future))
    }

    #[test]
    fn poll_names_contain_kind_scheduler_and_future() {
        let multi_thread =
            "alloc::sync::Arc<tokio::runtime::scheduler::multi_thread::handle::Handle, alloc::alloc::Global>";
        let described = format!("poll<app::beat::{{async_fn_env#0}}, {multi_thread}>");
        assert_eq!(parsed(&described), Some((TaskKind::Task, "multi_thread", "app::beat".to_owned())));
        let v0 = format!("tokio::runtime::task::raw::poll::<app::serve::{{closure#0}}, {multi_thread}>");
        assert_eq!(parsed(&v0), Some((TaskKind::Task, "multi_thread", "app::serve".to_owned())));
        let traced =
            format!("poll<tokio::runtime::task::trace::Root<app::f::{{async_block_env#1}}>, {multi_thread}>");
        assert_eq!(parsed(&traced).map(|parsed| parsed.2), Some("app::f::{async block}".to_owned()));
        let blocking = "poll<tokio::runtime::blocking::task::BlockingTask<app::main::{closure_env#2}>, \
                        tokio::runtime::blocking::schedule::BlockingSchedule>";
        assert_eq!(
            parsed(blocking),
            Some((TaskKind::Blocking, "blocking pool", "app::main::{closure}".to_owned()))
        );
        let local = "poll<app::Server<(u8, u16)>, alloc::sync::Arc<tokio::task::local::Shared, alloc::alloc::Global>>";
        assert_eq!(parsed(local).unwrap().0, TaskKind::Local);
    }

    #[test]
    fn other_names_are_not_parsed() {
        for poll in
            ["", "poll", "poll<", "poll<A>", "poll<A, B>", "poll<A, B, C>", "tokio::runtime::task::raw::poll"]
        {
            assert_eq!(parsed(poll), None, "{poll}");
        }
    }
}
