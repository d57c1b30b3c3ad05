//! Tasks that keep one another alive.

use super::parts::{behind, task_waits};
use std::collections::BTreeSet;

use super::signals;
use crate::report::format::count;
use crate::report::kinds;
use crate::tasks::ResourceKind;
use crate::waits::{Doubt, Evidence, Finding, Severity, TaskWait};

/// Places of leaked tasks that the summary names.
const MAX_PLACES: usize = 3;

pub(super) fn summary(finding: &Finding) -> String {
    if let Some(cause) = signals::cause(finding) {
        return cause;
    }
    let leaked = finding.tasks.len().saturating_sub(behind(finding));
    let found = if finding.severity == Severity::Certain { "can" } else { "was found that can" };
    let leaked = match leaked {
        1 => format!("a task keeps itself alive, and nothing else {found} wake it"),
        several => {
            format!("{} keep one another alive, and nothing else {found} wake them", count(several, "task"))
        }
    };
    let places: BTreeSet<String> = patterns(finding).into_iter().collect();
    let places: Vec<String> = places.into_iter().take(MAX_PLACES).collect();
    format!("{leaked}: {}", places.join("; "))
}

/// Where each of the tasks waits, and for what: the alternatives of a `select!` in one.
fn patterns(finding: &Finding) -> Vec<String> {
    let waits: Vec<&TaskWait> = task_waits(finding).collect();
    let of_task = waits.chunk_by(|one, other| one.task == other.task);
    of_task
        .map(|waits| {
            let pattern = waits.iter().map(|wait| {
                let place = wait.place.as_ref().map_or("?".to_owned(), ToString::to_string);
                format!("`{place}` waits for {}", kinds::words(wait.resource.kind).wanted)
            });
            let mut pattern: Vec<String> = pattern.collect();
            pattern.dedup();
            pattern.join(", or ")
        })
        .collect()
}

/// Whether a sender could end the wait.
fn is_of_sender(wait: &TaskWait) -> bool {
    wait.holders.iter().any(|holder| holder.handle.ends_with("Sender"))
}

pub(super) fn remedy(finding: &Finding) -> Option<String> {
    let by_wakers = |fact: &Evidence| matches!(fact, Evidence::Doubt { why: Doubt::ByWakers { .. } });
    let remedy = if finding.evidence.iter().any(by_wakers) {
        "something that is not stuck itself must be able to end these waits; or abort these tasks when their work is over"
    } else if task_waits(finding).any(|wait| wait.resource.kind == ResourceKind::Semaphore) {
        "no permit of the semaphore was found: look for `forget()`, for an `add_permits` that is not reached, or for \
         objects of a pool that give their permit back when they are dropped"
    } else if signals::cause(finding).is_some() || !task_waits(finding).any(is_of_sender) {
        return signals::remedy(finding).or(Some(
            "something else must end one of these waits; or abort these tasks when their work is over"
                .to_owned(),
        ));
    } else {
        "drop the sender that a task keeps of its own channel, or hold it weakly; or abort these tasks when their work is over"
    };
    Some(remedy.to_owned())
}
