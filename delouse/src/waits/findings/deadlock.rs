//! Deadlocks and futurelocks: circles of tasks that wait for one another.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::Judge;
use super::sentences::{ids, name_first, relation};
use crate::tasks::ResourceKind;
use crate::waits::handles::Roles;
use crate::waits::holders::Account;
use crate::waits::islands::Island;
use crate::waits::resources::{Wait, Waker, is_lock};
use crate::waits::words::{count, name, short};
use crate::waits::{Finding, FindingKind, Holder, Severity};

/// One task of a circle, with what it waits for.
struct Link {
    task: u64,
    place: Option<Arc<str>>,
    wait: Wait,
    resource: String,
    /// The next task of the circle, as the holder of that.
    holder: Holder,
    /// The variables of every task were read.
    all_read: bool,
}

impl Judge<'_, '_, '_, '_, '_> {
    pub(super) fn deadlock(&mut self, island: &Island) -> Finding {
        let circle = self.graph.circle(island);
        let links = self.links(&circle);
        let unpolled = self.is_unpolled(&circle);
        let kind = if unpolled { FindingKind::Futurelock } else { FindingKind::Deadlock };
        let mut evidence: Vec<String> = links.iter().map(sentence).collect();
        let gaps = self.gaps(&links);
        if unpolled {
            evidence.push("the future that has it is suspended, and its task polls another one".to_owned());
        }
        let parts = island.vertices.iter().copied().filter(|vertex| self.graph.is_part(*vertex));
        let parts = self.ids(parts.filter_map(|vertex| self.graph.task(vertex)));
        if !parts.is_empty() {
            let are = if parts.len() == 1 { "is" } else { "are" };
            evidence.push(format!(
                "{} {are} stuck in a branch of a `join!` only, while its other branches go on: {}",
                count(parts.len(), "task"),
                ids(&parts)
            ));
        }
        let members = self.ids(island.vertices.iter().filter_map(|vertex| self.graph.task(*vertex)));
        if members.len() > links.len() {
            evidence.push(format!(
                "{} wait for one another in this way: {}",
                count(members.len(), "task"),
                ids(&members)
            ));
        }
        self.behind(island, &mut evidence);
        let severity = if gaps.is_empty() { Severity::Certain } else { Severity::Suspected };
        evidence.extend(gaps);
        let mut tasks = members;
        tasks.extend(self.ids(island.behind.iter().copied()));
        let mut seen = HashSet::new();
        let mut in_order: Vec<u64> = links.iter().map(|link| link.task).collect();
        in_order.extend(tasks);
        in_order.retain(|task| seen.insert(*task));
        Finding {
            kind,
            severity,
            summary: summary(kind, &links, in_order.len() == 1),
            tasks: in_order,
            evidence,
            remedy: remedy(kind, &links),
        }
    }

    /// The tasks of a circle, each with the wait that leads to the next.
    fn links(&mut self, circle: &[u32]) -> Vec<Link> {
        let mut links = Vec::new();
        let tasks: Vec<usize> = (0..circle.len())
            .filter(|at| circle.get(*at).is_some_and(|v| self.graph.task(*v).is_some()))
            .collect();
        for (index, at) in tasks.iter().enumerate() {
            let vertex = |at: usize| circle.get(at % circle.len().max(1)).copied();
            let task = vertex(*at).and_then(|vertex| self.graph.task(vertex));
            let next_at = tasks.get((index + 1) % tasks.len().max(1)).copied().unwrap_or(*at);
            let next = vertex(next_at).and_then(|vertex| self.graph.task(vertex));
            let first = vertex(at + 1).and_then(|vertex| self.graph.wait(vertex));
            let (Some(task), Some(next), Some(first)) = (task, next, first) else { continue };
            let same = |wait: &&Wait| wait.resource == first.resource && wait.kind == first.kind;
            let own = vertex(*at).into_iter().flat_map(|vertex| self.graph.waits_of(vertex));
            let Some(wait) = own.chain(self.teller.waits.for_thread(task)).find(same) else { continue };
            let edge = self.teller.edge(wait);
            let next = self.teller.id(next);
            let holder = edge.holders.iter().find(|holder| holder.task == Some(next)).cloned();
            links.push(Link {
                task: self.teller.id(task),
                place: edge.place,
                wait: wait.clone(),
                resource: edge.resource.id.clone(),
                holder: holder.unwrap_or_else(|| Holder { task: Some(next), ..Holder::default() }),
                all_read: self.gaps.is_empty(),
            });
        }
        links
    }

    /// Whether the circle closes through a future that is not polled.
    fn is_unpolled(&self, circle: &[u32]) -> bool {
        let pairs = circle.iter().zip(circle.iter().cycle().skip(1));
        let mut arcs = pairs.filter_map(|(from, to)| {
            // Where there are several ways, one that is polled is one too.
            let between = self.graph.leads(*from).iter().filter(|arc| arc.to == *to);
            between.map(|arc| arc.unpolled).reduce(|all, one| all && one)
        });
        arcs.any(|unpolled| unpolled)
    }

    /// What keeps a circle from being certain.
    fn gaps(&mut self, links: &[Link]) -> Vec<String> {
        let mut gaps = Vec::new();
        for link in links {
            let Link { wait, resource, holder, .. } = link;
            match self.teller.account(wait) {
                Account::Exact if self.graph.holders.is_proven(wait) => {}
                Account::Exact => gaps.push(format!(
                    "not certain: `{}` may have been dropped or moved before, and others can get at {resource}",
                    holder.variable
                )),
                Account::TooMany => gaps.push(format!(
                    "not certain: more handles of {resource} lie in variables than there are; one that was dropped or moved may still be listed"
                )),
                Account::Missing => {
                    gaps.push(format!("not certain: others may hold {resource}, outside of all tasks"));
                }
                Account::Unknown => {
                    let free = self.living(wait.resource, Roles::ACCESS);
                    if wait.kind == ResourceKind::Lock {
                        gaps.push(format!(
                            "not certain: who has {resource} is concluded from where its address stands"
                        ));
                    } else if let Some(free) = free {
                        gaps.push(format!("not certain: {free} can get at {resource}, and could add permits"));
                    }
                }
            }
            let certain = holder.certain || matches!(wait.by, Waker::Task(_));
            if !certain && self.teller.account(wait) == Account::Exact {
                gaps.push(format!(
                    "not certain: something in the same function as `{}` was moved or dropped, perhaps this",
                    holder.variable
                ));
            }
            if matches!(wait.kind, ResourceKind::Mutex | ResourceKind::Rwlock)
                && let Some(id) = self.graph.holders.running(wait.resource).map(|task| self.teller.id(task))
            {
                gaps.push(format!("not certain: {} runs right now, and could hold {resource}", name(id)));
            }
        }
        gaps.sort();
        gaps.dedup();
        gaps
    }
}

