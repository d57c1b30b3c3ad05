//! The answer of `/waits`: what waits for what, as JSON and as a tree.

mod groups;
mod neighbourhood;
mod phrases;

use std::fmt::Write as _;

use rustc_hash::{FxHashMap, FxHashSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::findings::FindingReport;
use super::format::{count, counted, in_place};
use super::formats::{DOT, Renderer, Renders};
use super::{gaps, kinds};
use crate::snapshot::Capture;
use crate::tasks::Listing;
use crate::waits::sample::Sample;
use crate::waits::{Edge, FindingKind, Holder, TaskIds, WaitGraph};
use groups::{Groups, Waiter, holds, waiter};
use phrases::{awaited, by_the_same, led_by, name, tasks, without_holder};

/// Trees, and lines of each list, that are shown.
const SHOWN: usize = 60;
/// Holders of one resource that are shown.
const HOLDERS: usize = 8;
/// How deep a tree goes.
const DEPTH: usize = 40;

/// What waits for what.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct WaitsAnswer {
    /// What waits for what, and what can release it.
    #[serde(flatten)]
    pub graph: WaitGraph,
    /// What is wrong by this one sample. `/diagnosis` takes two or more, and covers more.
    pub findings: Vec<FindingReport>,
    /// What delouse could not read, and why: findings and holders may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_covered: Vec<String>,
    /// How the capture went.
    pub capture: Capture,
}

impl Renders for WaitsAnswer {
    const RENDERERS: &'static [Renderer<Self>] = &[
        Renderer::JSON,
        Renderer::TEXT,
        Renderer { format: DOT, render: |answer| Ok(dot::dot(&answer.graph).into()) },
    ];

    /// The graph as trees: each waiter, what it waits for, what holds that, and what the holders wait for in turn.
    fn text(&self) -> String {
        let mut page = Page::new(&self.graph, &self.findings);
        let resources: FxHashSet<&str> = self.graph.edges.iter().map(|e| e.resource.id.as_str()).collect();
        page.line(
            0,
            &format!(
                "{}, {} for {}",
                count(self.graph.tasks, "task"),
                count(self.graph.edges.len(), "wait"),
                count(resources.len(), "resource")
            ),
        );
        if let Some(gaps) = gaps::gaps(&self.graph.gaps) {
            page.line(0, &format!("not read: {gaps}"));
        }
        self.findings.iter().for_each(|finding| page.line(0, &format!("! {}", finding.headline())));
        page.trees();
        page.the_rest();
        self.capture.notes.iter().for_each(|note| page.line(0, &format!("\nnote: {note}")));
        page.out
    }
}

impl WaitsAnswer {
    /// The answer, and the tasks of the sample that it leaves out.
    pub(crate) fn new((sample, capture): (Sample, Capture)) -> (Self, Listing) {
        let Sample { listing, graph, findings, not_covered, .. } = sample;
        let not_covered = not_covered.iter().map(gaps::not_covered).collect();
        (Self { graph, findings: FindingReport::all(findings), not_covered, capture }, listing)
    }

    /// Leaves what is around `tasks`, at most `limit` waits.
    pub(crate) fn narrow(&mut self, tasks: &[u64], limit: usize) {
        let left_out = self.graph.narrow(tasks, limit);
        self.findings.retain(|finding| finding.tasks.iter().any(|task| tasks.contains(task)));
        if left_out > 0 {
            let more =
                format!("{} {}", count(left_out, "more wait"), if left_out == 1 { "is" } else { "are" });
            self.capture.notes.push(format!("{more} near these tasks not listed: ?limit= lists more"));
        }
    }
}

