//! Parts of sentences that several findings share.

use crate::report::activities::doing;
use crate::report::format::{list, millis, task};
use crate::threads::Activity;
use crate::waits::{CodeLocation, Evidence, Finding, TaskIds, TaskWait};

/// What a blocked thread does.
pub(super) fn one(activity: Activity) -> String {
    match activity {
        Activity::Idle | Activity::Unknown => "does not return".to_owned(),
        activity => doing(activity).one(),
    }
}

/// `sampled twice, 150 ms apart`.
pub(super) fn sampled(samples: usize, lasted_ms: u64) -> String {
    match samples {
        2 => format!("sampled twice, {} apart", millis(lasted_ms)),
        samples => format!("sampled {samples} times in {}", millis(lasted_ms)),
    }
}

pub(super) fn at(place: Option<&CodeLocation>) -> String {
    place.map(|place| format!(" at `{place}`")).unwrap_or_default()
}

/// What waits: a task, the main future, or one of several main futures.
pub(super) fn waiter(wait: &TaskWait) -> String {
    match wait.thread {
        Some(thread) if wait.blocks => format!("thread {thread}"),
        Some(thread) => driven(thread),
        None => task(wait.task),
    }
}

/// The same in a list.
pub(super) fn short(wait: &TaskWait) -> String {
    match wait.thread {
        Some(thread) => format!("thread {thread}"),
        None => list(&TaskIds::of([wait.task])),
    }
}

/// One of several main futures.
pub(in crate::report) fn driven(thread: i32) -> String {
    format!("the future that thread {thread} drives")
}

/// The waits that a finding is concluded from.
pub(super) fn task_waits(finding: &Finding) -> impl Iterator<Item = &TaskWait> {
    finding.evidence.iter().filter_map(|fact| match fact {
        Evidence::Waits(wait) => Some(wait),
        _ => None,
    })
}

/// How many of its tasks wait behind the others.
pub(super) fn behind(finding: &Finding) -> usize {
    let behind = finding.evidence.iter().find_map(|fact| match fact {
        Evidence::Behind(behind) => Some(behind.count),
        _ => None,
    });
    behind.unwrap_or(0)
}
