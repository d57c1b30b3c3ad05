//! The wait-for graph in the language of Graphviz: `curl 'localhost:7132/waits?format=dot' | dot -Tsvg`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Waiter, holds, kind_name, name, waiter};
use crate::waits::{Edge, WaitGraph};

/// Waits that are drawn: of more than that, a picture shows nothing any more.
const EDGES: usize = 1000;

/// The graph: who waits points to what, and that to who holds it; dashed where it may hold it.
pub(crate) fn dot(graph: &WaitGraph) -> String {
    let mut edges: Vec<&Edge> = graph.edges.iter().collect();
    // Those that somebody can end come first; the sort is stable.
    edges.sort_by_key(|edge| edge.holders.is_empty());
    let left_out = edges.len().saturating_sub(EDGES);
    edges.truncate(EDGES);

    let mut waiters: BTreeMap<Waiter, Option<&str>> = BTreeMap::new();
    let mut resources: BTreeMap<&str, String> = BTreeMap::new();
    let mut arrows: BTreeSet<String> = BTreeSet::new();
    for edge in edges {
        let who = waiter(edge);
        waiters.insert(who, edge.place.as_deref());
        let id = edge.resource.id.as_str();
        let address = edge.resource.address.as_deref().unwrap_or_default();
        resources.insert(id, format!("{id}\n{}\n{address}", kind_name(edge.resource.kind)));
        arrows.insert(format!("{} -> {};", quoted(&name(who)), quoted(id)));
        for holder in edge.holders.iter() {
            let by = holds(holder);
            waiters.entry(by).or_insert(holder.place.as_deref());
            let style = if holder.certain { "solid" } else { "dashed" };
            arrows.insert(format!(
                "{} -> {} [style={style}, label={}];",
                quoted(id),
                quoted(&name(by)),
                quoted(&holder.variable)
            ));
        }
    }
    let mut out = String::from("digraph waits {\n  rankdir=LR;\n  node [fontname=\"monospace\"];\n");
    if left_out > 0 {
        let _infallible = writeln!(out, "  // {left_out} more waits are not drawn");
    }
    for (who, place) in waiters {
        let label = format!("{}\n{}", name(who), place.unwrap_or_default());
        let _infallible = writeln!(out, "  {} [shape=box, label={}];", quoted(&name(who)), quoted(&label));
    }
    for (id, label) in resources {
        let _infallible = writeln!(out, "  {} [shape=ellipse, label={}];", quoted(id), quoted(&label));
    }
    for arrow in arrows {
        let _infallible = writeln!(out, "  {arrow}");
    }
    out.push_str("}\n");
    out
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
