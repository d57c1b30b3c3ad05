//! Groups of identical stacks that only grow.

use crate::report::format::{millis, thousands};
use crate::waits::{Evidence, Finding};

pub(super) fn summary(finding: &Finding) -> String {
    let cause = finding.evidence.iter().find_map(|fact| match fact {
        Evidence::Growth { place, now, new, over_ms } => Some({
            let place = place.as_ref().map_or("(no stack)".to_owned(), ToString::to_string);
            format!(
                "{} tasks wait in {place}, {} of them spawned in the last {}, and none of the older ones has left",
                thousands(*now),
                thousands(*new),
                millis(*over_ms)
            )
        }),
        _ => None,
    });
    cause.unwrap_or_default()
}

pub(super) fn remedy(_: &Finding) -> Option<String> {
    Some("find out what should end them, and why it does not; bound how many may be spawned".to_owned())
}
