//! Pools for blocking calls of which all threads are busy.

use super::parts::one;
use crate::report::activities::doing;
use crate::report::format::{count, in_place};
use crate::threads::Activity;
use crate::waits::{CodeLocation, Evidence, Finding, ThreadAt};

pub(super) fn summary(finding: &Finding) -> String {
    let Some(Evidence::PoolFull { runtime, threads, queued, .. }) = finding.evidence.first() else {
        return String::new();
    };
    let pool = format!("of the blocking pool of {runtime}");
    let pool = match threads {
        1 => format!("the only thread {pool}"),
        n => format!("all {n} threads {pool}"),
    };
    let (mut does, mut calls) = (None, Vec::new());
    for fact in &finding.evidence {
        match fact {
            Evidence::BusyThreads { thread, threads: alike, .. } if does.is_none() => {
                does = Some(if alike == threads {
                    format!(" {}", activity(thread, *alike))
                } else {
                    format!(" are busy: {} of them {}", alike, activity(thread, *alike))
                });
            }
            Evidence::QueuedCalls { call, .. } => calls.extend(call.as_ref().map(|call| call.to_string())),
            _ => {}
        }
    }
    let does = does.unwrap_or_else(|| " are busy".to_owned());
    let calls = if calls.is_empty() { String::new() } else { format!(" ({})", calls.join(", ")) };
    let are = if *queued == 1 { "is" } else { "are" };
    let deadlock = finding.evidence.contains(&Evidence::WaitForQueue);
    let deadlock = if deadlock { ", for which these threads wait: a deadlock" } else { "" };
    format!("{pool}{does}, and {} {are} in its queue{calls}{deadlock}", count(*queued, "call"))
}

/// `wait at a channel in app::work at src/work.rs:9`.
pub(super) fn activity(thread: &ThreadAt, threads: usize) -> String {
    let place = in_place(thread.place.as_ref());
    match thread.activity {
        Some(activity) if threads == 1 => format!("{}{place}", one(activity)),
        Some(activity) => format!("{}{place}", doing(activity).several()),
        None => format!("do not return{place}"),
    }
}

/// ` (app::call)`.
pub(super) fn named(call: Option<&CodeLocation>) -> String {
    call.map(|call| format!(" ({call})")).unwrap_or_default()
}

pub(super) fn remedy(finding: &Finding) -> Option<String> {
    let waits = finding.evidence.iter().find_map(|fact| match fact {
        Evidence::BusyThreads { thread, .. } => thread.activity,
        _ => None,
    });
    let instead = match waits {
        Some(Activity::Channel) => {
            "a call that waits at a channel for long belongs on a thread of its own (std::thread::spawn)"
        }
        Some(Activity::Lock | Activity::AsyncLock) => {
            "release the lock before anything that needs the pool, or take it in the task, with .lock().await"
        }
        Some(Activity::BlockOn) => "await the future in a task rather than with block_on on the pool",
        _ => "a call that waits for long belongs on a thread of its own (std::thread::spawn)",
    };
    Some(format!(
        "{instead}; a blocking call must not wait for what another blocking call does; more threads \
         (max_blocking_threads) only put it off. tokio's file I/O, stdin and name resolution need the same pool"
    ))
}
