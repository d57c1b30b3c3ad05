//! The wait-for graph in the language of Graphviz: `curl 'localhost:7132/waits?format=dot' | dot -Tsvg`.
//!
//! A picture is for reading: where there are many tasks, those with one place and one kind of wait are one node with a
//! count, and what is still too much is left out and counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::groups::{Groups, Waiter, holds, waiter};
use super::phrases::name;
use crate::report::format::{count, list};
use crate::report::kinds;
use crate::tasks::ResourceKind;
use crate::waits::{CodeLocation, Holder, TaskIds, WaitGraph};

/// Nodes that a person can take in.
const NODES: usize = 60;
/// How often nodes are distinguished by their neighbours.
const ROUNDS: usize = 8;

/// A waiter or a resource, with what it is connected to.
struct Node<'g> {
    /// What it is drawn as, where it is one of a kind.
    id: String,
    place: Option<&'g CodeLocation>,
    /// The resource's kind; `None` for a task or thread.
    kind: Option<ResourceKind>,
    address: &'g str,
    /// The waiters that this node represents.
    tasks: Vec<u64>,
}

/// From a waiter to a resource, or from that to its holder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Arrow<'g> {
    from: usize,
    to: usize,
    label: &'g str,
    style: &'static str,
}

/// The graph: a waiter points to what it waits for, that to its holders; dashed where one may hold it, dotted where it
/// shares a value that has a handle of it.
pub(super) fn dot(graph: &WaitGraph) -> String {
    let (nodes, arrows) = Picture::of(graph);
    let classes = classes(&nodes, &arrows);
    draw(&nodes, &arrows, &classes)
}

/// Collects nodes and arrows: waiters that wait alike are one node already.
struct Picture<'g> {
    groups: Groups<'g>,
    nodes: Vec<Node<'g>>,
    waiters: HashMap<(Option<usize>, Waiter), usize>,
    resources: HashMap<String, usize>,
}

impl<'g> Picture<'g> {
    fn of(graph: &'g WaitGraph) -> (Vec<Node<'g>>, BTreeSet<Arrow<'g>>) {
        let mut picture = Self {
            groups: Groups::of(graph),
            nodes: Vec::new(),
            waiters: HashMap::new(),
            resources: HashMap::new(),
        };
        let mut arrows = BTreeSet::new();
        for edge in &graph.edges {
            let from = picture.waiter(waiter(edge), edge.place.as_deref());
            let id = match edge.outside {
                // Each waiter has a timer or socket of its own: they are drawn with it.
                Some(_) => format!("{} of {from}", kinds::words(edge.resource.kind).wanted),
                None => edge.resource.id.clone(),
            };
            let address = edge.resource.address.as_deref().filter(|_| edge.outside.is_none());
            let resource = picture.resource(id, edge.resource.kind, address.unwrap_or_default());
            arrows.insert(Arrow { from, to: resource, label: "", style: "solid" });
            for holder in edge.holders.iter() {
                let to = picture.waiter(holds(holder), holder.place.as_deref());
                arrows.insert(Arrow { from: resource, to, label: &holder.variable, style: style(holder) });
            }
        }
        (picture.nodes, arrows)
    }

    fn waiter(&mut self, party: Waiter, place: Option<&'g CodeLocation>) -> usize {
        let group = self.groups.number(party);
        let key = (group, if group.is_some() { (None, None) } else { party });
        let next = self.nodes.len();
        let at = *self.waiters.entry(key).or_insert(next);
        if at == next {
            let members = group.map(|group| self.groups.members(group)).unwrap_or_default();
            let tasks: Vec<u64> = members.iter().filter_map(|(task, _)| *task).collect();
            let tasks = if tasks.is_empty() { party.0.into_iter().collect() } else { tasks };
            // What a waiter waits at is its place, rather than where it has something.
            let own = self.groups.edges(party).iter().find_map(|edge| edge.place.as_deref());
            let place = own.or(place);
            self.nodes.push(Node { id: name(party), place, kind: None, address: "", tasks });
        }
        at
    }

    fn resource(&mut self, id: String, kind: ResourceKind, address: &'g str) -> usize {
        let next = self.nodes.len();
        let at = *self.resources.entry(id.clone()).or_insert(next);
        if at == next {
            self.nodes.push(Node { id, place: None, kind: Some(kind), address, tasks: Vec::new() });
        }
        at
    }
}

fn style(holder: &Holder) -> &'static str {
    match holder {
        Holder { shared: true, .. } => "dotted",
        Holder { certain: true, .. } => "solid",
        _ => "dashed",
    }
}

