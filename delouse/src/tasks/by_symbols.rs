//! Lists tasks without types: of each task its id, its state, and its outermost future.
//!
//! The names of tokio's `poll::<T, S>` are available with `debug = 1`, and in symbols of the v0 mangling; without
//! either, only ids and states are. Layouts cannot be looked up, so those of tokio 1.40 to 1.54 are assumed; what does
//! not look like a task by these is not shown.

use std::collections::{HashMap, HashSet};

use super::facts::Notes;
use super::header::{Headers, Kinds};
use super::knowledge::Knowledge;
use super::process::Process;
use super::{Frame, Options, Origin, Root, Task, TaskKind, TaskState, scan};
use crate::debuginfo::symbols::readable;
use crate::debuginfo::types::names;
use crate::snapshot::Address;

/// Ids are counted up from 1.
const MAX_ID: u64 = 1 << 48;

/// What is missing.
const LIMITED: &str = "only the outermost future of each task is shown, where its name is known";
/// What to do about it, if the program was built without types.
const ADVICE: &str = "write into Cargo.toml: [profile.release] debug = \"full\" (a dev build has it, unless \
     [profile.dev] says otherwise)";

/// Of one kind of task, by its `poll::<T, S>`.
#[derive(Clone)]
struct Named {
    kind: TaskKind,
    /// Its flavor, as in other answers.
    scheduler: &'static str,
    future: String,
}

/// The tasks that seem to be in memory. Adds to `notes` how to get the rest.
pub(super) fn list(
    process: &Process<'_, '_>,
    knowledge: &Knowledge<'_>,
    roots: &[Root],
    options: &Options,
    notes: &mut Notes,
) -> Vec<Task> {
    let kinds = Kinds::assumed();
    let headers = Headers::new(process, &kinds);
    let own = roots.iter().find_map(|root| match root {
        Root::Own { address } => process.memory.address(address.checked_add(8)?),
        _ => None,
    });
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
    let mut named: HashMap<Address, Option<Named>> = HashMap::new();
    let mut ids = HashSet::new();
    let mut tasks = Vec::new();
    for (header, vtable) in found {
        let name = named.entry(vtable).or_insert_with(|| name(process, vtable));
        let name = name.as_ref();
        let (Some(id), Some(state)) = (headers.id(header).filter(|id| *id < MAX_ID), headers.state(header))
        else {
            continue;
        };
        let state = state.meaning();
        let owner = headers.owner(header).unwrap_or(0);
        let blocking = name.is_some_and(|name| name.kind == TaskKind::Blocking);
        // To tokio, a worker is a blocking task; to the user, it is not.
        let worker = "tokio::runtime::scheduler::multi_thread::worker::";
        let is_worker = name.is_some_and(|name| name.future.starts_with(worker));
        let belongs = if blocking { state != TaskState::Complete && !is_worker } else { owner != 0 };
        let is_own = own.is_some() && headers.scheduler(header) == own;
        // Stale copies of freed tasks have links to where no task is any more.
        let linked = headers.neighbours(header);
        let linked = linked
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
    tasks.extend(roots.iter().filter_map(|root| main(process, root)));
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

/// The future that `block_on` drives, by the name of its `poll`.
fn main(process: &Process<'_, '_>, root: &Root) -> Option<Task> {
    let Root::Future { poll, .. } = root else { return None };
    let address = process.bias.file_address(*poll);
    let name = process.types.symbols_at(address).next();
    let name = name.map(|name| readable(&String::from_utf8_lossy(name)));
    let stack = name.iter().map(|name| frame(process, &without_closure(name))).collect();
    Some(Task { kind: TaskKind::Main, stack, ..Task::default() })
}

/// A coroutine's poll function is a closure of the function that contains it.
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

/// The names of the tasks of `vtable`, whose word 0 is `poll::<T, S>`.
fn name(process: &Process<'_, '_>, vtable: Address) -> Option<Named> {
    let poll = process.bias.file_address(process.memory.address(vtable)?);
    let described = process.types.function_name(poll);
    described.as_deref().and_then(named).or_else(|| {
        process.types.symbols_at(poll).find_map(|name| named(&readable(&String::from_utf8_lossy(name))))
    })
}

/// `poll<app::beat::{async_fn_env#0}, alloc::sync::Arc<…>>`, or
/// `tokio::runtime::task::raw::poll::<app::beat::{closure#0}, alloc::sync::Arc<…>>`.
fn named(poll: &str) -> Option<Named> {
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
    // `BlockingTask<F>`, and what tokio's features put around tasks.
    let mut future = future;
    for around in ["BlockingTask", "trace::Root", "Instrumented"] {
        let path = names::without_parameters(future);
        let inner = path.starts_with("tokio::") && path.ends_with(around);
        if let Some([of]) = names::top_arguments(&future[path.len()..]).filter(|_| inner).as_deref() {
            future = of;
        }
    }
    Some(Named { kind, scheduler: flavor, future: names::ty(&without_closure(future)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(poll: &str) -> Option<(TaskKind, &'static str, String)> {
        named(poll).map(|named| (named.kind, named.scheduler, named.future))
    }

    #[test]
    fn futures_by_the_names_of_their_polls() {
        let multi_thread =
            "alloc::sync::Arc<tokio::runtime::scheduler::multi_thread::handle::Handle, alloc::alloc::Global>";
        let described = format!("poll<app::beat::{{async_fn_env#0}}, {multi_thread}>");
        assert_eq!(of(&described), Some((TaskKind::Task, "multi_thread", "app::beat".to_owned())));
        let v0 = format!("tokio::runtime::task::raw::poll::<app::serve::{{closure#0}}, {multi_thread}>");
        assert_eq!(of(&v0), Some((TaskKind::Task, "multi_thread", "app::serve".to_owned())));
        let traced =
            format!("poll<tokio::runtime::task::trace::Root<app::f::{{async_block_env#1}}>, {multi_thread}>");
        assert_eq!(of(&traced).map(|named| named.2), Some("app::f::{async block}".to_owned()));
        let blocking = "poll<tokio::runtime::blocking::task::BlockingTask<app::main::{closure_env#2}>, \
                        tokio::runtime::blocking::schedule::BlockingSchedule>";
        assert_eq!(
            of(blocking),
            Some((TaskKind::Blocking, "blocking pool", "app::main::{closure}".to_owned()))
        );
        let local = "poll<app::Server<(u8, u16)>, alloc::sync::Arc<tokio::task::local::Shared, alloc::alloc::Global>>";
        assert_eq!(of(local).map(|named| (named.0, named.2)).unwrap().0, TaskKind::Local);
    }

    #[test]
    fn what_tells_nothing_is_no_name() {
        for poll in
            ["", "poll", "poll<", "poll<A>", "poll<A, B>", "poll<A, B, C>", "tokio::runtime::task::raw::poll"]
        {
            assert_eq!(of(poll), None, "{poll}");
        }
    }
}
