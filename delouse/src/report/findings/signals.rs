//! Notifications that came too early, and barriers that will not fill.

use super::parts::{at, task_waits};
use crate::report::format::{count, list, task};
use crate::tasks::ResourceKind;
use crate::waits::{Evidence, Finding};

/// The cause of a finding, if it is one of these.
pub(super) fn cause(finding: &Finding) -> Option<String> {
    let only_waiters = match finding.tasks.len() {
        1 => "only it itself could",
        _ => "only tasks that wait, too, could",
    };
    finding.evidence.iter().find_map(|fact| match fact {
        Evidence::BarrierShort { resource, place, arrived, wanted, ended } if arrived < wanted => {
            let ended = match ended.count {
                0 => String::new(),
                1 => format!("; a task that was spawned at the same line has ended: {}", list(ended)),
                n => format!("; {n} tasks that were spawned at the same line have ended: {}", list(ended)),
            };
            let wait = if *arrived == 1 { "waits" } else { "wait" };
            Some(format!(
                "{} will not fill: {arrived} of {} {wait} at it{}, and {only_waiters} arrive{ended}",
                resource.id,
                count(usize::try_from(*wanted).unwrap_or(usize::MAX), "task"),
                at(place.as_deref())
            ))
        }
        Evidence::NotifiedBefore { task: of, resource, place, calls } => Some(format!(
            "{} waits{} for a notification of {}: {}, and {only_waiters} notify it again",
            task(*of),
            at(place.as_deref()),
            resource.id,
            called(*calls)
        )),
        _ => None,
    })
}

pub(super) fn sentence(fact: &Evidence) -> String {
    match fact {
        Evidence::NotifiedBefore { resource, calls, .. } => {
            format!("{}: {}, which wakes only what waits already", resource.id, called(*calls))
        }
        Evidence::BarrierShort { resource, arrived, wanted, .. } => {
            format!("{}: {arrived} of {wanted} tasks have arrived", resource.id)
        }
        _ => String::new(),
    }
}

/// What would help if a task waits for a signal that nothing gives.
pub(super) fn remedy(finding: &Finding) -> Option<String> {
    let has = |kind| task_waits(finding).any(|wait| wait.resource.kind == kind);
    let early = finding.evidence.iter().any(|fact| matches!(fact, Evidence::NotifiedBefore { .. }));
    let remedy = match () {
        () if has(ResourceKind::Barrier) => {
            "as many tasks must arrive at the barrier as it was made for: look for one that has ended, or that is never started"
        }
        () if early => {
            "what is signalled once belongs into a CancellationToken or a watch; or call `notify_one`, which is kept until \
             something waits; or create (and `enable`) `notified()` before checking whether to wait"
        }
        () if has(ResourceKind::Notify) => {
            "something else must call `notify_one`, or `notify_waiters` after this wait has begun"
        }
        () if has(ResourceKind::SetOnce) => "something else must call `set`",
        () if has(ResourceKind::Cancellation) => "something else must call `cancel`",
        () => return None,
    };
    Some(remedy.to_owned())
}

fn called(calls: u64) -> String {
    let times = if calls == 1 { "once".to_owned() } else { format!("{calls} times") };
    format!("`notify_waiters` was called {times}, before this wait began")
}
