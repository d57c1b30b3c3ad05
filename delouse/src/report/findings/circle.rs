//! Deadlocks and futurelocks: tasks or threads that wait for one another in a circle.

use std::collections::BTreeSet;

use super::evidence::{adds_permits, awaited, in_time, no_permit, relation};
use super::parts::{at, short, task_waits, waiter};
use super::signals;
use crate::report::format::count;
use crate::tasks::ResourceKind;
use crate::waits::{Doubt, Evidence, Finding, FindingKind, Party, TaskWait};

pub(super) fn summary(finding: &Finding) -> String {
    let until = finding.evidence.iter().find_map(|fact| match fact {
        Evidence::Doubt { why: Doubt::EndsByTimeout { in_ms } } => {
            Some(format!("; only a timeout{} will end it", in_time(*in_ms)))
        }
        Evidence::Doubt { why: Doubt::EndsByConnection } => {
            Some("; only the end of a connection will end it".to_owned())
        }
        _ => None,
    });
    let until = until.unwrap_or_default();
    format!("{}{until}", circle(finding))
}

fn circle(finding: &Finding) -> String {
    if let Some(cause) = signals::cause(finding) {
        return cause;
    }
    let links: Vec<&TaskWait> = task_waits(finding).collect();
    let is_for = |link: &TaskWait, kind| link.resource.kind == kind;
    match links.as_slice() {
        [only] => alone(finding, only),
        [one, other] | [other, one]
            if is_for(one, ResourceKind::Lock) && is_for(other, ResourceKind::Thread) =>
        {
            blocked_by_guard(one, other)
        }
        [one, other] if (one.task, one.thread) == (other.task, other.thread) => format!(
            "{} waits for itself: one branch of its `join!` for {}, another for {}",
            waiter(one),
            one.resource.id,
            other.resource.id
        ),
        [one, other] => format!(
            "{} and {} wait for each other: {} for {}{}, {} for {}{}",
            waiter(one),
            waiter(other),
            short(one),
            awaited(one),
            at(one.place.as_deref()),
            short(other),
            awaited(other),
            at(other.place.as_deref())
        ),
        several => {
            let names: Vec<String> = several.iter().map(|link| short(link)).collect();
            let first = names.first().cloned().unwrap_or_default();
            format!(
                "{} wait for one another in a circle: {} → {first}",
                count(several.len(), "task"),
                names.join(" → ")
            )
        }
    }
}

/// A circle of one task.
fn alone(finding: &Finding, link: &TaskWait) -> String {
    let nothing = Party::default();
    let holder = link.holders.first().unwrap_or(&nothing);
    let waits = format!("{} waits{} for", waiter(link), at(link.place.as_deref()));
    let resource = &link.resource.id;
    let variable = &holder.variable;
    if finding.kind == FindingKind::Futurelock {
        let holds = if holder.certain { "holds" } else { "may hold" };
        // The variable of a stream's own future has no name.
        let name = match (variable.as_str(), &holder.place) {
            ("" | "(awaited)", Some(place)) => format!("`{place}`"),
            _ => format!("`{variable}`"),
        };
        return format!(
            "{waits} {resource}, which a future of its own {holds} that it does not poll: {name}"
        );
    }
    if matches!(link.resource.kind, ResourceKind::Join | ResourceKind::Thread) {
        return format!("{waits} its own end");
    }
    if link.resource.kind == ResourceKind::Lock {
        let guard = if variable.is_empty() {
            "nothing else was found that holds it".to_owned()
        } else {
            let place = holder.place.as_ref().map(|place| format!(" in `{place}`")).unwrap_or_default();
            format!("`{variable}`{place}")
        };
        let holds = if holder.certain { "holds" } else { "seems to hold" };
        let blocks = format!("{} blocks its thread{} for", waiter(link), at(link.place.as_deref()));
        return format!("{blocks} {resource}, which it {holds} itself: {guard}");
    }
    let relation = relation(link, holder);
    let itself = relation.of_itself(holder.certain, finding.tasks.len() == 1);
    let no_permit = if adds_permits(link) { no_permit(link) } else { "" };
    format!("{waits} {resource}, {no_permit}{itself}: `{variable}`")
}

/// A task blocks its thread for a lock, and the task that holds the lock can only continue in this thread.
fn blocked_by_guard(blocked: &TaskWait, suspended: &TaskWait) -> String {
    let nothing = Party::default();
    let Party { variable, place, certain, .. } = blocked.holders.first().unwrap_or(&nothing);
    let holds = if *certain { "holds" } else { "seems to hold" };
    let guard = if variable.is_empty() { String::new() } else { format!(": `{variable}`") };
    let place = place.as_ref().map(|place| format!(" in `{place}`")).unwrap_or_default();
    format!(
        "{} blocks {} for {}, which {} {holds} across an `.await`{guard}{place}, and only that thread could poll it",
        waiter(blocked),
        suspended.resource.id,
        blocked.resource.id,
        waiter(suspended)
    )
}

