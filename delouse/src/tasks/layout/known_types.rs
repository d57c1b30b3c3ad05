//! Types that are known by their paths: how the walks treat them, and which are not walked at all.

/// Types that hold no future of the task, or lead to nearly everything.
const NO_FUTURES: &[&str] = &[
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

/// Types that only connect others, although they are in a crate of their own.
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

/// Futures that are ready whenever they are polled, or have completed.
const READY: &[&str] =
    &["core::future::ready::Ready", "futures_util::future::lazy::Lazy", "futures_util::future::ready::Ready"];

/// Futures of the standard library that may wait for anything.
const STD_FUTURES: &[&str] = &["core::future::pending::Pending", "core::future::poll_fn::PollFn"];

/// Wrappers that are futures only if they contain one.
const MAYBE_FUTURES: &[&str] =
    &["alloc::", "core::", "futures_util::future::either::Either", "std::", "tracing::instrument::"];

/// Branches of a `join!`: the future or its output (tokio 1.40 to 1.54, futures 0.3).
const BRANCHES: &[&str] = &[
    "futures_util::future::maybe_done::MaybeDone",
    "futures_util::future::try_maybe_done::TryMaybeDone",
    "tokio::future::maybe_done::MaybeDone",
    "tokio::future::try_join::MaybeDone",
];

/// The types among [`BRANCHES`] that may belong to a `join!`, which completes when all branches have. tokio's are used
/// by `try_join!`, too, which completes when one branch fails.
const BRANCHES_OF_ALL: &[&str] =
    &["tokio::future::maybe_done::MaybeDone", "futures_util::future::maybe_done::MaybeDone"];

/// Futures and streams with an optional future that they poll alone as long as it is there, and its field: the body of
/// `for_each`, say (futures 0.3, tokio-stream 0.1).
const POLLED_ALONE: &[(&str, &str)] = &[
    ("futures_util::stream::stream::all::All", "future"),
    ("futures_util::stream::stream::any::Any", "future"),
    ("futures_util::stream::stream::filter::Filter", "pending_fut"),
    ("futures_util::stream::stream::filter_map::FilterMap", "pending"),
    ("futures_util::stream::stream::flatten::Flatten", "next"),
    ("futures_util::stream::stream::fold::Fold", "future"),
    ("futures_util::stream::stream::for_each::ForEach", "future"),
    ("futures_util::stream::stream::scan::Scan", "future"),
    ("futures_util::stream::stream::skip_while::SkipWhile", "pending_fut"),
    ("futures_util::stream::stream::take_while::TakeWhile", "pending_fut"),
    ("futures_util::stream::stream::then::Then", "future"),
    ("futures_util::stream::try_stream::and_then::AndThen", "future"),
    ("futures_util::stream::try_stream::or_else::OrElse", "future"),
    ("futures_util::stream::try_stream::try_all::TryAll", "future"),
    ("futures_util::stream::try_stream::try_any::TryAny", "future"),
    ("futures_util::stream::try_stream::try_filter::TryFilter", "pending_fut"),
    ("futures_util::stream::try_stream::try_filter_map::TryFilterMap", "pending"),
    ("futures_util::stream::try_stream::try_flatten::TryFlatten", "next"),
    ("futures_util::stream::try_stream::try_fold::TryFold", "future"),
    ("futures_util::stream::try_stream::try_for_each::TryForEach", "future"),
    ("futures_util::stream::try_stream::try_skip_while::TrySkipWhile", "pending_fut"),
    ("futures_util::stream::try_stream::try_take_while::TryTakeWhile", "pending_fut"),
    ("tokio_stream::stream_ext::then::Then", "future"),
];

/// Crates whose futures show by a variant that they have completed.
const SHOWING: &[&str] = &["core::", "futures_util::", "tokio::", "tokio_util::"];

/// Types that own no handle of the task, or lead to nearly everything.
const NO_HANDLES: &[&str] = &[
    "core::mem::maybe_uninit::MaybeUninit",
    "core::task::wake::",
    "core::marker::PhantomData",
    "std::thread::",
    "std::backtrace",
    "tokio::runtime::",
    "tokio::task::local::",
    "tokio::util::linked_list::",
    "tracing::dispatcher::",
    "tracing::span::",
    "tracing_core::",
    "tracing_subscriber::",
];

/// Types of tokio that store wakers, and nothing else of interest: tokio's futures are known, so their wakers need not be
/// found.
const WAKERS_OF_TOKIO: &[&str] = &[
    "tokio::io::util::mem::",
    "tokio::sync::batch_semaphore::Waiter",
    "tokio::sync::broadcast::Waiter",
    "tokio::sync::notify::Waiter",
    "tokio::sync::oneshot::Task",
    "tokio::sync::task::atomic_waker::",
];

/// Wrappers of futures among [`NO_HANDLES`], such as the one that tokio's task dump puts around every task.
const WITH_HANDLES: &[&str] = &["tokio::runtime::task::trace::", "tokio::task::local::RunUntil"];

/// Values that are written once, and the route to them. In a static, they are zero before.
const WRITTEN_ONCE: &[(&str, &str)] = &[
    ("std::sync::once_lock::OnceLock", "value value"),
    ("std::sync::lazy_lock::LazyLock", "data value"),
    ("tokio::sync::once_cell::OnceCell", "value value"),
];

/// Types with a pointer to the value of an `Arc`, as `Arc::into_raw` returns it, and the route to that pointer
/// (event-listener 2 to 5).
const COUNTED_VALUES: &[(&str, &str)] = &[("event_listener::Event", "inner")];

/// The values that channels have behind an `Arc`. These are counted even if no message owns anything.
const CHANNELS: &[&str] = &[
    "async_channel::Channel",
    "flume::Shared",
    "futures_channel::mpsc::BoundedInner",
    "futures_channel::mpsc::UnboundedInner",
    "futures_channel::oneshot::Inner",
    "tokio::sync::broadcast::Shared",
    "tokio::sync::mpsc::chan::Chan",
    "tokio::sync::oneshot::Inner",
    "tokio::sync::watch::Shared",
];

/// Crates and types whose members have names that mean nothing to a user.
const PRIVATE_NAMES: &[&str] =
    &["core::", "alloc::", "std::", "hashbrown::", "tokio::", "futures_", "lock_api::", "(", "parking_lot::"];

fn is_in(path: &str, list: &[&str]) -> bool {
    list.iter().any(|prefix| path.starts_with(prefix))
}

/// Whether it is a closure of tokio that polls a socket by reference, such as that of `TcpStream::connect`.
pub(super) fn polls_by_reference(path: &str) -> bool {
    path.starts_with("tokio::net::") && path.contains("{closure_env#")
}

/// Whether a future never waits for anything.
pub(super) fn never_waits(path: &str) -> bool {
    READY.contains(&path)
}

/// Whether a future of that type may wait although nothing in it shows that.
pub(super) fn is_std_future(path: &str) -> bool {
    STD_FUTURES.contains(&path)
}

/// Whether it may have a `poll` and still be no future, whatever it contains.
pub(super) fn may_be_no_future(path: &str) -> bool {
    never_waits(path) || is_in(path, MAYBE_FUTURES)
}

/// Whether it is a branch of a `join!`.
pub(super) fn is_join_branch(path: &str) -> bool {
    BRANCHES.contains(&path)
}

/// The field of a future that is polled alone as long as it is there.
pub(super) fn polled_alone(path: &str) -> Option<&'static str> {
    POLLED_ALONE.iter().find(|(known, _)| *known == path).map(|(_, field)| *field)
}