/// `task 4 waits at `app::a at app.rs:7` for mutex-1, which task 7 holds: `guard` (MutexGuard) in …`.
fn sentence(link: &Link) -> String {
    let place = link.place.as_ref().map(|place| format!(" at `{place}`")).unwrap_or_default();
    let of = match link.wait.by {
        Waker::Task(_) if link.wait.kind == ResourceKind::Thread => {
            format!(
                ", which alone could poll it and which {} blocks",
                name(link.holder.task.unwrap_or_default())
            )
        }
        Waker::Task(_) => " to end".to_owned(),
        _ if adds_permits(link) => {
            format!(", {}, and {}", no_permit(link), relation(link.wait.kind, &link.holder))
        }
        _ => format!(", {}", relation(link.wait.kind, &link.holder)),
    };
    format!("{} waits{place} for {}{of}", name(link.task), link.resource)
}

fn summary(kind: FindingKind, links: &[Link], alone: bool) -> String {
    let first = links.first();
    let place =
        first.and_then(|link| link.place.as_ref()).map(|place| format!(" at `{place}`")).unwrap_or_default();
    let resource = first.map_or("?", |link| link.resource.as_str());
    match links {
        [only] if kind == FindingKind::Futurelock => format!(
            "{} waits{place} for {resource}, which a future of its own {} that it does not poll: `{}`",
            name_first(only.task),
            if only.holder.certain { "has" } else { "may have" },
            only.holder.variable
        ),
        [only] if matches!(only.wait.by, Waker::Task(_)) => {
            format!("{} waits{place} for its own end", name_first(only.task))
        }
        [only] => {
            format!("{} waits{place} for {resource}, {}", name_first(only.task), of_itself(only, alone))
        }
        [one, other] if is_for(one, ResourceKind::Lock) && is_for(other, ResourceKind::Thread) => {
            blocked_by_guard(one, other)
        }
        [other, one] if is_for(one, ResourceKind::Lock) && is_for(other, ResourceKind::Thread) => {
            blocked_by_guard(one, other)
        }
        [one, other] if one.task == other.task => format!(
            "{} waits for itself: one branch of its `join!` for {}, another for {}",
            name_first(one.task),
            one.resource,
            other.resource
        ),
        [one, other] => {
            let at = |link: &Link| link.place.as_ref().map(|p| format!(" at `{p}`")).unwrap_or_default();
            format!(
                "{} and {} wait for each other: {} for {}{}, {} for {}{}",
                name(one.task),
                name(other.task),
                short(one.task),
                one.resource,
                at(one),
                short(other.task),
                other.resource,
                at(other)
            )
        }
        several => {
            let circle: Vec<String> = several.iter().map(|link| short(link.task)).collect();
            let again = circle.first().cloned().unwrap_or_default();
            format!(
                "{} wait for one another in a circle: {} → {again}",
                count(several.len(), "task"),
                circle.join(" → ")
            )
        }
    }
}

