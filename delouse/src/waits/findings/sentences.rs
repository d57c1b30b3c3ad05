//! Parts of the sentences that findings are told in.

use crate::tasks::ResourceKind;
use crate::waits::Holder;

/// Tasks that are told by their ids in a sentence.
const MAX_IDS: usize = 8;

/// ``task 7 (`guard`, a MutexGuard, in `app::b at app.rs:9`)``.
pub(super) fn holder(holder: &Holder) -> String {
    let id = holder.task.map_or_else(|| "?".to_owned(), |id| id.to_string());
    if holder.variable.is_empty() && holder.place.is_none() {
        return format!("task {id}");
    }
    let place = holder.place.as_ref().map(|place| format!(", in `{place}`")).unwrap_or_default();
    format!("task {id} (`{}`, a {}{place})", holder.variable, holder.handle)
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

/// A task in a sentence.
pub(super) fn name(id: u64) -> String {
    if id == 0 { "the main future".to_owned() } else { format!("task {id}") }
}

pub(super) fn ids(ids: &[u64]) -> String {
    let name = |id: &u64| if *id == 0 { "main".to_owned() } else { id.to_string() };
    let shown: Vec<String> = ids.iter().take(MAX_IDS).map(name).collect();
    let more = if ids.len() > MAX_IDS { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
