//! What a wait, a resource and its holders are called in `/waits`.

use super::groups::Waiter;
use crate::report::wait_text;
use crate::tasks::ResourceKind;
use crate::waits::not_judged::ends;
use crate::waits::{Edge, Gap, Holder, words};

pub(super) fn name(who: Waiter) -> String {
    match who {
        (Some(task), _) => words::name(task),
        (None, Some(thread)) => format!("thread {thread}"),
        (None, None) => "something outside of all tasks".to_owned(),
    }
}

/// What one waiter waits for, `a message of channel-1 (0x7f01)`; for `several` without what only one of them has.
pub(super) fn awaited(edge: &Edge, several: bool) -> String {
    let kind = edge.resource.kind;
    match (&edge.outside, &edge.resource.address) {
        (Some(outside), _) if !several => unknown_leaf(edge, wait_text::noun(outside)),
        (Some(_), _) => unknown_leaf(edge, kind_name(kind).to_owned()),
        (None, Some(address)) => format!("{} ({address})", resource_name(&edge.resource.id, kind)),
        (None, None) => resource_name(&edge.resource.id, kind),
    }
}

/// Adds the type of a future that is not known.
fn unknown_leaf(edge: &Edge, text: String) -> String {
    match (&edge.leaf, edge.resource.kind) {
        (Some(leaf), ResourceKind::Unknown) => format!("{text}: `{leaf}`"),
        _ => text,
    }
}

/// `mutex-1`, with what is waited for where the name does not say it.
pub(super) fn resource_name(id: &str, kind: ResourceKind) -> String {
    match kind {
        ResourceKind::ChannelRecv | ResourceKind::Broadcast => format!("a message of {id}"),
        ResourceKind::ChannelSend => format!("room in {id}"),
        ResourceKind::Oneshot => format!("the message of {id}"),
        ResourceKind::Watch => format!("a change of {id}"),
        ResourceKind::Notify => format!("a notification of {id}"),
        ResourceKind::Join => format!("the end of {id}"),
        ResourceKind::Closed => format!("the end of all receivers of {id}"),
        ResourceKind::OnceCell | ResourceKind::SetOnce => format!("the value of {id}"),
        _ => id.to_owned(),
    }
}

/// The same of several.
pub(super) fn kind_name(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Timer => "a timer",
        ResourceKind::Mutex => "a mutex",
        ResourceKind::Rwlock => "a read-write lock",
        ResourceKind::Semaphore => "a semaphore",
        ResourceKind::ChannelRecv => "a message of a channel",
        ResourceKind::ChannelSend => "room in a channel",
        ResourceKind::Oneshot => "the message of a oneshot",
        ResourceKind::Watch => "a change of a watch",
        ResourceKind::Broadcast => "a message of a broadcast",
        ResourceKind::Notify => "a notification",
        ResourceKind::Closed => "the end of all receivers of a channel",
        ResourceKind::Barrier => "a barrier",
        ResourceKind::OnceCell => "the value of a OnceCell",
        ResourceKind::SetOnce => "the value of a SetOnce",
        ResourceKind::Cancellation => "a cancellation",
        ResourceKind::Signal => "a signal",
        ResourceKind::Process => "the end of a child process",
        ResourceKind::Http2Stream => "an HTTP/2 stream",
        ResourceKind::Never => "nothing: the future never ends",
        ResourceKind::Join => "the end of a task",
        ResourceKind::Lock => "a lock that blocks its thread",
        ResourceKind::Thread => "its thread",
        ResourceKind::Io => "input or output",
        ResourceKind::Unknown => "something that delouse does not know",
    }
}

/// What leads to the list of `holders`, which is not empty: `, held by`.
pub(super) fn led_by(kind: ResourceKind, holders: &[&Holder]) -> &'static str {
    let certain = holders.iter().all(|holder| holder.certain);
    let access = holders.iter().all(|holder| holder.is_access());
    let several = holders.len() > 1;
    match kind {
        // That task is the resource.
        ResourceKind::Join => "",
        ResourceKind::Thread => ", which is blocked by",
        ResourceKind::Semaphore if access && several => ", to which each of these can add permits:",
        ResourceKind::Semaphore if access => ", to which this can add permits:",
        ResourceKind::Semaphore if several => ", of which these may hold permits:",
        ResourceKind::Semaphore => ", of which this may hold permits:",
        ResourceKind::Barrier => ", at which tasks that have it can arrive:",
        ResourceKind::Mutex
        | ResourceKind::Rwlock
        | ResourceKind::Lock
        | ResourceKind::OnceCell
        | ResourceKind::Closed => match (certain, several) {
            (true, _) => ", held by",
            (false, true) => ", which one of these may hold:",
            (false, false) => ", which this may hold:",
        },
        _ => match (certain, several) {
            (true, _) => ", which can come from",
            (false, true) => ", which may come from one of these:",
            (false, false) => ", which may come from",
        },
    }
}

/// What is said of a wait of which no holder was found: that there is none among the tasks only where all of them were
/// read.
pub(super) fn without_holder(edge: &Edge, gaps: &[Gap]) -> String {
    if edge.outside.is_some() {
        return String::new();
    }
    let unknown = |why: &str| format!("; delouse does not know {} ({why})", ends(edge.resource.kind));
    if edge.unknown_handles {
        let leaf = edge.leaf.as_deref().unwrap_or("this type");
        return unknown(&format!("it knows no handles that belong to `{leaf}`"));
    }
    match (gaps, edge.resource.kind) {
        ([first], _) => unknown(&first.text()),
        ([first, ..], _) => unknown(&format!("{}; more above", first.text())),
        (
            [],
            ResourceKind::Mutex
            | ResourceKind::Rwlock
            | ResourceKind::Lock
            | ResourceKind::OnceCell
            | ResourceKind::Closed,
        ) => ", held by no task".to_owned(),
        ([], ResourceKind::Semaphore) => ", of which no task has a permit".to_owned(),
        ([], ResourceKind::Join | ResourceKind::Thread) => String::new(),
        ([], _) => ", which no task can give".to_owned(),
    }
}

/// `tasks 4, 5, 6 and 242 more`: `more` were not looked at.
pub(super) fn tasks(holders: &[&Holder], more: usize) -> String {
    let main = holders.iter().any(|holder| holder.task == Some(0)).then(|| name((Some(0), None)));
    let mut ids: Vec<u64> = holders.iter().filter_map(|holder| holder.task).filter(|id| *id != 0).collect();
    ids.dedup();
    let listed = (!ids.is_empty()).then(|| words::ids(&ids));
    let more = (more > 0).then(|| format!("{more} more"));
    main.into_iter().chain(listed).chain(more).collect::<Vec<_>>().join(" and ")
}

/// ``: Sender `state.tx` `` where all of them have it so.
pub(super) fn by_the_same(holders: &[&Holder]) -> String {
    match holders {
        [first, rest @ ..] if rest.iter().all(|other| other.variable == first.variable) => {
            format!(": {} `{}`", first.handle, first.variable)
        }
        _ => String::new(),
    }
}