/// A tree of waits, and lists of the waits that no task can end.
struct Page<'g> {
    out: String,
    graph: &'g WaitGraph,
    /// The tasks of each finding that says of tasks that they wait for one another.
    circles: Vec<FxHashSet<u64>>,
    groups: Groups<'g>,
    /// Which waiter waits for which resource.
    awaited: FxHashSet<(Waiter, &'g str)>,
    /// Waiters that have been shown with all that is below them.
    shown: FxHashSet<Waiter>,
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
    fn new(graph: &'g WaitGraph, findings: &'g [FindingReport]) -> Self {
        let awaited = graph.edges.iter().map(|edge| (waiter(edge), edge.resource.id.as_str())).collect();
        let kinds = [FindingKind::Deadlock, FindingKind::Futurelock, FindingKind::LeakedTasks];
        let circles = findings.iter().filter(|finding| kinds.contains(&finding.kind));
        let circles = circles.map(|finding| finding.tasks.iter().copied().collect()).collect();
        let groups = Groups::of(graph);
        Self { out: String::new(), graph, circles, groups, awaited, shown: FxHashSet::default() }
    }

    fn line(&mut self, depth: usize, text: &str) {
        let _infallible = writeln!(self.out, "{:1$}{text}", "", depth * 2);
    }

    /// The waits that a task can end: from waiters that no task waits for inwards; then what is left, which are circles.
    fn trees(&mut self) {
        let mut holders: FxHashSet<Waiter> = FxHashSet::default();
        // All that wait for the same share a list of holders. Without a circle, it is sorted alike for all of them.
        let mut sorted: FxHashSet<*const Holder> = FxHashSet::default();
        for edge in self.graph.edges.iter().filter(|edge| !edge.holders.is_empty()) {
            if self.circles.is_empty() && !sorted.insert(edge.holders.as_ptr()) {
                continue;
            }
            holders.extend(self.sort(edge).holding.into_iter().map(holds));
        }
        let held = |edge: &&Edge| !edge.holders.is_empty();
        let graph = self.graph;
        for inner in [false, true] {
            let mut trees = 0;
            for edge in graph.edges.iter().filter(held) {
                let party = waiter(edge);
                if holders.contains(&party) != inner || self.shown.contains(&party) {
                    continue;
                }
                trees += 1;
                let group = self.groups.number(party).unwrap_or_default();
                let all = self.groups.members(group).iter().copied();
                let all: Vec<Waiter> = all.filter(|party| !self.shown.contains(party)).collect();
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
        let edges = all.first().map(|party| self.groups.edges(*party)).unwrap_or_default();
        // What tasks can end comes first: the other waits of a server's task are for its connection.
        let ended_by_tasks = edges.iter().filter(|edge| !edge.holders.is_empty());
        let place = ended_by_tasks.chain(&edges).find_map(|edge| edge.place.as_ref());
        let place = in_place(place);
        let blocked =
            edges.iter().map(|edge| blocked(edge)).find(|text| !text.is_empty()).unwrap_or_default();
        let party = match all {
            [party] => name(*party),
            all => counted(&TaskIds::of(all.iter().filter_map(|(task, _)| *task))),
        };
        self.line(0, &format!("{party}{place}{blocked}"));
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
                let (party, what) = (tasks(&waiting, of_waiting), by_the_same(&waiting));
                let verb = if waiting.len() + of_waiting > 1 { "wait" } else { "waits" };
                self.line(depth + 1, &format!("within reach of {party}, which {verb} for it, too{what}"));
            }
            if !sharing.is_empty() {
                let (party, what) = (tasks(&sharing, of_sharing), by_the_same(&sharing));
                self.line(depth + 1, &format!("within reach of {party}, in a value that is shared{what}"));
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
        let has = |tasks: &FxHashSet<u64>, party: &Waiter| party.0.is_some_and(|task| tasks.contains(&task));
        self.circles.iter().any(|tasks| all.iter().all(|party| has(tasks, party)))
    }

    fn holder(&mut self, depth: usize, holder: &Holder, path: &mut Vec<usize>) {
        let party = holds(holder);
        let edges = self.groups.edges(party);
        // A task that others wait for to end is no variable's: where it waits itself tells which it is.
        let place = holder.place.as_deref().or_else(|| {
            let waits_at = edges.iter().find_map(|edge| edge.place.as_deref());
            waits_at.filter(|_| holder.variable.is_empty())
        });
        let place = in_place(place);
        let mut text = match holder.variable.as_str() {
            "" => format!("{}{place}", name(party)),
            variable => format!("{}: {} `{variable}`{place}", name(party), holder.handle),
        };
        let Some(group) = self.groups.number(party) else { return self.line(depth, &text) };
        if let Some(from) = path.iter().position(|above| *above == group) {
            // Waiters that wait alike have the same holders below.
            let circle = path.get(from..).unwrap_or_default();
            let on_it = circle.iter().filter_map(|group| self.groups.members(*group).first().copied());
            let on_it: Vec<Waiter> = on_it.skip(1).chain([party]).collect();
            let found = self.are_found(&on_it);
            text.push_str(if found { "  <- the circle closes here" } else { ", see above" });
        } else if self.shown.contains(&party) {
            // Among many, the reader does not find it by its name.
            if let Some(edge) = edges.first()
                && self.groups.members(group).len() > 1
            {
                let resource = kinds::named(edge.resource.kind, &edge.resource.id);
                let _infallible = write!(text, ", which waits for {resource}");
            }
            text.push_str(", see above");
        } else if path.len() >= DEPTH {
            text.push_str(", which waits, too");
        } else {
            self.line(depth, &text);
            self.shown.insert(party);
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
        let mut groups: Vec<Vec<&Edge>> = Vec::new();
        let mut known = FxHashMap::default();
        for edge in edges {
            let key = (edge.place.as_deref(), edge.resource.kind, edge.leaf.as_deref(), edge.thread);
            let at = *known.entry(key).or_insert(groups.len());
            if at == groups.len() {
                groups.push(Vec::new());
            }
            if let Some(group) = groups.get_mut(at) {
                group.push(edge);
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
        if !groups.is_empty() {
            self.line(0, &format!("\n{title}"));
        }
        for group in groups.iter().take(SHOWN) {
            self.alike(group);
        }
        if groups.len() > SHOWN {
            let waits = groups.iter().skip(SHOWN).map(Vec::len).sum();
            let places = count(groups.len() - SHOWN, "more place");
            self.line(1, &format!("and {places}, with {}", count(waits, "wait")));
        }
    }

    /// A line of such a list.
    fn alike(&mut self, edges: &[&Edge]) {
        let Some(edge) = edges.first() else { return };
        let place = in_place(edge.place.as_ref());
        let mut ids: Vec<u64> = edges.iter().filter_map(|edge| edge.waiter).collect();
        ids.dedup();
        let several = ids.len() > 1;
        let party = match ids.as_slice() {
            [] | [0] => name(waiter(edge)),
            ids => counted(&TaskIds::of(ids.iter().copied())),
        };
        let verb = if several { "wait" } else { "waits" };
        let what = match several {
            true if edge.outside.is_none() => kinds::words(edge.resource.kind).wanted.to_owned(),
            true => awaited(edge, true),
            // One task can wait more than once at a place: a tunnel waits for both of its ends.
            false => {
                let all: Vec<String> = edges.iter().take(HOLDERS).map(|edge| awaited(edge, false)).collect();
                let more = edges.len().saturating_sub(HOLDERS);
                all.join(", and for ")
                    + &(if more > 0 { format!(", and {more} more") } else { String::new() })
            }
        };
        let unknown = without_holder(edge, &self.graph.gaps);
        let blocked = blocked(edge);
        let comma = if blocked.is_empty() { "" } else { "," };
        self.line(1, &format!("{party}{place}{blocked}{comma} {verb} for {what}{unknown}"));
    }
}

/// Says which thread a task blocks by its wait.
fn blocked(edge: &Edge) -> String {
    let tid = edge.thread.filter(|_| edge.waiter.is_some());
    tid.map(|tid| format!(", which blocks thread {tid}")).unwrap_or_default()
}

pub(crate) mod dot;

#[cfg(test)]
mod tests;
