//! Workers that are inside one poll for too long.

use super::evidence::does;
use crate::report::activities::doing;
use crate::report::format::{in_place, millis, tasks};
use crate::threads::Activity;
use crate::waits::{Evidence, Finding, TaskIds};

pub(super) fn summary(finding: &Finding) -> String {
    let Some(Evidence::InPoll { thread, threads, lasted_ms, .. }) = finding.evidence.first() else {
        return String::new();
    };
    let of = tasks(&TaskIds::of(finding.tasks.iter().copied()));
    let lasted = millis(*lasted_ms);
    let cause = if *threads == 1 {
        let does = does(thread).unwrap_or_else(|| "does not return".to_owned());
        format!(
            "{of} has not yielded for {lasted} or more: its thread {} ({}) {does}",
            thread.tid, thread.name
        )
    } else {
        let several = thread.activity.map(|activity| doing(activity).several());
        let several = several.unwrap_or_else(|| "do not return".to_owned());
        let place = in_place(thread.place.as_ref());
        format!("{of} have not yielded for {lasted} or more: their {threads} threads {several}{place}")
    };
    let stands = finding.evidence.iter().find_map(|fact| match fact {
        Evidence::NoEventLoop { runtime, overdue, .. } => {
            let late = match overdue {
                0 => String::new(),
                1 => " (1 timer is overdue)".to_owned(),
                n => format!(" ({n} timers are overdue)"),
            };
            Some(format!("; nothing else waits for the I/O and timers of {runtime}{late}"))
        }
        _ => None,
    });
    format!("{cause}{}", stands.unwrap_or_default())
}

pub(super) fn remedy(finding: &Finding) -> Option<String> {
    let mut activity = None;
    let mut holder = false;
    for fact in &finding.evidence {
        match fact {
            Evidence::InPoll { thread, .. } => activity = thread.activity,
            Evidence::Lock { .. } => holder = true,
            _ => {}
        }
    }
    let remedy = match activity {
        Some(Activity::Running) => {
            "move the computation to tokio::task::spawn_blocking or a thread pool, or let other tasks run with \
             tokio::task::yield_now().await"
        }
        Some(Activity::Lock) if holder => {
            "release the lock sooner, where it is held as named above; where it must be held for long, use \
             tokio::sync::Mutex"
        }
        Some(Activity::Lock) => {
            "find what holds the lock in /stacktrace/rust; where it is held for long, use tokio::sync::Mutex"
        }
        Some(Activity::Sleep) => "use tokio::time::sleep(…).await",
        Some(Activity::Io) => "use tokio's own I/O, or tokio::task::spawn_blocking",
        Some(Activity::AsyncLock) => {
            "use the lock's async function: .lock().await rather than .blocking_lock()"
        }
        Some(Activity::BlockOn) => "use .await rather than block_on, or tokio::task::spawn_blocking",
        Some(Activity::Channel | Activity::Condvar | Activity::Park) => {
            "use a channel or tokio::sync::Notify whose wait is an .await, or tokio::task::spawn_blocking"
        }
        _ => "do what blocks in tokio::task::spawn_blocking",
    };
    Some(remedy.to_owned())
}