/// Whether a future of that type that has an empty variant has completed: a future that was written by hand may then
/// wait for something else.
pub(super) fn shows_completion(path: &str) -> bool {
    is_in(path, SHOWING)
}

/// Whether a variant with that name shows that nothing is awaited.
pub(super) fn is_over(variant: &str) -> bool {
    matches!(variant, "None" | "Done" | "Gone" | "Complete" | "Empty" | "Terminated" | "Taken" | "Ready")
}

/// Whether it is a branch of something that completes with all of its branches.
pub(super) fn is_branch_of_join_all(path: &str) -> bool {
    BRANCHES_OF_ALL.contains(&path)
}

/// Whether handles in it are not searched for.
pub(super) fn holds_no_handle(path: &str) -> bool {
    // An async function of tokio's, such as `LocalSet::run_until`, has the future that it was called with.
    let is_coroutine = path.contains("::{async_");
    is_in(path, NO_HANDLES) && !is_coroutine && !is_in(path, WITH_HANDLES) || is_in(path, WAKERS_OF_TOKIO)
}

/// The route to a value that is written once.
pub(super) fn value_written_once(path: &str) -> Option<&'static str> {
    WRITTEN_ONCE.iter().find(|(known, _)| *known == path).map(|(_, route)| *route)
}

/// Whether the names of its members are not shown.
pub(super) fn has_private_names(path: &str) -> bool {
    is_in(path, PRIVATE_NAMES)
}

/// Whether it is the value that a channel has behind an `Arc`.
pub(super) fn is_channel(path: &str) -> bool {
    CHANNELS.contains(&path)
}

/// The route to a pointer to the value of an `Arc`.
pub(super) fn counted_value(path: &str) -> Option<&'static str> {
    COUNTED_VALUES.iter().find(|(known, _)| *known == path).map(|(_, route)| *route)
}

/// `Some(weak)` for a counted pointer.
pub(super) fn counted(path: &str) -> Option<bool> {
    match path {
        "alloc::sync::Arc" | "alloc::rc::Rc" => Some(false),
        "alloc::sync::Weak" | "alloc::rc::Weak" => Some(true),
        _ => None,
    }
}

/// Whether futures in it are not searched for.
pub(super) fn holds_no_future(path: &str) -> bool {
    is_in(path, NO_FUTURES)
}

/// Whether a type has a frame of its own in a stack. Wrappers of the standard library, tuples, references and closures
/// have none.
pub(super) fn is_shown(path: &str) -> bool {
    let glue = ["core::", "alloc::", "std::", "(", "[", "&", "*", "{"].iter().chain(GLUE);
    path.contains("::") && !path.contains("{closure_env#") && !glue.into_iter().any(|p| path.starts_with(p))
}
