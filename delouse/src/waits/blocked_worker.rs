//! A thread that is inside one poll for too long, by two looks or more.
//!
//! The scheduler counts the tasks that it takes: where that count stays the same between looks, and the thread
//! polls the same task in each, it has been inside that poll all the time. Without the count it may have been
//! several polls in a row, and the finding is a suspicion.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::look::Look;
use super::{Finding, FindingKind, Holder, Severity, words};
use crate::tasks::{ResourceKind, Task, TaskKind, TaskState};
use crate::threads::{Activity, ThreadRole, ThreadStack};

/// A poll that takes longer keeps others waiting: tokio's own advice is 10 to 100 µs between awaits, and a
/// hundred milliseconds is what a user of a service notices.
pub(crate) const LONG: Duration = Duration::from_millis(100);

/// One thread in one poll.
struct Poll<'l> {
    task: &'l Task,
    thread: &'l ThreadStack,
    /// From the first look that shows it to the last.
    lasted: Duration,
    /// How many looks show it.
    looks: usize,
    /// Processor time that the thread has used meanwhile.
    used: Option<Duration>,
    /// The scheduler's count says that it is one poll.
    counted: bool,
    /// tokio has given the worker's other tasks to another thread.
    in_place: bool,
}

impl Poll<'_> {
    /// A thread that computes may have had no processor; one that waits needs none.
    fn is_long(&self) -> bool {
        match (self.thread.activity, self.used) {
            // Tasks of a LocalSet that take turns inside of one poll of the set look like this, too.
            (Activity::Running, _) if !self.counted => false,
            (Activity::Running, Some(used)) => used >= LONG,
            _ => self.lasted >= LONG,
        }
    }
}

/// Whether another look would tell whether a poll is long.
pub(crate) fn is_undecided(looks: &[Look]) -> bool {
    match looks {
        [first] => first.listing.running.iter().any(|(tid, task)| polls(first, *tid, *task).is_some()),
        looks => standing(looks).iter().any(|poll| poll.counted && !poll.is_long()),
    }
}

/// The findings: one for each place in the program at which threads are stuck.
pub(crate) fn check(looks: &[Look]) -> Vec<Finding> {
    let mut places: BTreeMap<String, Vec<Poll<'_>>> = BTreeMap::new();
    for poll in standing(looks).into_iter().filter(Poll::is_long) {
        let place = words::own_line(poll.thread).map(|(place, _)| place).unwrap_or_default();
        places.entry(format!("{place} {:?}", poll.thread.activity)).or_default().push(poll);
    }
    places.values().filter_map(|polls| finding(looks, polls)).collect()
}

/// The polls that all looks since some earlier one agree on.
fn standing(looks: &[Look]) -> Vec<Poll<'_>> {
    let Some((last, before)) = looks.split_last() else { return Vec::new() };
    let poll = |(tid, task): &(i32, u64)| {
        let (task, thread) = polls(last, *tid, *task)?;
        let rounds = last.rounds(*tid);
        let same = |look: &&Look| look.rounds(*tid) == rounds && polls(look, *tid, task.id).is_some();
        let agreeing = before.iter().rev().take_while(same).count();
        let since = before.get(before.len().checked_sub(agreeing)?)?;
        let used = |look: &Look| look.thread(*tid)?.cpu_us;
        Some(Poll {
            task,
            thread,
            lasted: last.at.saturating_sub(since.at),
            looks: agreeing + 1,
            used: used(last)
                .zip(used(since))
                .map(|(now, then)| Duration::from_micros(now.saturating_sub(then))),
            // A LocalSet polls many tasks in what its scheduler counts as one.
            counted: rounds.is_some() && task.kind != TaskKind::Local,
            in_place: thread.frames.iter().any(|frame| {
                frame
                    .function
                    .as_deref()
                    .is_some_and(|f| f.starts_with("tokio::task::blocking::block_in_place"))
            }),
        })
    };
    last.listing.running.iter().filter_map(poll).collect()
}

/// The task and the thread, where the thread is busy with a poll of it.
fn polls(look: &Look, tid: i32, task: u64) -> Option<(&Task, &ThreadStack)> {
    look.listing.running.contains(&(tid, task)).then_some(())?;
    let task = look.task(task)?;
    let thread = look.thread(tid)?;
    let polled = task.kind != TaskKind::Blocking && task.state == Some(TaskState::Running);
    (polled && thread.activity != Activity::Idle && thread.role != ThreadRole::Delouse)
        .then_some((task, thread))
}

