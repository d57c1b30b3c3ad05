//! What a leaf means to the function that waits for it: `Mutex::lock` waits for a semaphore, but its user waits for the
//! mutex.

use super::super::ResourceKind;
use super::table::{Detail, POLL_EVENTED};

/// The most functions around the innermost one that are compared with [`Context::within`].
const MAX_WITHIN: usize = 4;

/// One row of the table.
#[derive(Debug)]
pub(in crate::tasks) struct Context {
    /// The beginning of the innermost function's path.
    module: &'static str,
    /// The beginning of the path of one of the functions around it.
    within: Option<&'static str>,
    /// A part of the innermost function's path.
    function: &'static str,
    /// The leaf that it waits for.
    leaf: ResourceKind,
    pub(super) meaning: ResourceKind,
    pub(in crate::tasks) owner: Option<Owner>,
}

/// The type that the leaf's resource is part of, among the variables of the functions around it.
#[derive(Debug, Clone, Copy)]
pub(in crate::tasks) struct Owner {
    pub(in crate::tasks) path: &'static str,
    /// From the owner to the address that all waiters of the resource have in common.
    pub(in crate::tasks) whole: &'static str,
    /// Whether the resource must be stored inside the owner: other variables of the same type belong to other
    /// resources.
    pub(in crate::tasks) contains: bool,
    /// Numbers of the owner to read.
    pub(in crate::tasks) details: &'static [(Detail, &'static str)],
}

const fn context(
    module: &'static str,
    leaf: ResourceKind,
    meaning: ResourceKind,
    owner: Option<Owner>,
) -> Context {
    Context { module, within: None, function: "", leaf, meaning, owner }
}

const fn part_of(path: &'static str, whole: &'static str) -> Option<Owner> {
    Some(Owner { path, whole, contains: true, details: &[] })
}

const WATCH: Option<Owner> = part_of("tokio::sync::watch::Shared", "");

/// The first row that fits counts.
const CONTEXTS: &[Context] = &[
    context("tokio::sync::mutex::", ResourceKind::Semaphore, ResourceKind::Mutex, None),
    context("tokio::sync::rwlock::", ResourceKind::Semaphore, ResourceKind::Rwlock, None),
    Context {
        within: Some("tokio::sync::once_cell::"),
        ..context("tokio::sync::semaphore::", ResourceKind::Semaphore, ResourceKind::OnceCell, None)
    },
    context("tokio::sync::set_once::", ResourceKind::Notify, ResourceKind::SetOnce, None),
    context(
        "tokio::sync::mpsc::",
        ResourceKind::Semaphore,
        ResourceKind::ChannelSend,
        part_of("tokio::sync::mpsc::chan::Tx", "inner *"),
    ),
    context(
        "tokio::sync::mpsc::",
        ResourceKind::Notify,
        ResourceKind::Closed,
        part_of("tokio::sync::mpsc::chan::Tx", "inner *"),
    ),
    Context {
        within: Some("tokio::signal::"),
        ..context("tokio::sync::watch::", ResourceKind::Notify, ResourceKind::Signal, WATCH)
    },
    Context {
        within: Some("tokio::sync::barrier::"),
        ..context(
            "tokio::sync::watch::",
            ResourceKind::Notify,
            ResourceKind::Barrier,
            Some(Owner {
                path: "tokio::sync::barrier::Barrier",
                whole: "",
                contains: false,
                details: &[(Detail::Wanted, "n"), (Detail::Arrived, "state arrived")],
            }),
        )
    },
    Context {
        function: "::closed::",
        ..context("tokio::sync::watch::", ResourceKind::Notify, ResourceKind::Closed, WATCH)
    },
    context("tokio::sync::watch::", ResourceKind::Notify, ResourceKind::Watch, WATCH),
    context(
        "tokio::sync::broadcast::",
        ResourceKind::Notify,
        ResourceKind::Closed,
        part_of("tokio::sync::broadcast::Shared", ""),
    ),
    // A connection that is given back notifies one task (bb8 0.9, `inner.rs`).
    context("bb8::", ResourceKind::Notify, ResourceKind::Semaphore, None),
    context("tokio::", ResourceKind::Io, ResourceKind::Io, part_of(POLL_EVENTED, "")),
];

/// Functions of tokio that wait only for the task to be polled again, if they have no leaf: `coop::poll_proceed` in the
/// last.
const YIELDING: &[&str] = &[
    "tokio::task::yield_now::",
    "tokio::task::coop::consume_budget::",
    "tokio::runtime::io::registration::",
];

/// What a function with that path waits for if no leaf was found in what it awaits.
pub(in crate::tasks) fn without_leaf(path: &str) -> ResourceKind {
    let yields = YIELDING.iter().any(|beginning| path.starts_with(beginning));
    if yields { ResourceKind::Yield } else { ResourceKind::Unknown }
}

/// What a leaf of that kind means to the functions with these paths, the innermost first.
pub(in crate::tasks) fn find<'p>(
    kind: ResourceKind,
    mut paths: impl Iterator<Item = &'p str>,
) -> Option<&'static Context> {
    let innermost = paths.next()?;
    let around: Vec<&str> = paths.take(MAX_WITHIN).collect();
    CONTEXTS.iter().find(|context| {
        context.leaf == kind
            && innermost.starts_with(context.module)
            && innermost.contains(context.function)
            && context.within.is_none_or(|within| around.iter().any(|path| path.starts_with(within)))
    })
}
