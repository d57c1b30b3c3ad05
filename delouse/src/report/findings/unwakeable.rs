//! Tasks that nothing can wake.

use super::parts::{at, behind};
use crate::report::format::{count, task};
use crate::waits::{Evidence, Finding};

pub(super) fn summary(finding: &Finding) -> String {
    let cause = finding.evidence.iter().find_map(|fact| match fact {
        Evidence::NoWaker { place, future, .. } => Some({
            let stuck = finding.tasks.len().saturating_sub(behind(finding));
            let stuck = match (stuck, finding.tasks.first()) {
                (1, Some(only)) => task(*only),
                (several, _) => count(several, "task"),
            };
            let future = future.as_ref().map(|of| format!(": `{of}` kept no waker")).unwrap_or_default();
            format!("{stuck} can never be woken{}{future}", at(place.as_deref()))
        }),
        _ => None,
    });
    cause.unwrap_or_default()
}

pub(super) fn remedy(finding: &Finding) -> Option<String> {
    let on_purpose =
        finding.evidence.iter().any(|fact| matches!(fact, Evidence::NoWaker { pending: true, .. }));
    let remedy = if on_purpose {
        "`pending()` never ends: let go of what others wait for before it is awaited, or end the task"
    } else {
        "a future that returns `Pending` must keep a clone of the waker of that call, and wake it"
    };
    Some(remedy.to_owned())
}
