//! Drops of runtimes that wait for calls which do not return.

use super::blocking_pool::activity;
use crate::report::format::{count, in_place};
use crate::waits::{Evidence, Finding};

pub(super) fn summary(finding: &Finding) -> String {
    let Some(Evidence::DropsRuntime { thread, calls, .. }) = finding.evidence.first() else {
        return String::new();
    };
    let is_main = |function: &str| function == "main" || function.ends_with("::main");
    let place = in_place(thread.place.as_ref());
    let drops = match &thread.place {
        Some(place) if is_main(&place.function) => {
            format!("the main future has ended; thread {} drops the runtime in {place}", thread.tid)
        }
        _ => format!("thread {} drops a runtime{place}", thread.tid),
    };
    let first = finding.evidence.iter().find_map(|fact| match fact {
        Evidence::BusyThreads { thread, called, .. } => {
            let called = called.as_ref().filter(|_| thread.place.is_none());
            let called = called.map(|called| format!(" in {called}")).unwrap_or_default();
            Some(format!(": thread {} {}{called}", thread.tid, activity(thread, 1)))
        }
        _ => None,
    });
    let does = if *calls == 1 { "does" } else { "do" };
    format!(
        "{drops}, and waits for {} that {does} not return{}",
        count(*calls, "call"),
        first.unwrap_or_default()
    )
}

pub(super) fn remedy(_: &Finding) -> Option<String> {
    Some(
        "let these calls end before the runtime is dropped (a message, a closed socket, a flag), read stdin on a \
         thread of its own, or do not wait: Runtime::shutdown_background, shutdown_timeout or std::process::exit"
            .to_owned(),
    )
}