/// Whether one of the tasks waits in a call that blocks its thread, and not at an `.await`.
fn blocks_thread(finding: &Finding) -> bool {
    finding.evidence.iter().any(|fact| matches!(fact, Evidence::BlocksThread { .. }))
}

/// A task that blocks its thread for a lock that it seems to hold.
fn of_own_lock(links: &[&TaskWait]) -> String {
    let holder = links.iter().find_map(|link| link.holders.first());
    match holder.map(|holder| holder.variable.as_str()).filter(|variable| !variable.is_empty()) {
        Some(variable) => format!(
            "end the scope of `{variable}` before the next `.await`, or use tokio::sync::Mutex: while it lives across \
             one, all else in this task that wants the lock blocks the thread that should continue it"
        ),
        None => "end the guard before the lock is asked for again, also in the functions that are called: neither a \
                 Mutex nor, with a writer between, a RwLock can be locked twice by one thread"
            .to_owned(),
    }
}

/// What would help tasks that hold an object of a pool and wait for another one.
fn pooled(links: &[&TaskWait]) -> String {
    let objects = links.iter().flat_map(|link| &link.holders).filter(|holder| holder.is_pooled());
    let variables: BTreeSet<&str> =
        objects.map(|holder| holder.variable.as_str()).filter(|name| is_variable(name)).collect();
    let variables: Vec<&str> = variables.into_iter().take(3).collect();
    let pass_on = "do not wait for an object of a pool while holding one: pass on the one that is there";
    match variables.as_slice() {
        [] => pass_on.to_owned(),
        variables => format!("{pass_on}, or drop `{}` before this `.await`", variables.join("`, `")),
    }
}

/// Whether a program can name it: what is awaited and the fields of tuples have no names.
fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

pub(super) fn remedy(finding: &Finding) -> Option<String> {
    if finding.kind == FindingKind::Futurelock {
        return Some(
            "let that future run to its end, or drop it, before awaiting anything that it may hold"
                .to_owned(),
        );
    }
    let links: Vec<&TaskWait> = task_waits(finding).collect();
    let kinds: BTreeSet<ResourceKind> = links.iter().map(|link| link.resource.kind).collect();
    let locks = kinds.iter().all(|kind| kind.is_lock());
    let has = |kind| kinds.contains(&kind);
    let holders = || links.iter().flat_map(|link| &link.holders);
    let remedy = match () {
        () if holders().any(Party::is_pooled) => return Some(pooled(&links)),
        () if links.len() == 1 && has(ResourceKind::Lock) => return Some(of_own_lock(&links)),
        () if has(ResourceKind::Thread) && has(ResourceKind::Lock) => {
            "a guard of a lock that blocks threads must not live across an `.await`: drop it before, or use tokio::sync::Mutex"
        }
        () if links.iter().any(|link| adds_permits(link)) => {
            "look for an `add_permits` that is not reached, or for a permit that was given to `forget()`"
        }
        () if locks && links.len() > 1 => {
            "take these locks in the same order everywhere, or release one before waiting for the next"
        }
        () if has(ResourceKind::OnceCell) => {
            "what makes the value of a OnceCell must not wait for that value"
        }
        () if has(ResourceKind::Barrier) || signals::cause(finding).is_some() => {
            return signals::remedy(finding);
        }
        () if has(ResourceKind::Join) => {
            "one of them must not wait for the other's end: abort it, or release what it waits for first"
        }
        () if has(ResourceKind::ChannelSend) => {
            "a circle of bounded channels needs one place that does not wait: `try_send`, or a task of its own that sends"
        }
        () if has(ResourceKind::Connection) => {
            "one end must send, flush or close what the other waits for, before it waits itself; what writes much must read meanwhile"
        }
        () if signals::remedy(finding).is_some() => return signals::remedy(finding),
        () if holders().any(|holder| holder.handle.ends_with("Sender")) => {
            "something that does not wait itself must send, or all senders must be dropped before this `.await`"
        }
        () => {
            let known = holders().filter(|holder| !holder.handle.is_empty());
            let variables = known.map(|holder| holder.variable.as_str()).filter(|name| is_variable(name));
            let variables: BTreeSet<&str> = variables.collect();
            let variables: Vec<&str> = variables.into_iter().take(3).collect();
            return match variables.as_slice() {
                [] => None,
                _ if has(ResourceKind::Lock) => {
                    Some("release one lock before waiting for the next".to_owned())
                }
                variables if blocks_thread(finding) => Some(format!(
                    "release `{}` before this call, or give what it guards to the functions that are called",
                    variables.join("`, `")
                )),
                variables => Some(format!("drop `{}` before this `.await`", variables.join("`, `"))),
            };
        }
    };
    Some(remedy.to_owned())
}
