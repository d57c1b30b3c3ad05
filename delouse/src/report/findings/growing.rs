//! Groups of identical stacks that only grow.

use crate::report::format::{millis, thousands};
use crate::waits::{Evidence, Finding};

pub(super) fn summary(finding: &Finding) -> String {
    let Some(Evidence::Growth { place, now, new, over_ms }) = finding.evidence.first() else {
        return String::new();
    };
    let place = place.as_ref().map_or("(no stack)".to_owned(), ToString::to_string);
    format!(
        "{} tasks wait in {place}, {} of them spawned in the last {}, and none of the older ones has left",
        thousands(*now),
        thousands(*new),
        millis(*over_ms)
    )
}

pub(super) fn remedy(_: &Finding) -> Option<String> {
    Some("find out what should end them, and why it does not; bound how many may be spawned".to_owned())
}
