//! What follows from the graph of stuck tasks: deadlocks, futurelocks, leaked tasks, tasks that nothing
//! wakes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::edges::Teller;
use super::handles::Roles;
use super::holders::Account;
use super::islands::{Graph, Island};
use super::liveness::{self, Liveness};
use super::ownership::Node;
use super::remains::Remains;
use super::resources::{Wait, Waker, is_lock};
use super::{Finding, FindingKind, Holder, Severity};
use crate::tasks::{Frame, ResourceKind, Task};

/// Tasks that are told by their ids in a sentence.
const MAX_IDS: usize = 8;
/// Sentences of one pattern.
const MAX_LINES: usize = 12;

/// All findings, worst first.
pub(super) fn findings(
    graph: &Graph<'_>,
    islands: Vec<Island>,
    liveness: &Liveness,
    remains: &Remains,
    teller: &mut Teller<'_, '_, '_, '_>,
) -> Vec<Finding> {
    let mut judge = Judge { graph, liveness, remains, teller };
    let mut findings = Vec::new();
    let mut leaks: BTreeMap<Vec<String>, Vec<Island>> = BTreeMap::new();
    let mut ends: BTreeMap<String, Vec<Island>> = BTreeMap::new();
    for island in islands {
        let mut waits = island.vertices.iter().filter_map(|vertex| graph.wait(*vertex));
        if let [only] = island.vertices.as_slice()
            && let Some(task) = graph.task(*only)
        {
            if judge.is_worth_telling(&island, task) {
                ends.entry(judge.pattern(task)).or_default().push(island);
            }
        } else if waits.any(|wait| blocks(wait.kind) && graph.holders.roles_of(wait) != Roles::ACCESS) {
            findings.push(judge.deadlock(&island));
        } else {
            let tasks = island.vertices.iter().filter_map(|vertex| graph.task(*vertex));
            let mut patterns: Vec<String> = tasks.map(|task| judge.pattern(task)).collect();
            patterns.sort();
            patterns.dedup();
            leaks.entry(patterns).or_default().push(island);
        }
    }
    findings.extend(leaks.into_values().map(|islands| judge.leak(&islands)));
    findings.extend(ends.into_values().map(|islands| judge.unwakeable(&islands)));
    findings.sort_by_key(|finding| (finding.severity == Severity::Suspected, finding.kind));
    findings
}

/// Whether a wait of that kind ends when somebody lets go, rather than when somebody has something to say.
fn blocks(kind: ResourceKind) -> bool {
    is_lock(kind) || matches!(kind, ResourceKind::Join | ResourceKind::ChannelSend | ResourceKind::Thread)
}

struct Judge<'j, 't, 'e, 'p, 'i> {
    graph: &'j Graph<'j>,
    liveness: &'j Liveness,
    remains: &'j Remains,
    teller: &'j mut Teller<'t, 'e, 'p, 'i>,
}

/// One task of a circle, with what it waits for.
struct Link {
    task: u64,
    place: Option<Arc<str>>,
    wait: Wait,
    resource: String,
    /// The next task of the circle, as the holder of that.
    holder: Holder,
}

