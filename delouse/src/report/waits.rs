//! The answer of `/waits`: who waits for whom, as JSON and as a tree.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::diagnosis::headline;
use crate::snapshot::Capture;
use crate::tasks::ResourceKind;
use crate::waits::{Edge, Finding, Holder, WaitGraph, words};

/// Trees, and lines of those that wait for nobody, that are shown.
const SHOWN: usize = 60;
/// Holders of one resource that are shown.
const HOLDERS: usize = 8;
/// How deep a tree goes.
const DEPTH: usize = 40;

/// Who waits for whom.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct WaitsAnswer {
    /// Who waits for what, and who can let go of it.
    #[serde(flatten)]
    pub graph: WaitGraph,
    /// What is wrong by this one look. `/diagnosis` looks twice, and for more.
    pub findings: Vec<Finding>,
    /// How the capture went.
    pub capture: Capture,
}

impl WaitsAnswer {
    /// The graph as trees: each waiter, what it waits for, who holds that, and what those wait for in turn.
    pub(crate) fn text(&self) -> String {
        let mut page = Page::new(&self.graph);
        let resources: HashSet<&str> = self.graph.edges.iter().map(|e| e.resource.id.as_str()).collect();
        page.line(
            0,
            &format!(
                "{}, {} for {}",
                words::count(self.graph.tasks, "task"),
                words::count(self.graph.edges.len(), "wait"),
                words::count(resources.len(), "resource")
            ),
        );
        self.findings.iter().for_each(|finding| page.line(0, &format!("! {}", headline(finding))));
        page.trees();
        page.the_rest();
        self.capture.notes.iter().for_each(|note| page.line(0, &format!("\nnote: {note}")));
        page.out
    }
}

/// One who waits: a task, or a thread on which none runs.
type Waiter = (Option<u64>, Option<i32>);

fn waiter(edge: &Edge) -> Waiter {
    (edge.waiter, if edge.waiter.is_some() { None } else { edge.thread })
}

/// Who a holder is.
fn holds(holder: &Holder) -> Waiter {
    (holder.task, holder.thread.filter(|_| holder.task.is_none()))
}

struct Page<'g> {
    out: String,
    graph: &'g WaitGraph,
    /// What each waiter waits for.
    waits: HashMap<Waiter, Vec<&'g Edge>>,
    /// Waiters that wait at one place for the same, and for the same holders: told as one.
    groups: Vec<Vec<Waiter>>,
    /// The group of each waiter, by its number.
    group_of: HashMap<Waiter, usize>,
    /// Who waits for which resource.
    awaited: HashSet<(Waiter, &'g str)>,
    /// Waiters that have been shown with all that is below them.
    shown: HashSet<Waiter>,
}

/// What makes one wait like another: place, resource, holders, more of them elsewhere. All who wait for the same share
/// the list of holders, so where it lies will do.
type Alike<'g> = (Option<&'g str>, &'g str, *const Holder, bool);

impl<'g> Page<'g> {
    fn new(graph: &'g WaitGraph) -> Self {
        let mut waits: HashMap<Waiter, Vec<&Edge>> = HashMap::new();
        let mut awaited = HashSet::new();
        for edge in &graph.edges {
            waits.entry(waiter(edge)).or_default().push(edge);
            awaited.insert((waiter(edge), edge.resource.id.as_str()));
        }
        let mut page = Self {
            out: String::new(),
            graph,
            waits,
            groups: Vec::new(),
            group_of: HashMap::new(),
            awaited,
            shown: HashSet::new(),
        };
        page.group();
        page
    }

    /// Puts those together who wait alike.
    fn group(&mut self) {
        let mut known: HashMap<(Option<Waiter>, Vec<Alike<'g>>), usize> = HashMap::new();
        for edge in &self.graph.edges {
            let who = waiter(edge);
            if self.group_of.contains_key(&who) {
                continue;
            }
            let edges = self.waits.get(&who).map(Vec::as_slice).unwrap_or_default();
            // A main future has no id to list, and the thread that a task blocks is told of each.
            let alone = matches!(who, (None | Some(0), _)) || edges.iter().any(|edge| edge.thread.is_some());
            let alike = |edge: &&'g Edge| {
                (edge.place.as_deref(), edge.resource.id.as_str(), edge.holders.as_ptr(), edge.held_elsewhere)
            };
            let key = (alone.then_some(who), edges.iter().map(alike).collect());
            let number = *known.entry(key).or_insert(self.groups.len());
            match self.groups.get_mut(number) {
                Some(group) => group.push(who),
                None => self.groups.push(vec![who]),
            }
            self.group_of.insert(who, number);
        }
    }

    fn line(&mut self, depth: usize, text: &str) {
        let _infallible = writeln!(self.out, "{:1$}{text}", "", depth * 2);
    }