/// The class of each node, by number: those of a class are drawn as one. Each is a class of its own where there are few;
/// else they are distinguished by their places and kinds, and then by their neighbours, as long as that makes no more classes
/// than a person can take in.
fn classes(nodes: &[Node<'_>], arrows: &BTreeSet<Arrow<'_>>) -> Vec<usize> {
    if nodes.len() <= NODES {
        return (0..nodes.len()).collect();
    }
    let colour = |node: &Node<'_>| hash(&(node.place, node.kind, node.tasks.contains(&0)));
    let mut colours: Vec<u64> = nodes.iter().map(colour).collect();
    for _ in 0..ROUNDS {
        let mut near: Vec<BTreeSet<(u64, bool, &str, &str)>> = vec![BTreeSet::new(); nodes.len()];
        for arrow in arrows {
            let of = |node: usize| colours.get(node).copied().unwrap_or_default();
            let (from, to) = (of(arrow.from), of(arrow.to));
            if let Some(near) = near.get_mut(arrow.from) {
                near.insert((to, true, arrow.label, arrow.style));
            }
            if let Some(near) = near.get_mut(arrow.to) {
                near.insert((from, false, arrow.label, arrow.style));
            }
        }
        let finer: Vec<u64> = colours.iter().zip(&near).map(hash_both).collect();
        let (before, after) = (distinct(&colours), distinct(&finer));
        if after == before || after > NODES {
            break;
        }
        colours = finer;
    }
    let mut numbers = HashMap::new();
    let mut number = |colour: u64| {
        let next = numbers.len();
        *numbers.entry(colour).or_insert(next)
    };
    colours.into_iter().map(&mut number).collect()
}

fn hash_both<A: Hash, B: Hash>((one, other): (&A, &B)) -> u64 {
    hash(&(one, other))
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn distinct(colours: &[u64]) -> usize {
    colours.iter().collect::<BTreeSet<_>>().len()
}

fn draw(nodes: &[Node<'_>], arrows: &BTreeSet<Arrow<'_>>, classes: &[usize]) -> String {
    let mut members: BTreeMap<usize, Vec<&Node<'_>>> = BTreeMap::new();
    for (node, class) in nodes.iter().zip(classes) {
        members.entry(*class).or_default().push(node);
    }
    let mut largest: Vec<usize> = members.keys().copied().collect();
    // Classes have numbers in the order of the graph, and the sort is stable.
    largest.sort_by_key(|class| std::cmp::Reverse(members.get(class).map_or(0, |all| size(all))));
    let left_out = largest.split_off(NODES.min(largest.len()));
    let drawn: BTreeSet<usize> = largest.into_iter().collect();

    let mut out = String::from("digraph waits {\n  rankdir=LR;\n  node [fontname=\"monospace\"];\n");
    for (class, all) in members.iter().filter(|(class, _)| drawn.contains(class)) {
        let shape = if all.iter().any(|node| node.kind.is_some()) { "ellipse" } else { "box" };
        let (id, label) = (quoted(&identity(*class, all)), quoted(&label(all)));
        let _infallible = writeln!(out, "  {id} [shape={shape}, label={label}];");
    }
    if !left_out.is_empty() {
        let all = || left_out.iter().filter_map(|class| members.get(class));
        let tasks: usize = all().flatten().map(|node| node.tasks.len()).sum();
        let resources = all().flatten().filter(|node| node.kind.is_some()).count();
        let label =
            format!("and {} and {}, not drawn", count(tasks, "more task"), count(resources, "resource"));
        let _infallible = writeln!(out, "  \"more\" [shape=plaintext, label={}];", quoted(&label));
    }
    let mut lines = BTreeSet::new();
    for arrow in arrows {
        let class = |node: usize| classes.get(node).copied().filter(|class| drawn.contains(class));
        let (Some(from), Some(to)) = (class(arrow.from), class(arrow.to)) else { continue };
        let id = |class: usize| members.get(&class).map(|all| quoted(&identity(class, all)));
        let (Some(from), Some(to)) = (id(from), id(to)) else { continue };
        lines.insert(match nodes.get(arrow.from).and_then(|node| node.kind) {
            Some(_) => {
                format!("  {from} -> {to} [style={}, label={}];", arrow.style, quoted(arrow.label))
            }
            None => format!("  {from} -> {to};"),
        });
    }
    for line in lines {
        let _infallible = writeln!(out, "{line}");
    }
    out.push_str("}\n");
    out
}

/// How many tasks, or resources, a class represents.
fn size(all: &[&Node<'_>]) -> usize {
    all.iter().map(|node| node.tasks.len().max(1)).sum()
}

/// The name of a class in the file.
fn identity(class: usize, all: &[&Node<'_>]) -> String {
    match all {
        [only] => only.id.clone(),
        _ => format!("class {class}"),
    }
}

/// What a person reads in a node.
fn label(all: &[&Node<'_>]) -> String {
    let Some(first) = all.first() else { return String::new() };
    let size = size(all);
    let what = match first.kind {
        Some(kind) if size > 1 => format!("{size} × {}", kinds::words(kind).wanted),
        Some(kind) if first.address.is_empty() => kinds::words(kind).wanted.to_owned(),
        Some(kind) => format!("{}\n{}\n{}", first.id, kinds::words(kind).wanted, first.address),
        None if size > 1 => {
            let ids = TaskIds::of(all.iter().flat_map(|node| &node.tasks).copied());
            format!("{}\n{}", count(size, "task"), list(&ids))
        }
        None => first.id.clone(),
    };
    format!("{what}\n{}", first.place.map(CodeLocation::to_string).unwrap_or_default())
}

/// A quoted string of the language: what ends it, and what it takes for a command, is escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.trim_end().chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            letter if letter.is_control() => quoted.push(' '),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
