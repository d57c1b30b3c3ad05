//! The part of the wait graph around some tasks: what they wait for, what holds that, and what waits for them.

use std::collections::{HashMap, HashSet, VecDeque};

use super::groups::{Waiter, holds, waiter};
use crate::waits::{Edge, WaitGraph};

/// How many levels of tasks that wait for the tasks asked for are followed.
const BEHIND: usize = 2;

impl WaitGraph {
    /// Leaves the edges around `tasks`, at most `limit` of them: first what leads from a task to what can release it, as far
    /// as that goes, then the nearest that wait for it. Returns how many others were left out for the limit.
    pub(crate) fn narrow(&mut self, tasks: &[u64], limit: usize) -> usize {
        let (chosen, left_out) = around(&self.edges, tasks, limit);
        let mut at = 0..;
        self.edges.retain(|_| at.next().is_some_and(|at| chosen.contains(&at)));
        left_out
    }
}

/// The indices of the edges.
fn around(edges: &[Edge], tasks: &[u64], limit: usize) -> (HashSet<usize>, usize) {
    let mut by_waiter: HashMap<Waiter, Vec<usize>> = HashMap::new();
    let mut by_holder: HashMap<Waiter, Vec<usize>> = HashMap::new();
    // All that wait for one resource share the list of its holders.
    let mut by_list: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, edge) in edges.iter().enumerate() {
        by_waiter.entry(waiter(edge)).or_default().push(at);
        by_list.entry(edge.holders.as_ptr()).or_default().push(at);
    }
    for all in by_list.values() {
        let Some(first) = all.first().and_then(|at| edges.get(*at)) else { continue };
        for holder in first.holders.iter() {
            by_holder.entry(holds(holder)).or_default().extend(all);
        }
    }
    let mut found = Found { chosen: HashSet::new(), left_out: HashSet::new(), limit };
    let centre: Vec<Waiter> = tasks.iter().map(|id| (Some(*id), None)).collect();
    walk(&centre, usize::MAX, |party, next| {
        for at in by_waiter.get(&party).into_iter().flatten() {
            if found.add(*at) {
                let holders = edges.get(*at).map(|edge| &edge.holders);
                next.extend(holders.into_iter().flat_map(|holders| holders.iter()).map(holds));
            }
        }
    });
    walk(&centre, BEHIND, |party, next| {
        for at in by_holder.get(&party).into_iter().flatten() {
            if found.add(*at) {
                next.extend(edges.get(*at).map(waiter));
            }
        }
    });
    (found.chosen, found.left_out.len())
}

/// The edges that were found, of which a limited number is listed.
struct Found {
    chosen: HashSet<usize>,
    left_out: HashSet<usize>,
    limit: usize,
}

impl Found {
    /// Returns whether it is listed.
    fn add(&mut self, at: usize) -> bool {
        if self.chosen.contains(&at) {
            return true;
        }
        let has_room = self.chosen.len() < self.limit;
        let list = if has_room { &mut self.chosen } else { &mut self.left_out };
        list.insert(at);
        has_room
    }
}

/// Visits each party once, the nearest first, `levels` from those of `from`. `visit` adds those next to a party.
fn walk(from: &[Waiter], levels: usize, mut visit: impl FnMut(Waiter, &mut Vec<Waiter>)) {
    let mut seen: HashSet<Waiter> = from.iter().copied().collect();
    let mut queue: VecDeque<(Waiter, usize)> = from.iter().map(|party| (*party, 0)).collect();
    while let Some((party, level)) = queue.pop_front() {
        if level >= levels {
            continue;
        }
        let mut next = Vec::new();
        visit(party, &mut next);
        // Something outside of all tasks is no one thing.
        let known = next.into_iter().filter(|party| *party != (None, None));
        queue.extend(known.filter(|party| seen.insert(*party)).map(|party| (party, level + 1)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::waits::{Holder, Resource};

    fn edge(waiter: u64, resource: &str, holders: &[u64]) -> Edge {
        let holder = |id: &u64| Holder { task: Some(*id), ..Holder::default() };
        let resource = Resource { id: resource.to_owned(), ..Resource::default() };
        Edge {
            waiter: Some(waiter),
            resource: Arc::new(resource),
            holders: holders.iter().map(holder).collect(),
            ..Edge::default()
        }
    }

    fn narrowed(edges: &[Edge], tasks: &[u64], limit: usize) -> (Vec<u64>, usize) {
        let mut graph = WaitGraph { edges: edges.to_vec(), ..WaitGraph::default() };
        let left_out = graph.narrow(tasks, limit);
        (graph.edges.iter().filter_map(|edge| edge.waiter).collect(), left_out)
    }

    #[test]
    fn what_a_task_waits_for_and_what_waits_for_it() {
        // 1 waits for 2, and so on; 9 waits for what none of these has.
        let mut edges: Vec<Edge> = (1..=6).map(|id| edge(id, &format!("mutex-{id}"), &[id + 1])).collect();
        edges.push(edge(9, "mutex-9", &[10]));
        assert_eq!(narrowed(&edges, &[4], 100), (vec![2, 3, 4, 5, 6], 0));
        assert_eq!(narrowed(&edges, &[9], 100), (vec![9], 0));
        assert_eq!(narrowed(&edges, &[10, 6], 100).0, [4, 5, 6, 9]);
        assert_eq!(narrowed(&edges, &[8], 100), (vec![], 0));
    }

    #[test]
    fn a_circle_ends() {
        let edges = [edge(1, "mutex-1", &[2]), edge(2, "mutex-2", &[1])];
        assert_eq!(narrowed(&edges, &[1], 100), (vec![1, 2], 0));
    }

    #[test]
    fn a_crowd_is_cut_and_the_way_to_the_holder_is_kept() {
        let holder: Arc<[Holder]> = [Holder { task: Some(1), ..Holder::default() }].into();
        let waits = |id| Edge { holders: Arc::clone(&holder), ..edge(id, "mutex-1", &[]) };
        let mut edges: Vec<Edge> = (2..=1000).map(waits).collect();
        edges.push(edge(1, "mutex-2", &[5000]));
        let (waiters, left_out) = narrowed(&edges, &[1], 50);
        assert_eq!((waiters.len(), left_out, waiters.last()), (50, 950, Some(&1)));
    }
}
