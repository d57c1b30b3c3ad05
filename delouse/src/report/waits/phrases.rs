//! What a wait, a resource and its holders are called in `/waits`.

use super::groups::Waiter;
use crate::report::{format, gaps, kinds, wait_text};
use crate::tasks::ResourceKind;
use crate::waits::{Edge, Gap, Holder, TaskIds};

pub(super) fn name(party: Waiter) -> String {
    match party {
        (Some(task), _) => format::task(task),
        (None, Some(thread)) => format!("thread {thread}"),
        (None, None) => "something outside of all tasks".to_owned(),
    }
}

/// What one waiter waits for, `a message of channel-1 (0x7f01)`; for `several` without what only one of them has.
pub(super) fn awaited(edge: &Edge, several: bool) -> String {
    let kind = edge.resource.kind;
    match (&edge.outside, &edge.resource.address) {
        (Some(outside), _) if !several => unknown_leaf(edge, wait_text::noun(outside)),
        (Some(_), _) => unknown_leaf(edge, kinds::words(kind).wanted.to_owned()),
        (None, Some(address)) => format!("{} ({address})", kinds::named(kind, &edge.resource.id)),
        (None, None) => kinds::named(kind, &edge.resource.id),
    }
}

/// Adds the type of a future that is not known.
fn unknown_leaf(edge: &Edge, text: String) -> String {
    match (&edge.leaf, edge.resource.kind) {
        (Some(leaf), ResourceKind::Unknown) => format!("{text}: `{leaf}`"),
        _ => text,
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
        kind if is_held(kind) => match (certain, several) {
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

/// Whether a task that has a handle of it holds it as a whole.
fn is_held(kind: ResourceKind) -> bool {
    kind == ResourceKind::Closed || kind.is_lock() && kind != ResourceKind::Semaphore
}

/// What is said of a wait of which no holder was found: that there is none among the tasks only where all of them were
/// read.
pub(super) fn without_holder(edge: &Edge, unread: &[Gap]) -> String {
    if edge.outside.is_some() {
        return String::new();
    }
    let unknown =
        |why: &str| format!("; delouse does not know {} ({why})", kinds::words(edge.resource.kind).ended_by);
    if edge.unknown_handles {
        let leaf = edge.leaf.as_deref().unwrap_or("this type");
        return unknown(&format!("it knows no handles that belong to `{leaf}`"));
    }
    match (unread, edge.resource.kind) {
        ([first], _) => unknown(&gaps::gap(first)),
        ([first, ..], _) => unknown(&format!("{}; more above", gaps::gap(first))),
        ([], ResourceKind::Semaphore) => ", of which no task has a permit".to_owned(),
        ([], kind) if is_held(kind) => ", held by no task".to_owned(),
        ([], ResourceKind::Join | ResourceKind::Thread) => String::new(),
        ([], _) => ", which no task can give".to_owned(),
    }
}

/// `tasks 4, 5, 6 and 242 more`: `more` were not looked at; `task 4 and thread 812`.
pub(super) fn tasks(holders: &[&Holder], more: usize) -> String {
    let mut ids: Vec<u64> = holders.iter().filter_map(|holder| holder.task).collect();
    ids.dedup();
    let mut threads: Vec<i32> =
        holders.iter().filter(|holder| holder.task.is_none()).filter_map(|holder| holder.thread).collect();
    threads.dedup();
    let listed = TaskIds::of(ids);
    let all = TaskIds { count: listed.count + more, ..listed };
    let tasks = (all.count > 0).then(|| format::tasks(&all));
    let parties: Vec<String> =
        tasks.into_iter().chain(threads.iter().map(|tid| format!("thread {tid}"))).collect();
    parties.join(" and ")
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
