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