impl Judge<'_, '_, '_, '_, '_> {
    fn task(&self, number: u32) -> Option<&Task> {
        self.teller.examination.listing.tasks.get(number as usize)
    }

    fn deadlock(&mut self, island: &Island) -> Finding {
        let circle = self.graph.circle(island);
        let links = self.links(&circle);
        let unpolled = self.is_unpolled(&circle);
        let kind = if unpolled { FindingKind::Futurelock } else { FindingKind::Deadlock };
        let mut evidence: Vec<String> = links.iter().map(sentence).collect();
        let gaps = self.gaps(&links);
        if unpolled {
            evidence.push("the future that has it is suspended, and its task polls another one".to_owned());
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
            summary: summary(kind, &links),
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
            let waits = self.teller.waits;
            let all = waits.of_task(task).iter().chain(waits.for_thread(task));
            let Some(wait) = all.into_iter().find(same) else { continue };
            let edge = self.teller.edge(wait);
            let next = self.teller.id(next);
            let holder = edge.holders.iter().find(|holder| holder.task == Some(next)).cloned();
            links.push(Link {
                task: self.teller.id(task),
                place: edge.place,
                wait: wait.clone(),
                resource: edge.resource.id.clone(),
                holder: holder.unwrap_or_else(|| Holder { task: Some(next), ..Holder::default() }),
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
                gaps.push(format!("not certain: task {id} runs right now, and could hold {resource}"));
            }
        }
        gaps.sort();
        gaps.dedup();
        gaps
    }

    /// Somebody alive that has a handle of a resource, as words.
    fn living(&self, resource: u64, roles: Roles) -> Option<String> {
        let of = self.graph.holders.of_resource(resource, roles);
        let alive = of.map(|holding| holding.owner).find(|owner| self.liveness.is_alive(*owner))?;
        Some(match alive {
            Node::Task(task) => format!("task {}", self.teller.id(task)),
            Node::Object(_) => "somebody outside of these tasks".to_owned(),
            Node::Statics => "a static".to_owned(),
        })
    }

    fn behind(&self, island: &Island, evidence: &mut Vec<String>) {
        if !island.behind.is_empty() {
            let behind = self.ids(island.behind.iter().copied());
            evidence.push(format!("{} more behind them: {}", count_waiting(behind.len()), ids(&behind)));
        }
    }

    fn ids(&self, tasks: impl Iterator<Item = u32>) -> Vec<u64> {
        let mut ids: Vec<u64> = tasks.map(|task| self.teller.id(task)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Where a task waits, and for what: tasks with the same pattern are told together.
    fn pattern(&self, task: u32) -> String {
        let waits = self.teller.waits.of_task(task);
        let mut parts: Vec<String> = waits
            .iter()
            .map(|wait| {
                let place = self.teller.place(wait).unwrap_or_else(|| "?".into());
                format!("`{place}` waits for {}", a(wait.kind))
            })
            .collect();
        parts.dedup();
        match parts.len() {
            0 => "?".to_owned(),
            _ => parts.join(", or "),
        }
    }

    fn leak(&mut self, islands: &[Island]) -> Finding {
        let members = |island: &Island| -> Vec<u32> {
            island.vertices.iter().filter_map(|vertex| self.graph.task(*vertex)).collect()
        };
        let all: Vec<u32> = islands.iter().flat_map(members).collect();
        let behind: Vec<u32> = islands.iter().flat_map(|island| island.behind.iter().copied()).collect();
        let tasks = self.ids(all.iter().copied().chain(behind.iter().copied()));
        let first = islands.iter().min_by_key(|island| island.vertices.len());
        let mut evidence = Vec::new();
        let mut told = HashSet::new();
        for task in first.map(members).unwrap_or_default() {
            let pattern = self.pattern(task);
            if evidence.len() < MAX_LINES && told.insert(pattern) {
                evidence.extend(self.leaked(task));
            }
        }
        let alike: BTreeMap<usize, usize> = islands.iter().fold(BTreeMap::new(), |mut sizes, island| {
            *sizes.entry(members(island).len()).or_default() += 1;
            sizes
        });
        let sizes: Vec<String> = alike
            .iter()
            .map(|(size, groups)| match groups {
                1 => format!("one group of {size}"),
                groups => format!("{groups} groups of {size}"),
            })
            .collect();
        if islands.len() > 1 {
            evidence.push(format!("{} like this", sizes.join(", ")));
        }
        evidence.push("all references to what they share are their own: the counters agree".to_owned());
        if !behind.is_empty() {
            let ids_behind = self.ids(behind.iter().copied());
            evidence.push(format!(
                "{} more behind them: {}",
                count_waiting(ids_behind.len()),
                ids(&ids_behind)
            ));
        }
        let gaps = self.leak_gaps(islands, &all);
        let severity = if gaps.is_empty() { Severity::Certain } else { Severity::Suspected };
        if !gaps.is_empty() {
            evidence.retain(|line| !line.starts_with("all references"));
        }
        evidence.extend(gaps);
        let places: BTreeSet<String> =
            first.map(members).unwrap_or_default().into_iter().map(|task| self.pattern(task)).collect();
        let places: Vec<String> = places.into_iter().take(3).collect();
        let kinds: BTreeSet<ResourceKind> = islands
            .iter()
            .flat_map(|island| &island.vertices)
            .filter_map(|vertex| self.graph.wait(*vertex))
            .map(|wait| wait.kind)
            .collect();
        let leaked = match all.as_slice() {
            [_] => "A task keeps itself alive, and nothing else can wake it".to_owned(),
            all => {
                format!("{} keep one another alive, and nothing else can wake them", count(all.len(), "task"))
            }
        };
        Finding {
            kind: FindingKind::LeakedTasks,
            severity,
            summary: format!("{leaked}: {}", places.join("; ")),
            tasks,
            evidence,
            remedy: Some(leak_remedy(&kinds).to_owned()),
        }
    }

    /// What a leaked task waits for, and who could end that.
    fn leaked(&mut self, task: u32) -> Vec<String> {
        let waits = self.teller.waits;
        let mut lines = Vec::new();
        for wait in waits.of_task(task).iter().take(4) {
            let edge = self.teller.edge(wait);
            let place = edge.place.map(|place| format!(" at `{place}`")).unwrap_or_default();
            let holders: Vec<String> = edge.holders.iter().take(4).map(holder).collect();
            lines.push(format!(
                "task {} waits{place} for {}, which only {} can wake",
                self.teller.id(task),
                edge.resource.id,
                holders.join(" and ")
            ));
        }
        lines
    }

    fn leak_gaps(&self, islands: &[Island], tasks: &[u32]) -> Vec<String> {
        let mut gaps = Vec::new();
        let held: Vec<u32> = tasks.iter().copied().filter(|task| self.may_be_ended(*task)).collect();
        if !held.is_empty() {
            let held = self.ids(held.into_iter());
            gaps.push(format!(
                "not certain: somebody has a `JoinHandle` or `AbortHandle` of {}, and could end it",
                ids(&held)
            ));
        }
        let objects = self.graph.objects(islands);
        if objects.iter().any(|object| self.remains.doubtful.contains(object)) {
            gaps.push(
                "not certain: the address of what they share stands elsewhere on the heap, too; that may be what is left of a handle, or one that was not found"
                    .to_owned(),
            );
        }
        if objects.iter().any(|object| self.graph.holders.account_of_object(*object) != Account::Exact) {
            gaps.push("not certain: more references lie in variables than there are; one that was dropped or moved may still be listed".to_owned());
        }
        gaps
    }

    /// Whether somebody else can still end a task.
    fn may_be_ended(&self, task: u32) -> bool {
        let Some(place) = self.teller.examination.places.get(task as usize) else { return true };
        let Some(header) = place.header else { return false };
        let holders = self.graph.holders;
        let stuck =
            |roles| holders.of_resource(header, roles).filter(|h| !self.liveness.is_alive(h.owner)).count();
        let found = holders.of_resource(header, Roles::ABORT).count();
        liveness::has_join_handle(place) && stuck(Roles::JOIN) == 0 || stuck(Roles::ABORT) < found
    }

    /// Whether a task that nothing wakes is news: `pending()` is written on purpose, and no trouble unless
    /// others wait for what such a task has.
    fn is_worth_telling(&self, island: &Island, number: u32) -> bool {
        let on_purpose = self.task(number).is_some_and(|task| {
            leaves(&task.stack).iter().all(|frame| frame.function.contains("::pending::Pending<"))
        });
        let blocked = island
            .behind
            .iter()
            .any(|task| self.teller.waits.of_task(*task).iter().any(|wait| wait.kind != ResourceKind::Join));
        !on_purpose || blocked
    }

    fn unwakeable(&mut self, islands: &[Island]) -> Finding {
        let numbers: Vec<u32> = islands
            .iter()
            .flat_map(|island| &island.vertices)
            .filter_map(|vertex| self.graph.task(*vertex))
            .collect();
        let of = self.ids(numbers.iter().copied());
        let first = numbers.first().and_then(|number| self.task(*number));
        let stack = first.map(|task| leaves(&task.stack)).unwrap_or_default();
        let leaf = stack.first().map(|frame| format!("`{}`", frame.function));
        let waits = numbers.first().map(|number| self.teller.waits.of_task(*number)).unwrap_or_default();
        let place = waits.first().and_then(|wait| self.teller.place(wait));
        let place = place.map(|place| format!(" at `{place}`")).unwrap_or_default();
        let mut evidence = vec![
            "idle, and no reference to it is a waker: the scheduler's list and handles account for all"
                .to_owned(),
        ];
        let mut behind = Vec::new();
        for island in islands {
            behind.extend(self.ids(island.behind.iter().copied()));
        }
        if !behind.is_empty() {
            evidence.push(format!("{} for what it has: {}", count_waiting(behind.len()), ids(&behind)));
        }
        let joined = numbers.iter().filter_map(|number| self.teller.examination.places.get(*number as usize));
        if joined.clone().any(liveness::has_join_handle) {
            evidence.push("somebody has its `JoinHandle`, and could still abort it".to_owned());
        }
        let who = match of.as_slice() {
            [only] => format!("Task {only} can never be woken"),
            several => format!("{} can never be woken", count(several.len(), "task")),
        };
        let awaits = leaf.map(|leaf| format!(": {leaf} kept no waker")).unwrap_or_default();
        let mut tasks = of;
        tasks.extend(behind);
        Finding {
            kind: FindingKind::UnwakeableTask,
            severity: Severity::Certain,
            summary: format!("{who}{place}{awaits}"),
            tasks,
            evidence,
            remedy: Some(
                "a future that returns `Pending` must keep a clone of the waker of that call, and wake it"
                    .to_owned(),
            ),
        }
    }
}

/// The innermost frames. The depth is bounded by the walk's.
fn leaves(frames: &[Frame]) -> Vec<&Frame> {
    frames
        .iter()
        .flat_map(|frame| if frame.children.is_empty() { vec![frame] } else { leaves(&frame.children) })
        .collect()
}

/// `task 4 waits at `app::a at app.rs:7` for mutex-1, which task 7 holds: `guard` (MutexGuard) in …`.
fn sentence(link: &Link) -> String {
    let place = link.place.as_ref().map(|place| format!(" at `{place}`")).unwrap_or_default();
    let of = match link.wait.by {
        Waker::Task(_) if link.wait.kind == ResourceKind::Thread => {
            format!(
                ", which alone could poll it and which task {} blocks",
                link.holder.task.unwrap_or_default()
            )
        }
        Waker::Task(_) => " to end".to_owned(),
        _ => {
            let doubt = is_for(link, ResourceKind::Lock) && !link.holder.certain;
            format!(", which {} {}", holder(&link.holder), if doubt { "may have" } else { "has" })
        }
    };
    format!("task {} waits{place} for {}{of}", link.task, link.resource)
}

/// ``task 7 (`guard`, a MutexGuard, in `app::b at app.rs:9`)``.
fn holder(holder: &Holder) -> String {
    let id = holder.task.map_or_else(|| "?".to_owned(), |id| id.to_string());
    if holder.variable.is_empty() && holder.place.is_none() {
        return format!("task {id}");
    }
    let place = holder.place.as_ref().map(|place| format!(", in `{place}`")).unwrap_or_default();
    format!("task {id} (`{}`, a {}{place})", holder.variable, holder.handle)
}

fn summary(kind: FindingKind, links: &[Link]) -> String {
    let first = links.first();
    let place =
        first.and_then(|link| link.place.as_ref()).map(|place| format!(" at `{place}`")).unwrap_or_default();
    let resource = first.map_or("?", |link| link.resource.as_str());
    match links {
        [only] if kind == FindingKind::Futurelock => format!(
            "Task {} waits{place} for {resource}, which a future of its own has that it does not poll: `{}`",
            only.task, only.holder.variable
        ),
        [only] if matches!(only.wait.by, Waker::Task(_)) => {
            format!("Task {} waits{place} for its own end", only.task)
        }
        [only] => format!(
            "Task {} waits{place} for {resource}, which it has itself: `{}`",
            only.task, only.holder.variable
        ),
        [one, other] if is_for(one, ResourceKind::Lock) && is_for(other, ResourceKind::Thread) => {
            blocked_by_guard(one, other)
        }
        [other, one] if is_for(one, ResourceKind::Lock) && is_for(other, ResourceKind::Thread) => {
            blocked_by_guard(one, other)
        }
        [one, other] => {
            let at = |link: &Link| link.place.as_ref().map(|p| format!(" at `{p}`")).unwrap_or_default();
            format!(
                "{} and {} wait for each other: {} for {}{}, {} for {}{}",
                name(one.task),
                name(other.task),
                one.task,
                one.resource,
                at(one),
                other.task,
                other.resource,
                at(other)
            )
        }
        several => {
            let circle: Vec<String> = several.iter().map(|link| link.task.to_string()).collect();
            let again = circle.first().cloned().unwrap_or_default();
            format!(
                "{} wait for one another in a circle: {} → {again}",
                count(several.len(), "task"),
                circle.join(" → ")
            )
        }
    }
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
        "Task {} blocks {} for {}, which task {} {has} across an `.await`{guard}{place}, and only that thread could poll it",
        blocked.task, suspended.resource, blocked.resource, suspended.task
    )
}

fn leak_remedy(kinds: &BTreeSet<ResourceKind>) -> &'static str {
    if kinds.contains(&ResourceKind::Semaphore) {
        "nobody has a permit of the semaphore any more: look for `forget()`, or for an `add_permits` that is missing"
    } else {
        "drop the sender that a task keeps of its own channel, or hold it weakly; or abort these tasks when their work is over"
    }
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
        _ if locks && links.len() > 1 => "take these locks in the same order everywhere, or let go of one before waiting for the next".to_owned(),
        _ if kinds.contains(&ResourceKind::Join) => "one of them must not wait for the other's end: abort it, or let go first".to_owned(),
        _ if kinds.contains(&ResourceKind::ChannelSend) => {
            "a circle of bounded channels needs one place that does not wait: `try_send`, or a task of its own that sends".to_owned()
        }
        _ => match variables.as_slice() {
            [] => return None,
            _ if kinds.contains(&ResourceKind::Lock) => "let go of one lock before waiting for the next".to_owned(),
            variables => format!("drop `{}` before this `.await`", variables.join("`, `")),
        },
    })
}