    /// The waits that somebody can end: from those that nobody waits for inwards; then what is left, which are
    /// circles.
    fn trees(&mut self) {
        let mut holders: HashSet<Waiter> = HashSet::new();
        for edge in &self.graph.edges {
            holders.extend(edge.holders.iter().filter(|h| !self.shares(edge, h)).map(holds));
        }
        let held = |edge: &&Edge| !edge.holders.is_empty();
        let graph = self.graph;
        for inner in [false, true] {
            let mut trees = 0;
            for edge in graph.edges.iter().filter(held) {
                let who = waiter(edge);
                if holders.contains(&who) != inner || self.shown.contains(&who) {
                    continue;
                }
                trees += 1;
                let group = self.group_of.get(&who).copied().unwrap_or_default();
                let all = self.groups.get(group).map(Vec::as_slice).unwrap_or_default();
                let all: Vec<Waiter> = all.iter().copied().filter(|who| !self.shown.contains(who)).collect();
                self.shown.extend(&all);
                if trees <= SHOWN {
                    self.out.push('\n');
                    self.waiters(&all, group);
                }
            }
            if trees > SHOWN {
                self.line(0, &format!("\nand {} more like these", trees - SHOWN));
            }
        }
    }

    /// Those who wait alike, and all that they wait for.
    fn waiters(&mut self, all: &[Waiter], group: usize) {
        let edges = all.first().and_then(|who| self.waits.get(who)).cloned().unwrap_or_default();
        let place = edges.iter().find_map(|edge| edge.place.as_ref());
        let place = place.map(|place| format!(" in {place}")).unwrap_or_default();
        let blocked = edges.iter().find_map(|edge| edge.thread.filter(|_| edge.waiter.is_some()));
        let blocked = blocked.map(|tid| format!(", which blocks thread {tid}")).unwrap_or_default();
        let (who, verb) = match all {
            [who] => (name(*who), "waits"),
            all => {
                let ids: Vec<u64> = all.iter().filter_map(|(task, _)| *task).collect();
                (format!("{} ({})", words::count(ids.len(), "task"), words::ids(&ids)), "wait")
            }
        };
        self.line(0, &format!("{who}{place}{blocked}"));
        self.below(1, verb, &edges, &mut vec![group]);
    }

