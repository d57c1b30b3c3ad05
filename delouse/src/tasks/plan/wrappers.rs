//! Which types are walked through without being shown, and which are not walked at all.

/// Types that hold no future of ours, or so much that everything would be reached.
const OPAQUE: &[&str] = &[
    "core::mem::maybe_uninit::MaybeUninit",
    "core::task::wake::",
    "futures_util::stream::futures_unordered::ready_to_run_queue::",
    "futures_util::stream::futures_ordered::OrderWrapper<()>",
    "std::collections::",
    "std::sync::",
    "std::thread::",
    "tokio::loom::std::barrier::",
    "tokio::loom::std::mutex::",
    "tokio::loom::std::parking_lot::",
    "tokio::loom::std::rwlock::",
    "tokio::runtime::driver::",
    "tokio::runtime::scheduler::",
    "tokio::util::linked_list::",
    "tracing::span::",
    "tracing_core::",
];

/// Types with a crate of their own that are glue all the same.
const GLUE: &[&str] = &[
    "futures_util::future::maybe_done::MaybeDone",
    "futures_util::future::try_maybe_done::TryMaybeDone",
    "futures_util::stream::futures_ordered::OrderWrapper",
    "tokio::future::maybe_done::",
    "tokio::loom::",
    "tokio::macros::",
    "tokio::task::coop::Coop",
    "tokio::util::idle_notified_set::",
];

/// Futures that are ready whenever they are polled, or are over.
const READY: &[&str] =
    &["core::future::ready::Ready", "futures_util::future::lazy::Lazy", "futures_util::future::ready::Ready"];

/// Futures of the standard library that may be anything.
const STD_FUTURES: &[&str] = &["core::future::pending::Pending", "core::future::poll_fn::PollFn"];

/// Wrappers that are futures only where they have one.
const MAYBE_FUTURES: &[&str] =
    &["alloc::", "core::", "futures_util::future::either::Either", "std::", "tracing::instrument::"];

/// Branches of a `join!`: the future, or what it came to (tokio 1.40 to 1.54, futures 0.3).
const BRANCHES: &[&str] = &[
    "futures_util::future::maybe_done::MaybeDone",
    "futures_util::future::try_maybe_done::TryMaybeDone",
    "tokio::future::maybe_done::MaybeDone",
    "tokio::future::try_join::MaybeDone",
];

/// Crates whose futures say by a variant that they are over.
const TELLING: &[&str] = &["core::", "futures_util::", "tokio::", "tokio_util::"];

/// Whether a future never waits for anything.
pub(super) fn never_waits(path: &str) -> bool {
    READY.contains(&path)
}

/// Whether a future of that type may wait without anything in it that says so.
pub(super) fn is_std_future(path: &str) -> bool {
    STD_FUTURES.contains(&path)
}

/// Whether that there is a `poll` of it does not make it a future, whatever it has inside.
pub(super) fn may_be_no_future(path: &str) -> bool {
    never_waits(path) || MAYBE_FUTURES.iter().any(|prefix| path.starts_with(prefix))
}

/// Whether it is a branch of a `join!`.
pub(super) fn is_join_branch(path: &str) -> bool {
    BRANCHES.contains(&path)
}

/// Whether a future of that type that has an empty variant is over: one that was written by hand may wait for something
/// else then.
pub(super) fn tells_its_end(path: &str) -> bool {
    TELLING.iter().any(|prefix| path.starts_with(prefix))
}

/// Whether a variant with that name has nothing to wait for.
pub(super) fn is_over(variant: &str) -> bool {
    matches!(variant, "None" | "Done" | "Gone" | "Complete" | "Empty" | "Terminated" | "Taken" | "Ready")
}

/// Whether to stay out of it.
pub(super) fn is_opaque(path: &str) -> bool {
    OPAQUE.iter().any(|prefix| path.starts_with(prefix))
}

/// Whether a type stands for itself in a stack: not for wrappers of the standard library, tuples,
/// references and closures.
pub(super) fn is_shown(path: &str) -> bool {
    let glue = ["core::", "alloc::", "std::", "(", "[", "&", "*", "{"].iter().chain(GLUE);
    path.contains("::") && !path.contains("{closure_env#") && !glue.into_iter().any(|p| path.starts_with(p))
}