/// `a mutex`.
fn a(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Timer => "a timer",
        ResourceKind::Mutex => "a mutex",
        ResourceKind::Rwlock => "a rwlock",
        ResourceKind::Semaphore => "a semaphore",
        ResourceKind::ChannelRecv => "a message",
        ResourceKind::ChannelSend => "room in a channel",
        ResourceKind::Oneshot => "a oneshot",
        ResourceKind::Watch => "a watch",
        ResourceKind::Broadcast => "a broadcast",
        ResourceKind::Notify => "a notification",
        ResourceKind::Join => "a task's end",
        ResourceKind::Lock => "a lock that blocks its thread",
        ResourceKind::Thread => "its thread",
        ResourceKind::Io => "the kernel",
        ResourceKind::Unknown => "something unknown",
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn count_waiting(number: usize) -> String {
    if number == 1 { "1 task waits".to_owned() } else { format!("{number} tasks wait") }
}

/// A task in a sentence.
fn name(id: u64) -> String {
    if id == 0 { "the main future".to_owned() } else { format!("task {id}") }
}

fn ids(ids: &[u64]) -> String {
    let name = |id: &u64| if *id == 0 { "main".to_owned() } else { id.to_string() };
    let shown: Vec<String> = ids.iter().take(MAX_IDS).map(name).collect();
    let more = if ids.len() > MAX_IDS { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
