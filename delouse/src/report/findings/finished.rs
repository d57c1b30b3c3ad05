//! Finished tasks whose results are kept.

use crate::report::format::{in_place, millis, task, thousands};
use crate::waits::{CodeLocation, Evidence, Finding};

pub(super) fn summary(finding: &Finding) -> String {
    let Some(Evidence::Finished { function, spawned_at, now, new, over_ms }) = finding.evidence.first()
    else {
        return String::new();
    };
    format!(
        "{} tasks{} have finished, and handles keep their results: {} more in the last {}, and none of the older ones was \
         taken",
        thousands(*now),
        tasks(function.as_ref(), spawned_at.as_deref()),
        thousands(*new),
        millis(*over_ms)
    )
}

pub(super) fn sentence(fact: &Evidence) -> String {
    match fact {
        Evidence::Finished { now, new, .. } => format!(
            "there were {} finished tasks before, and all of these are still there",
            thousands(now.saturating_sub(*new))
        ),
        Evidence::Kept { task: by, variable, place, handles } => {
            kept(*by, variable, place.as_deref(), *handles)
        }
        _ => String::new(),
    }
}

/// `task 7 has 90 handles in `jobs` in app::serve at src/main.rs:7`.
pub(in crate::report) fn kept(by: u64, variable: &str, place: Option<&CodeLocation>, handles: u64) -> String {
    let at = in_place(place);
    format!("{} has {} handles in `{variable}`{at}", task(by), thousands(handles as usize))
}

/// ` of the function that were spawned at the place`.
pub(in crate::report) fn tasks(function: Option<&CodeLocation>, spawned_at: Option<&str>) -> String {
    let of = function.map(|function| format!(" of `{function}`")).unwrap_or_default();
    let at = spawned_at
        .map(|place| format!(" that were spawned at {}", super::spawned(place)))
        .unwrap_or_default();
    format!("{of}{at}")
}

pub(super) fn remedy(_: &Finding) -> Option<String> {
    Some(
        "await the handles as tasks finish (`join_next` of a JoinSet in the same `select!` that spawns), or drop them"
            .to_owned(),
    )
}
