//! What a program that is to end still has: the tasks that its main future waits for, directly or through others, then the
//! rest.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write as _;

use super::diagnosis::{whereabouts, wrapped};
use super::format::{self, count};
use super::wait_text;
use crate::tasks::{Task, TaskState};
use crate::threads::{Activity, ThreadRole};
use crate::waits::sample::Sample;
use crate::waits::{Edge, Graceful, TaskIds, graceful_shutdowns, location};

/// The most tasks that are listed of either kind.
const MOST: usize = 24;

/// As text for people.
pub(crate) fn unfinished(last: &Sample) -> String {
    let mut out = String::new();
    let tasks = &last.listing.tasks;
    let left = |task: &&Task| task.state != Some(TaskState::Complete);
    let graceful = graceful_shutdowns(last);
    let awaited = awaited(last, &graceful);
    let is_awaited: HashSet<u64> = awaited.iter().map(|task| task.id).collect();
    let rest: Vec<&Task> = tasks.iter().filter(left).filter(|task| !is_awaited.contains(&task.id)).collect();
    let drops = |activity| activity == Activity::Shutdown;
    let is_dropped =
        last.threads.iter().any(|thread| thread.role != ThreadRole::Delouse && drops(thread.activity));
    if is_dropped {
        out.push_str("A runtime is being dropped: it waits until its threads return from what they run.\n");
    }
    if !awaited.is_empty() {
        out.push_str("What the main future waits for\n");
        lines(&mut out, &awaited, last, &graceful);
    }
    if !rest.is_empty() {
        out.push_str(if awaited.is_empty() {
            "Tasks that are left\n"
        } else {
            "Other tasks that are left\n"
        });
        lines(&mut out, &rest, last, &graceful);
    }
    if out.is_empty() {
        out.push_str("No task is left.\n");
    }
    out
}

/// The main futures, what they wait for, what that waits for, and so on; the nearest first.
fn awaited<'s>(last: &'s Sample, graceful: &[Graceful]) -> Vec<&'s Task> {
    let mut by_waiter: HashMap<u64, Vec<&Edge>> = HashMap::new();
    for edge in &last.graph.edges {
        by_waiter.entry(edge.waiter.unwrap_or(u64::MAX)).or_default().push(edge);
    }
    let mut tasks: Vec<&Task> = last.listing.tasks.iter().take_while(|task| task.id == 0).collect();
    let mut seen = HashSet::from([0]);
    let mut queue: VecDeque<u64> = tasks.first().map(|main| main.id).into_iter().collect();
    while let Some(id) = queue.pop_front() {
        let edges = by_waiter.get(&id).into_iter().flatten();
        let holders = edges.flat_map(|edge| edge.holders.iter()).filter_map(|holder| holder.task);
        let tracked = graceful.iter().filter(|of| of.waiter == id).flat_map(|of| of.tasks.iter().copied());
        for next in holders.chain(tracked) {
            if seen.insert(next)
                && let Some(task) = last.task(next)
            {
                tasks.push(task);
                queue.push_back(next);
            }
        }
    }
    tasks
}

fn lines(out: &mut String, tasks: &[&Task], last: &Sample, graceful: &[Graceful]) {
    for task in tasks.iter().take(MOST) {
        wrapped(out, "  - ", &line(task, last, graceful));
    }
    if tasks.len() > MOST {
        let _infallible = writeln!(out, "  and {} more", count(tasks.len() - MOST, "task"));
    }
}

/// `task 7, in app::ask at src/main.rs:9: waits for a message`.
fn line(task: &Task, last: &Sample, graceful: &[Graceful]) -> String {
    let mut text = whereabouts(task, last);
    let thread = last.listing.running.iter().find(|(_, id)| *id == task.id && task.id != 0);
    if let Some(thread) = thread.and_then(|(tid, _)| last.thread(*tid)) {
        let _infallible = write!(text, ", on thread {}", thread.tid);
        if let Some((place, called)) = location::own_line(thread) {
            let _infallible = write!(text, " in {place}");
            let _infallible = called.map_or(Ok(()), |called| write!(text, ", in a call of {called}"));
        } else if let Some(called) = location::called(thread) {
            // tokio's own call for the program, such as a read of stdin.
            let _infallible = write!(text, " in {called}");
        }
        return text;
    }
    if let Some(of) = graceful.iter().find(|of| of.waiter == task.id) {
        let _infallible =
            write!(text, ": {} waits for {}", of.name, format::tasks(&TaskIds::of(of.tasks.iter().copied())));
    } else if !task.waits_on.is_empty() && task.state != Some(TaskState::Running) {
        let waits: Vec<String> = task.waits_on.iter().take(3).map(wait_text::noun).collect();
        let _infallible = write!(text, ": waits for {}", waits.join(" or for "));
    }
    text
}
