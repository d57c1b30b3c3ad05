//! Tasks that are polled without pause.

use super::parts::{at, sampled};
use crate::report::format::{in_place, millis, task};
use crate::tasks::inputs::Source;
use crate::waits::{Evidence, Finding};

pub(super) fn summary(finding: &Finding) -> String {
    let Some(Evidence::PolledWithoutPause { task: of, place, .. }) = finding.evidence.first() else {
        return String::new();
    };
    let ended: Vec<String> = ended(finding).map(|(source, variable)| has_ended(source, variable)).collect();
    format!(
        "{} is polled without pause{}: {}, so that polling it returns at once, each time",
        task(*of),
        at(place.as_deref()),
        ended.join(", and ")
    )
}

pub(super) fn sentence(fact: &Evidence) -> String {
    match fact {
        Evidence::PolledWithoutPause { task: of, samples, lasted_ms, used_ms, .. } => format!(
            "{}: {} is being polled or waits to be polled again each time; the threads of the runtime used {} of processor \
             time meanwhile",
            sampled(*samples, *lasted_ms),
            task(*of),
            millis(*used_ms)
        ),
        Evidence::Ended { source, variable, place } => {
            format!(
                "{}{}; nothing came from anything else that the task waits for",
                has_ended(*source, variable),
                in_place(place.as_deref())
            )
        }
        _ => String::new(),
    }
}

pub(super) fn remedy(finding: &Finding) -> Option<String> {
    let (source, variable) = ended(finding).next()?;
    Some(match source {
        Source::Channel | Source::Watch => format!(
            "leave the loop, or disable this branch of the `select!` (`, if open`), when `{variable}` says that it has ended"
        ),
        Source::File | Source::Body => {
            "a read of 0 bytes is the end of the stream: leave the loop".to_owned()
        }
        Source::Token => format!(
            "leave the loop when `{variable}` is cancelled, or disable this branch from then on (`, if !stopping`)"
        ),
        Source::Set => format!("do not poll `{variable}` while it is empty: `, if !{variable}.is_empty()`"),
    })
}

fn ended(finding: &Finding) -> impl Iterator<Item = (Source, &str)> {
    finding.evidence.iter().filter_map(|fact| match fact {
        Evidence::Ended { source, variable, .. } => Some((*source, variable.as_str())),
        _ => None,
    })
}

fn has_ended(source: Source, variable: &str) -> String {
    match source {
        Source::Channel => format!("`{variable}` is empty and has no sender any more"),
        Source::Watch => format!("`{variable}` has no sender any more"),
        Source::File => format!("the other end of `{variable}` has closed its side, and all was read"),
        Source::Token => format!("`{variable}` is cancelled"),
        Source::Set => format!("`{variable}` is empty"),
        Source::Body => format!("`{variable}` was read to its end"),
    }
}
