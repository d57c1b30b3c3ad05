//! Tasks that were woken and that no worker takes.

use super::evidence::sentence;
use crate::report::format::{millis, task};
use crate::waits::{Evidence, Finding};

pub(super) fn summary(finding: &Finding) -> String {
    let Some(Evidence::NotRun { task: one, place, count, lasted_ms, .. }) = finding.evidence.first() else {
        return String::new();
    };
    let place = place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
    let example = format!("{}{place}", task(*one));
    let woken = match count {
        1 => format!("{example} was woken and waits to be polled"),
        n => format!("{n} tasks were woken and wait to be polled ({example} is one)"),
    };
    let lasted = millis(*lasted_ms);
    let is_why = |fact: &&Evidence| matches!(fact, Evidence::BlockedDriver { .. } | Evidence::NoDriver);
    match finding.evidence.iter().find(is_why) {
        Some(why) => format!("{woken} for {lasted} or more: {}", sentence(finding, why)),
        None => format!("{woken} for {lasted}: the workers may be overloaded"),
    }
}

pub(super) fn remedy(finding: &Finding) -> Option<String> {
    let why = finding.evidence.iter().find_map(|fact| match fact {
        Evidence::NoDriver => Some(
            "run the runtime: its tasks are polled only inside block_on (those of a LocalSet: while it is polled)",
        ),
        Evidence::BlockedDriver { .. } => {
            Some("block_on's own future must not block: use .await, or tokio::task::spawn_blocking")
        }
        _ => None,
    });
    let otherwise = "look at what the workers do in /stacktrace/rust; do less, or have more of them";
    Some(why.unwrap_or(otherwise).to_owned())
}
