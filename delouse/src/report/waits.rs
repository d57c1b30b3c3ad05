//! The answer of `/waits`: who waits for whom, as JSON and as a tree.

mod groups;
mod phrases;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::diagnosis::headline;
use crate::snapshot::Capture;
use crate::tasks::ResourceKind;
use crate::waits::{Edge, Finding, FindingKind, Holder, WaitGraph, gaps, words};
use groups::{Groups, Waiter, holds, waiter};
use phrases::{awaited, by_the_same, kind_name, led_by, name, tasks, without_holder};

/// Trees, and lines of each list, that are shown.
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
        let mut page = Page::new(&self.graph, &self.findings);
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
        if let Some(gaps) = gaps::text(&self.graph.gaps) {
            page.line(0, &format!("not read: {gaps}"));
        }
        self.findings.iter().for_each(|finding| page.line(0, &format!("! {}", headline(finding))));
        page.trees();
        page.the_rest();
        self.capture.notes.iter().for_each(|note| page.line(0, &format!("\nnote: {note}")));
        page.out
    }
}

/// A tree of waits, and lists of the waits that no task can end.
struct Page<'g> {
    out: String,
    graph: &'g WaitGraph,
    /// The tasks of each finding that says of tasks that they wait for one another.
    circles: Vec<HashSet<u64>>,
    groups: Groups<'g>,
    /// Which waiter waits for which resource.
    awaited: HashSet<(Waiter, &'g str)>,
    /// Waiters that have been shown with all that is below them.
    shown: HashSet<Waiter>,
}

/// The holders of one resource, by what they have of it.
struct Sorted<'g> {
    /// They hold it, or have a handle of their own.
    holding: Vec<&'g Holder>,
    /// They wait for it themselves, as all do that share a `Notify`.
    waiting: Vec<&'g Holder>,
    /// They share a value that a handle is part of.
    sharing: Vec<&'g Holder>,
}

impl<'g> Page<'g> {
    fn new(graph: &'g WaitGraph, findings: &'g [Finding]) -> Self {
        let awaited = graph.edges.iter().map(|edge| (waiter(edge), edge.resource.id.as_str())).collect();
        let kinds = [FindingKind::Deadlock, FindingKind::Futurelock, FindingKind::LeakedTasks];
        let circles = findings.iter().filter(|finding| kinds.contains(&finding.kind));
        let circles = circles.map(|finding| finding.tasks.iter().copied().collect()).collect();
        let groups = Groups::of(graph);
        Self { out: String::new(), graph, circles, groups, awaited, shown: HashSet::new() }
    }

    fn line(&mut self, depth: usize, text: &str) {
        let _infallible = writeln!(self.out, "{:1$}{text}", "", depth * 2);
    }

