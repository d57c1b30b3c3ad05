//! Parts of the sentences that findings are told in.

use crate::tasks::ResourceKind;
use crate::waits::Holder;
use crate::waits::words::{name, short};

/// Tasks that are told by their ids in a sentence.
const MAX_IDS: usize = 8;

/// ``task 7 (`guard`, a MutexGuard, in `app::b at app.rs:9`)``.
pub(super) fn holder(holder: &Holder) -> String {
    let task = match (holder.task, holder.thread) {
        (Some(task), _) => name(task),
        (None, Some(tid)) => format!("thread {tid}"),
        (None, None) => "task ?".to_owned(),
    };
    if holder.variable.is_empty() && holder.place.is_none() {
        return task;
    }
    let place = holder.place.as_ref().map(|place| format!(", in `{place}`")).unwrap_or_default();
    let article = if holder.handle.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    format!("{task} (`{}`, {article} {}{place})", holder.variable, holder.handle)
}

/// What a holder has to do with a wait, as part of a sentence: ``which task 7 (`guard`, …) has``. Only what is certain is
/// said without doubt.
pub(super) fn relation(kind: ResourceKind, by: &Holder) -> String {
    let who = holder(by);
    let (has, can) = if by.certain { ("has", "can") } else { ("may have", "may be able to") };
    match kind {
        ResourceKind::Notify => format!("which {who} {can} notify"),
        ResourceKind::Barrier => format!("at which {who} {can} arrive"),
        ResourceKind::SetOnce => format!("which {who} {can} set"),
        ResourceKind::Cancellation => format!("which {who} {can} cancel"),
        ResourceKind::Closed => format!("of which {who} {has} a receiver"),
        ResourceKind::Semaphore if by.is_access() => format!("to which {who} {can} add permits"),
        ResourceKind::Semaphore => format!("of which {who} {has} permits"),
        _ if by.handle.ends_with("Sender") => format!("to which {who} {can} send"),
        ResourceKind::ChannelSend => format!("whose receiver {who} {has}"),
        _ => format!("which {who} {has}"),
    }
}

/// `a mutex`.
pub(super) fn a(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Timer => "a timer",
        ResourceKind::Mutex => "a mutex",
        ResourceKind::Rwlock => "a rwlock",
        ResourceKind::Semaphore => "a semaphore",
        ResourceKind::ChannelRecv => "a message",
        ResourceKind::ChannelSend => "room in a channel",
        ResourceKind::Oneshot => "a oneshot",
        ResourceKind::Watch => "a watch",
        ResourceKind::Broadcast => "a broadcast",
        ResourceKind::Notify => "a notification",
        ResourceKind::Closed => "the end of a channel's receivers",
        ResourceKind::Barrier => "a barrier",
        ResourceKind::OnceCell => "a OnceCell",
        ResourceKind::SetOnce => "a SetOnce",
        ResourceKind::Cancellation => "a cancellation",
        ResourceKind::Signal => "a signal",
        ResourceKind::Process => "a child process",
        ResourceKind::Http2Stream => "an HTTP/2 stream",
        ResourceKind::Never => "nothing",
        ResourceKind::Join => "a task's end",
        ResourceKind::Lock => "a lock that blocks its thread",
        ResourceKind::Thread => "its thread",
        ResourceKind::Io => "the kernel",
        ResourceKind::Unknown => "something unknown",
    }
}

pub(super) fn count_waiting(number: usize) -> String {
    if number == 1 { "1 task waits".to_owned() } else { format!("{number} tasks wait") }
}

/// `3 more tasks wait behind them: 7, 8, 9`.
pub(super) fn behind(tasks: &[u64]) -> String {
    let wait = if tasks.len() == 1 {
        "1 more task waits".to_owned()
    } else {
        format!("{} more tasks wait", tasks.len())
    };
    format!("{wait} behind them: {}", ids(tasks))
}

/// A task at the beginning of a sentence.
pub(super) fn name_first(id: u64) -> String {
    if id == 0 { "The main future".to_owned() } else { format!("Task {id}") }
}

pub(super) fn ids(ids: &[u64]) -> String {
    let shown: Vec<String> = ids.iter().take(MAX_IDS).map(|id| short(*id)).collect();
    let more = if ids.len() > MAX_IDS { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
