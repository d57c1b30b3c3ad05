//! Finished tasks whose results are kept.

use crate::report::format::{millis, thousands};
use crate::waits::{Evidence, Finding};

pub(super) fn summary(finding: &Finding) -> String {
    let cause = finding.evidence.iter().find_map(|fact| match fact {
        Evidence::Finished { spawned_at, now, new, over_ms } => {
            let place =
                spawned_at.as_ref().map(|place| format!(" that were spawned at {}", super::spawned(place)));
            Some(format!(
                "{} tasks{} have finished, and handles keep their results: {} more in the last {}, and none of the older \
                 ones was taken",
                thousands(*now),
                place.unwrap_or_default(),
                thousands(*new),
                millis(*over_ms)
            ))
        }
        _ => None,
    });
    cause.unwrap_or_default()
}

pub(super) fn sentence(fact: &Evidence) -> String {
    match fact {
        Evidence::Finished { now, new, .. } => format!(
            "there were {} finished tasks before, and all of these are still there",
            thousands(now.saturating_sub(*new))
        ),
        _ => String::new(),
    }
}

pub(super) fn remedy(_: &Finding) -> Option<String> {
    Some(
        "await the handles as tasks finish (`join_next` of a JoinSet in the same `select!` that spawns), or drop them"
            .to_owned(),
    )
}