    /// What somebody waits for; `path` has the groups above, and that of the one who waits.
    fn below(&mut self, depth: usize, verb: &str, edges: &[&'g Edge], path: &mut Vec<usize>) {
        for edge in edges {
            let resource = &edge.resource;
            let address = resource.address.as_ref().map(|a| format!(" ({a})")).unwrap_or_default();
            let (sharers, others): (Vec<&Holder>, Vec<&Holder>) =
                edge.holders.iter().partition(|holder| self.shares(edge, holder));
            let by = match &*edge.holders {
                [] if edge.held_elsewhere => ", held by no task".to_owned(),
                _ if others.is_empty() => String::new(),
                // That task is the resource.
                _ if resource.kind == ResourceKind::Join => String::new(),
                [holder] if holder.certain => ", held by".to_owned(),
                [_] => ", which this may hold:".to_owned(),
                _ => ", which one of these may hold:".to_owned(),
            };
            self.line(
                depth,
                &format!("{verb} for {}{address}{by}", resource_name(&resource.id, resource.kind)),
            );
            for holder in others.iter().take(HOLDERS) {
                self.holder(depth + 1, holder, path);
            }
            if others.len() > HOLDERS {
                self.line(depth + 1, &format!("and {} more", others.len() - HOLDERS));
            }
            if !sharers.is_empty() {
                let more = edge.holders.len() >= HOLDERS;
                self.line(depth + 1, &sharing(&sharers, more));
            }
            if edge.held_elsewhere && !edge.holders.is_empty() {
                self.line(depth + 1, "and somebody outside of all tasks");
            }
        }
    }

    /// Whether a holder only gets at what it waits for itself, as all do who share a `Notify`: no circle.
    fn shares(&self, edge: &Edge, holder: &Holder) -> bool {
        holder.is_access() && self.awaited.contains(&(holds(holder), edge.resource.id.as_str()))
    }

    fn holder(&mut self, depth: usize, holder: &Holder, path: &mut Vec<usize>) {
        let who = holds(holder);
        let place = holder.place.as_ref().map(|place| format!(" in {place}")).unwrap_or_default();
        let mut text = match holder.variable.as_str() {
            "" => format!("{}{place}", name(who)),
            variable => format!("{}: {} `{variable}`{place}", name(who), holder.handle),
        };
        let edges = self.waits.get(&who).cloned().unwrap_or_default();
        let group = self.group_of.get(&who).copied();
        match group {
            // Who waits alike has the same holders below.
            Some(group) if path.contains(&group) => text.push_str("  <- the circle closes here"),
            Some(group) if self.shown.contains(&who) => {
                // Among many, nobody finds it by its name.
                if let Some(edge) = edges.first()
                    && self.groups.get(group).is_some_and(|all| all.len() > 1)
                {
                    let resource = resource_name(&edge.resource.id, edge.resource.kind);
                    let _infallible = write!(text, ", which waits for {resource}");
                }
                text.push_str(", see above");
            }
            Some(group) => {
                self.line(depth, &text);
                if path.len() < DEPTH {
                    self.shown.insert(who);
                    path.push(group);
                    self.below(depth + 1, "waits", &edges, path);
                    path.pop();
                }
                return;
            }
            None => {}
        }
        self.line(depth, &text);
    }

    /// Those that wait for what no task holds: timers, sockets, others outside.
    fn the_rest(&mut self) {
        let mut groups: Vec<(&Edge, Vec<u64>)> = Vec::new();
        let mut known: HashMap<(Option<&str>, ResourceKind), usize> = HashMap::new();
        for edge in self.graph.edges.iter().filter(|edge| edge.holders.is_empty()) {
            if self.shown.contains(&waiter(edge)) {
                continue;
            }
            let at = *known.entry((edge.place.as_deref(), edge.resource.kind)).or_insert(groups.len());
            if at == groups.len() {
                groups.push((edge, Vec::new()));
            }
            if let Some((_, ids)) = groups.get_mut(at) {
                ids.extend(edge.waiter);
            }
        }
        groups.sort_by_key(|(_, ids)| std::cmp::Reverse(ids.len()));
        if !groups.is_empty() {
            self.line(0, "\nfor what no task holds:");
        }
        for (edge, ids) in groups.iter().take(SHOWN) {
            let place = edge.place.as_ref().map(|place| format!(" in {place}")).unwrap_or_default();
            let who = match ids.as_slice() {
                [] | [0] => name(waiter(edge)),
                [_] => words::ids(ids),
                ids => format!("{} ({})", words::count(ids.len(), "task"), words::ids(ids)),
            };
            let verb = if ids.len() > 1 { "wait" } else { "waits" };
            let what = kind_name(edge.resource.kind);
            self.line(1, &format!("{who}{place} {verb} for {what}"));
        }
        if groups.len() > SHOWN {
            self.line(1, &format!("and {} more places", groups.len() - SHOWN));
        }
    }
}

/// ``tasks 4, 5, 6 have it themselves: Notify `end` ``.
fn sharing(sharers: &[&Holder], more: bool) -> String {
    let main = sharers.iter().any(|holder| holder.task == Some(0)).then(|| name((Some(0), None)));
    let ids: Vec<u64> = sharers.iter().filter_map(|holder| holder.task).filter(|id| *id != 0).collect();
    let tasks = (!ids.is_empty()).then(|| words::ids(&ids));
    let who: Vec<String> = main.into_iter().chain(tasks).collect();
    let (more, verb) = match sharers {
        [_] if !more => ("", "has it itself"),
        _ if !more => ("", "have it themselves"),
        // No more than that are looked for.
        _ => (" and perhaps more", "have it themselves"),
    };
    let what = match sharers {
        [first, rest @ ..] if rest.iter().all(|other| other.variable == first.variable) => {
            format!(": {} `{}`", first.handle, first.variable)
        }
        _ => String::new(),
    };
    format!("{}{more} {verb}{what}", who.join(" and "))
}

fn name(who: Waiter) -> String {
    match who {
        (Some(task), _) => words::name(task),
        (None, Some(thread)) => format!("thread {thread}"),
        (None, None) => "somebody outside of all tasks".to_owned(),
    }
}

/// `mutex-1`, with what is waited for where the name does not say it.
fn resource_name(id: &str, kind: ResourceKind) -> String {
    match kind {
        ResourceKind::ChannelRecv => format!("a message of {id}"),
        ResourceKind::ChannelSend => format!("room in {id}"),
        ResourceKind::Oneshot => format!("the message of {id}"),
        ResourceKind::Watch => format!("a change of {id}"),
        ResourceKind::Broadcast => format!("a message of {id}"),
        ResourceKind::Join => format!("the end of {id}"),
        _ => id.to_owned(),
    }
}

/// The same of several.
fn kind_name(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Timer => "a timer",
        ResourceKind::Mutex => "a mutex",
        ResourceKind::Rwlock => "a read-write lock",
        ResourceKind::Semaphore => "a semaphore",
        ResourceKind::ChannelRecv => "a message of a channel",
        ResourceKind::ChannelSend => "room in a channel",
        ResourceKind::Oneshot => "a oneshot",
        ResourceKind::Watch => "a change of a watch",
        ResourceKind::Broadcast => "a broadcast",
        ResourceKind::Notify => "a notify",
        ResourceKind::Join => "the end of a task",
        ResourceKind::Lock => "a lock that blocks its thread",
        ResourceKind::Thread => "its thread",
        ResourceKind::Io => "input or output",
        ResourceKind::Unknown => "something that delouse does not know",
    }
}

pub(crate) mod dot;

#[cfg(test)]
mod tests;