/// What a task has itself of what it waits for; `alone`: no other task is in the same trouble.
fn of_itself(link: &Link, alone: bool) -> String {
    let Link { wait, holder, .. } = link;
    let only = if alone { "only it itself" } else { "only tasks that wait, too," };
    let variable = &holder.variable;
    match wait.kind {
        ResourceKind::Semaphore if holder.is_access() => {
            format!("{}, and {only} could add one: `{variable}`", no_permit(link))
        }
        ResourceKind::Notify => format!("which {only} could notify: `{variable}`"),
        ResourceKind::Barrier => format!("at which {only} could arrive: `{variable}`"),
        ResourceKind::SetOnce => format!("which {only} could set: `{variable}`"),
        ResourceKind::Cancellation => format!("which {only} could cancel: `{variable}`"),
        _ if holder.handle.ends_with("Sender") => format!("to which {only} could send: `{variable}`"),
        ResourceKind::ChannelSend => format!("whose receiver it has itself: `{variable}`"),
        _ if holder.certain => format!("which it has itself: `{variable}`"),
        _ => format!("which it may have itself: `{variable}`"),
    }
}

/// That no handle with a permit was found says that there is none only where every task was read.
fn no_permit(link: &Link) -> &'static str {
    if link.all_read { "of which no task has a permit" } else { "of which no permit was found" }
}

/// Whether the holder has no permit of the semaphore, but the semaphore itself.
fn adds_permits(link: &Link) -> bool {
    is_for(link, ResourceKind::Semaphore) && link.holder.is_access()
}

fn is_for(link: &Link, kind: ResourceKind) -> bool {
    link.wait.kind == kind
}

/// A task blocks its thread for a lock, and who has that can only go on in this thread.
fn blocked_by_guard(blocked: &Link, suspended: &Link) -> String {
    let Holder { variable, place, certain, .. } = &blocked.holder;
    let has = if *certain { "has" } else { "seems to have" };
    let guard = if variable.is_empty() { String::new() } else { format!(": `{variable}`") };
    let place = place.as_ref().map(|place| format!(" in `{place}`")).unwrap_or_default();
    format!(
        "{} blocks {} for {}, which {} {has} across an `.await`{guard}{place}, and only that thread could poll it",
        name_first(blocked.task),
        suspended.resource,
        blocked.resource,
        name(suspended.task)
    )
}

fn remedy(kind: FindingKind, links: &[Link]) -> Option<String> {
    let kinds: BTreeSet<ResourceKind> = links.iter().map(|link| link.wait.kind).collect();
    let locks = kinds.iter().all(|kind| is_lock(*kind));
    let variables: BTreeSet<&str> =
        links.iter().map(|link| link.holder.variable.as_str()).filter(|name| !name.is_empty()).collect();
    let variables: Vec<&str> = variables.into_iter().take(3).collect();
    Some(match kind {
        FindingKind::Futurelock => {
            "let that future run to its end, or drop it, before awaiting anything that it may hold".to_owned()
        }
        _ if kinds.contains(&ResourceKind::Thread) && kinds.contains(&ResourceKind::Lock) => {
            "a guard of a lock that blocks threads must not live across an `.await`: drop it before, or use tokio::sync::Mutex".to_owned()
        }
        _ if links.iter().any(adds_permits) => {
            "look for an `add_permits` that is not reached, or for a permit that was given to `forget()`".to_owned()
        }
        _ if locks && links.len() > 1 => "take these locks in the same order everywhere, or let go of one before waiting for the next".to_owned(),
        _ if kinds.contains(&ResourceKind::Barrier) => {
            "as many tasks must come to the barrier as it was made for: look for one that has ended".to_owned()
        }
        _ if kinds.contains(&ResourceKind::Join) => "one of them must not wait for the other's end: abort it, or let go first".to_owned(),
        _ if kinds.contains(&ResourceKind::ChannelSend) => {
            "a circle of bounded channels needs one place that does not wait: `try_send`, or a task of its own that sends".to_owned()
        }
        _ if kinds.contains(&ResourceKind::SetOnce) => "something else must call `set`".to_owned(),
        _ if kinds.contains(&ResourceKind::Cancellation) => "something else must call `cancel`".to_owned(),
        _ if kinds.contains(&ResourceKind::Notify) => {
            "something else must call `notify_one`, or `notify_waiters` after this wait has begun".to_owned()
        }
        _ if links.iter().any(|link| link.holder.handle.ends_with("Sender")) => {
            "something that does not wait itself must send, or all senders must be dropped before this `.await`".to_owned()
        }
        _ => match variables.as_slice() {
            [] => return None,
            _ if kinds.contains(&ResourceKind::Lock) => "let go of one lock before waiting for the next".to_owned(),
            variables => format!("drop `{}` before this `.await`", variables.join("`, `")),
        },
    })
}