fn finding(looks: &[Look], polls: &[Poll<'_>]) -> Option<Finding> {
    let example = polls.iter().min_by_key(|poll| poll.lasted)?;
    let thread = example.thread;
    let mut tasks: Vec<u64> = polls.iter().map(|poll| poll.task.id).collect();
    tasks.sort_unstable();
    // The least: so long at least is true of all of them.
    let lasted = words::span(example.lasted);
    let counted = polls.iter().all(|poll| poll.counted);
    let place = words::own_line(thread);
    let at = place.as_ref().map(|(place, _)| format!(" in {place}")).unwrap_or_default();
    let threads = match polls {
        [_] => format!("its thread {} ({})", thread.tid, thread.name),
        polls => format!("their {} threads", polls.len()),
    };
    let (has, verb) =
        if polls.len() == 1 { ("has", doing(thread.activity)) } else { ("have", each(thread.activity)) };
    let summary = format!(
        "{} {has} not given the thread back for {lasted} or more: {threads} {verb}{at}",
        words::ids(&tasks)
    );
    let mut evidence = vec![format!(
        "{}: the same thread {}",
        words::looked(example.looks, &lasted),
        if counted {
            "inside the same poll each time, and its scheduler took no other task meanwhile"
        } else {
            "polling the same task each time, though not surely in one poll"
        }
    )];
    if let Some((place, Some(called))) = &place {
        evidence.push(format!("{place} called {called}"));
    }
    evidence.extend(words::own_path(thread));
    if let Some(reason) = &thread.unavailable {
        evidence.push(format!("the stack of thread {} could not be had: {reason}", thread.tid));
    }
    if let (Activity::Running, Some(used)) = (thread.activity, example.used) {
        evidence.push(format!("the thread used {} of processor time meanwhile", words::span(used)));
    }
    if example.in_place {
        evidence.push(
            "it is in block_in_place: other tasks go on, but nothing else of this task does".to_owned(),
        );
    }
    let holders = looks.last().map(|last| held_by(last, polls)).unwrap_or_default();
    let remedy = match thread.activity {
        Activity::Lock if !holders.is_empty() => {
            "have the lock let go of sooner, by who is named above; where it must be held for long, use \
             tokio::sync::Mutex"
        }
        activity => remedy(activity),
    };
    evidence.extend(holders);
    evidence.extend(behind(looks, polls));
    Some(Finding {
        kind: FindingKind::BlockedWorker,
        severity: if counted && !example.in_place { Severity::Certain } else { Severity::Suspected },
        summary,
        tasks,
        evidence,
        remedy: Some(remedy.to_owned()),
    })
}

/// Who may have the locks that these threads wait for.
fn held_by(last: &Look, polls: &[Poll<'_>]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut told = HashSet::new();
    for poll in polls.iter().filter(|poll| poll.thread.activity == Activity::Lock).take(MAX_BEHIND) {
        let tid = poll.thread.tid;
        let edges = last.graph.edges.iter();
        let Some(edge) = edges.clone().find(|edge| edge.thread == Some(tid)) else { continue };
        if !told.insert(&edge.resource.id) {
            continue;
        }
        let waiters = edges.filter(|other| other.resource == edge.resource).count();
        let more = if waiters > 1 { format!(", for which {waiters} threads wait") } else { String::new() };
        let lock = format!("{}{more}", edge.resource.id);
        lines.push(match &*edge.holders {
            [] => {
                format!("no other task or thread was found to have {lock}: perhaps this thread itself has it")
            }
            [only] => format!("{lock}: {}", holder(last, only)),
            several => {
                let several: Vec<String> = several.iter().take(4).map(|one| holder(last, one)).collect();
                format!("{lock}: one of these; {}", several.join("; "))
            }
        });
    }
    lines
}

/// ``task 7 has it: `guard` (MutexGuard) in app::f at src/app.rs:9``, `thread 12 (db-pool) may have it, …`.
fn holder(last: &Look, holder: &Holder) -> String {
    let thread = holder.thread.and_then(|tid| last.thread(tid));
    let on = thread.map(|thread| {
        let place = words::own_line(thread).map(|(place, _)| format!(" in {place}")).unwrap_or_default();
        format!("; it {}{place}", doing(thread.activity))
    });
    let on = on.unwrap_or_default();
    match (holder.task, holder.thread) {
        (Some(task), None) => {
            let sure = if holder.certain { "has" } else { "seems to have" };
            let place = holder.place.as_ref().map(|place| format!(" in {place}")).unwrap_or_default();
            format!("{} {sure} it: `{}` ({}){place}", words::ids(&[task]), holder.variable, holder.handle)
        }
        (Some(task), Some(tid)) => {
            format!("thread {tid}, which polls {}, may have it: {}{on}", words::ids(&[task]), holder.handle)
        }
        (None, tid) => {
            let name = thread.map(|thread| format!(" ({})", thread.name)).unwrap_or_default();
            let tid = tid.map(|tid| tid.to_string()).unwrap_or_default();
            format!("thread {tid}{name} may have it: {}{on}", holder.handle)
        }
    }
}

/// What cannot go on meanwhile: woken tasks of the same runtime, and whoever waits for what a blocked task holds.
fn behind(looks: &[Look], polls: &[Poll<'_>]) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(last) = looks.last() else { return lines };
    let runtimes: Vec<_> = polls.iter().map(|poll| &poll.task.runtime).collect();
    let queued: Vec<u64> = super::starved::waiting(looks)
        .filter(|task| runtimes.contains(&&task.runtime))
        .map(|task| task.id)
        .collect();
    if !queued.is_empty() {
        let verb = if queued.len() == 1 { "was woken and waits" } else { "were woken and wait" };
        lines.push(format!("{} {verb} for a worker, each time", words::ids(&queued)));
    }
    for poll in polls {
        if lines.len() > MAX_BEHIND {
            break;
        }
        // A task that waits for a notification itself is not the one that will notify the others.
        let edges = last.graph.edges.iter();
        let own: HashSet<&str> = edges
            .clone()
            .filter(|edge| edge.waiter == Some(poll.task.id))
            .map(|edge| edge.resource.id.as_str())
            .collect();
        // Those that wait for the thread are told above.
        let edges = edges.filter(|edge| edge.resource.kind != ResourceKind::Thread);
        for edge in edges {
            let shares = |holder: &Holder| holder.is_access() && own.contains(edge.resource.id.as_str());
            let held =
                edge.holders.iter().find(|holder| holder.task == Some(poll.task.id) && !shares(holder));
            if let (Some(holder), Some(waiter)) = (held, edge.waiter.filter(|id| *id != poll.task.id)) {
                let (waiter, holds) = (words::name(waiter), words::name(poll.task.id));
                let sure = if holder.certain { "holds" } else { "may hold" };
                lines.push(match edge.resource.kind {
                    ResourceKind::Join => format!("{waiter} waits for the end of {holds}"),
                    _ => format!("{waiter} waits for {}, which {holds} {sure}", edge.resource.id),
                });
            }
        }
    }
    let more = lines.len().saturating_sub(MAX_BEHIND);
    lines.truncate(MAX_BEHIND);
    if more > 0 {
        lines.push(format!("and {more} more wait for what is held"));
    }
    lines
}

/// Lines about those who wait behind.
const MAX_BEHIND: usize = 8;

fn doing(activity: Activity) -> &'static str {
    match activity {
        Activity::Running => "computes",
        Activity::Lock => "waits for a lock that blocks threads (std, parking_lot)",
        Activity::AsyncLock => "waits for an async lock by a blocking call",
        Activity::FileLock => "waits for a lock on a file",
        Activity::Condvar => "waits for a condition variable",
        Activity::Channel => "waits at a channel that blocks threads",
        Activity::Barrier => "waits for other threads at a barrier",
        Activity::Once => "waits for an initialisation by another thread",
        Activity::Pool => "waits for a job of a thread pool",
        Activity::BlockOn => "waits in block_on for another future",
        Activity::Shutdown => "waits for the shutdown of a runtime",
        Activity::Sleep => "sleeps",
        Activity::Join => "waits for another thread to end",
        Activity::Child => "waits for a child process",
        Activity::Park => "is parked",
        Activity::Io => "waits for input or output",
        Activity::Signal => "waits for a signal",
        Activity::Futex | Activity::Syscall => "is in a system call",
        Activity::Idle | Activity::Unknown => "does not come back",
    }
}

/// The same of several.
fn each(activity: Activity) -> &'static str {
    match activity {
        Activity::Running => "compute",
        Activity::Lock => "wait for a lock that blocks threads (std, parking_lot)",
        Activity::AsyncLock => "wait for async locks by a blocking call",
        Activity::FileLock => "wait for a lock on a file",
        Activity::Condvar => "wait for a condition variable",
        Activity::Channel => "wait at a channel that blocks threads",
        Activity::Barrier => "wait for other threads at a barrier",
        Activity::Once => "wait for an initialisation by another thread",
        Activity::Pool => "wait for a job of a thread pool",
        Activity::BlockOn => "wait in block_on for other futures",
        Activity::Shutdown => "wait for the shutdown of a runtime",
        Activity::Sleep => "sleep",
        Activity::Join => "wait for another thread to end",
        Activity::Child => "wait for a child process",
        Activity::Park => "are parked",
        Activity::Io => "wait for input or output",
        Activity::Signal => "wait for a signal",
        Activity::Futex | Activity::Syscall => "are in a system call",
        Activity::Idle | Activity::Unknown => "do not come back",
    }
}

fn remedy(activity: Activity) -> &'static str {
    match activity {
        Activity::Running => {
            "move the computation to tokio::task::spawn_blocking or a thread pool, or let others in with \
             tokio::task::yield_now().await"
        }
        Activity::Lock => {
            "find who holds the lock in /stacktrace/rust; where it is held for long, use tokio::sync::Mutex"
        }
        Activity::Sleep => "use tokio::time::sleep(…).await",
        Activity::Io => "use tokio's own I/O, or tokio::task::spawn_blocking",
        Activity::AsyncLock => "use the lock's async function: .lock().await rather than .blocking_lock()",
        Activity::BlockOn => "use .await rather than block_on, or tokio::task::spawn_blocking",
        Activity::Channel | Activity::Condvar | Activity::Park => {
            "use a channel or tokio::sync::Notify whose wait is an .await, or tokio::task::spawn_blocking"
        }
        _ => "do what blocks in tokio::task::spawn_blocking",
    }
}

#[cfg(test)]
mod tests;