    /// The waits that a task can end: from waiters that no task waits for inwards; then what is left, which are circles.
    fn trees(&mut self) {
        let mut holders: HashSet<Waiter> = HashSet::new();
        for edge in &self.graph.edges {
            holders.extend(self.sort(edge).holding.into_iter().map(holds));
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
                let group = self.groups.number(who).unwrap_or_default();
                let all = self.groups.members(group).iter().copied();
                let all: Vec<Waiter> = all.filter(|who| !self.shown.contains(who)).collect();
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

    /// Waiters that wait alike, and all that they wait for.
    fn waiters(&mut self, all: &[Waiter], group: usize) {
        let edges = all.first().map(|who| self.groups.edges(*who)).unwrap_or_default();
        let place = edges.iter().find_map(|edge| edge.place.as_ref());
        let place = place.map(|place| format!(" in {place}")).unwrap_or_default();
        let blocked = edges.iter().find_map(|edge| edge.thread.filter(|_| edge.waiter.is_some()));
        let blocked = blocked.map(|tid| format!(", which blocks thread {tid}")).unwrap_or_default();
        let who = match all {
            [who] => name(*who),
            all => {
                let ids: Vec<u64> = all.iter().filter_map(|(task, _)| *task).collect();
                format!("{} ({})", words::count(ids.len(), "task"), words::ids(&ids))
            }
        };
        self.line(0, &format!("{who}{place}{blocked}"));
        self.below(1, all.len() > 1, &edges, &mut vec![group]);
    }

    /// What a waiter waits for; `path` has the groups above, and that of the waiter.
    fn below(&mut self, depth: usize, several: bool, edges: &[&'g Edge], path: &mut Vec<usize>) {
        let verb = if several { "wait" } else { "waits" };
        for edge in edges {
            let Sorted { holding, waiting, sharing } = self.sort(edge);
            let by = match (holding.as_slice(), edge.holders.is_empty()) {
                ([], true) => without_holder(edge, &self.graph.gaps),
                ([], false) => String::new(),
                (holding, _) => led_by(edge.resource.kind, holding).to_owned(),
            };
            self.line(depth, &format!("{verb} for {}{by}", awaited(edge, several)));
            for holder in holding.iter().take(HOLDERS) {
                self.holder(depth + 1, holder, path);
            }
            // What was not listed is like what was listed last.
            let mut more = edge.more_holders;
            let mut left = || std::mem::take(&mut more);
            let of_sharing = if sharing.is_empty() { 0 } else { left() };
            let of_waiting = if waiting.is_empty() { 0 } else { left() };
            let of_holding = left() + holding.len().saturating_sub(HOLDERS);
            if of_holding > 0 {
                self.line(depth + 1, &format!("and {of_holding} more"));
            }
            if let [own] = waiting.as_slice()
                && (holds(own), of_waiting, several) == (waiter(edge), 0, false)
            {
                self.line(depth + 1, &format!("within its own reach{}", by_the_same(&waiting)));
            } else if !waiting.is_empty() {
                let (who, what) = (tasks(&waiting, of_waiting), by_the_same(&waiting));
                let verb = if waiting.len() + of_waiting > 1 { "wait" } else { "waits" };
                self.line(depth + 1, &format!("within reach of {who}, which {verb} for it, too{what}"));
            }
            if !sharing.is_empty() {
                let (who, what) = (tasks(&sharing, of_sharing), by_the_same(&sharing));
                self.line(depth + 1, &format!("within reach of {who}, in a value that is shared{what}"));
            }
            if edge.held_elsewhere && !edge.holders.is_empty() {
                let more = "and more that was not found: in a static, on a thread, or in what was not read";
                self.line(depth + 1, more);
            }
        }
    }

    /// The holders of what an edge waits for, by what they have of it.
    fn sort(&self, edge: &'g Edge) -> Sorted<'g> {
        let mut sorted = Sorted { holding: Vec::new(), waiting: Vec::new(), sharing: Vec::new() };
        for holder in edge.holders.iter() {
            let waits = self.awaited.contains(&(holds(holder), edge.resource.id.as_str()));
            if holder.is_access() && waits {
                sorted.waiting.push(holder);
            } else if holder.shared && !self.are_found(&[waiter(edge), holds(holder)]) {
                sorted.sharing.push(holder);
            } else {
                sorted.holding.push(holder);
            }
        }
        sorted
    }

    /// Whether a finding says that all of these wait for one another.
    fn are_found(&self, all: &[Waiter]) -> bool {
        let has = |tasks: &HashSet<u64>, who: &Waiter| who.0.is_some_and(|task| tasks.contains(&task));
        self.circles.iter().any(|tasks| all.iter().all(|who| has(tasks, who)))
    }

    fn holder(&mut self, depth: usize, holder: &Holder, path: &mut Vec<usize>) {
        let who = holds(holder);
        let place = holder.place.as_ref().map(|place| format!(" in {place}")).unwrap_or_default();
        let mut text = match holder.variable.as_str() {
            "" => format!("{}{place}", name(who)),
            variable => format!("{}: {} `{variable}`{place}", name(who), holder.handle),
        };
        let edges = self.groups.edges(who);
        let Some(group) = self.groups.number(who) else { return self.line(depth, &text) };
        if let Some(from) = path.iter().position(|above| *above == group) {
            // Waiters that wait alike have the same holders below.
            let circle = path.get(from..).unwrap_or_default();
            let on_it = circle.iter().filter_map(|group| self.groups.members(*group).first().copied());
            let on_it: Vec<Waiter> = on_it.skip(1).chain([who]).collect();
            let found = self.are_found(&on_it);
            text.push_str(if found { "  <- the circle closes here" } else { ", see above" });
        } else if self.shown.contains(&who) {
            // Among many, the reader does not find it by its name.
            if let Some(edge) = edges.first()
                && self.groups.members(group).len() > 1
            {
                let resource = phrases::resource_name(&edge.resource.id, edge.resource.kind);
                let _infallible = write!(text, ", which waits for {resource}");
            }
            text.push_str(", see above");
        } else if path.len() >= DEPTH {
            text.push_str(", which waits, too");
        } else {
            self.line(depth, &text);
            self.shown.insert(who);
            path.push(group);
            self.below(depth + 1, false, &edges, path);
            path.pop();
            return;
        }
        self.line(depth, &text);
    }

    /// Waits of which no holder is shown: for the clock and the kernel, for what is not known, and for what no holder was
    /// found of.
    fn the_rest(&mut self) {
        let graph = self.graph;
        let (outside, others): (Vec<&Edge>, Vec<&Edge>) = graph
            .edges
            .iter()
            .filter(|edge| edge.holders.is_empty() && !self.shown.contains(&waiter(edge)))
            .partition(|edge| edge.outside.is_some());
        self.list("for what comes from outside (timers, sockets), or is not known:", &outside);
        self.list("for what no holder was found of:", &others);
    }

    /// Waits at one place for one kind of resource are one line.
    fn list(&mut self, title: &str, edges: &[&Edge]) {
        let mut groups: Vec<(&Edge, Vec<u64>)> = Vec::new();
        let mut known: HashMap<(Option<&str>, ResourceKind, Option<&str>), usize> = HashMap::new();
        for edge in edges {
            let key = (edge.place.as_deref(), edge.resource.kind, edge.leaf.as_deref());
            let at = *known.entry(key).or_insert(groups.len());
            if at == groups.len() {
                groups.push((edge, Vec::new()));
            }
            if let Some((_, ids)) = groups.get_mut(at) {
                ids.extend(edge.waiter);
            }
        }
        groups.sort_by_key(|(_, ids)| std::cmp::Reverse(ids.len()));
        if !groups.is_empty() {
            self.line(0, &format!("\n{title}"));
        }
        for (edge, ids) in groups.iter().take(SHOWN) {
            let place = edge.place.as_ref().map(|place| format!(" in {place}")).unwrap_or_default();
            let who = match ids.as_slice() {
                [] | [0] => name(waiter(edge)),
                [_] => words::ids(ids),
                ids => format!("{} ({})", words::count(ids.len(), "task"), words::ids(ids)),
            };
            let several = ids.len() > 1;
            let verb = if several { "wait" } else { "waits" };
            let what = if several && edge.outside.is_none() {
                kind_name(edge.resource.kind).to_owned()
            } else {
                awaited(edge, several)
            };
            let unknown = without_holder(edge, &self.graph.gaps);
            self.line(1, &format!("{who}{place} {verb} for {what}{unknown}"));
        }
        if groups.len() > SHOWN {
            let waits = groups.iter().skip(SHOWN).map(|(_, ids)| ids.len().max(1)).sum();
            let places = words::count(groups.len() - SHOWN, "more place");
            self.line(1, &format!("and {places}, with {}", words::count(waits, "wait")));
        }
    }
}

pub(crate) mod dot;

#[cfg(test)]
mod tests;
