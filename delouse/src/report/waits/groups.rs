//! Waiters that wait alike: at one place, for the same resources, with the same holders. They are shown as one.

use rustc_hash::FxHashMap;

use crate::tasks::ResourceKind;
use crate::waits::{CodeLocation, Edge, Holder, WaitGraph};

/// One that waits: a task, or a thread on which none runs.
pub(super) type Waiter = (Option<u64>, Option<i32>);

pub(super) fn waiter(edge: &Edge) -> Waiter {
    (edge.waiter, if edge.waiter.is_some() { None } else { edge.thread })
}

/// The task or thread that a holder is.
pub(super) fn holds(holder: &Holder) -> Waiter {
    (holder.task, holder.thread.filter(|_| holder.task.is_none()))
}

/// All waiters of a graph, in groups.
pub(super) struct Groups<'g> {
    /// What each waiter waits for.
    pub(super) waits: FxHashMap<Waiter, Vec<&'g Edge>>,
    pub(super) groups: Vec<Vec<Waiter>>,
    /// The group of each waiter, by its number.
    of: FxHashMap<Waiter, usize>,
}

/// What makes one wait like another: place, resource, holders, more of them elsewhere. All that wait for the same share
/// the list of holders, so its address identifies it. Of timers and sockets, which each waiter has of its own, the kind
/// is enough.
type Alike<'g> = (Option<&'g CodeLocation>, ResourceKind, &'g str, *const Holder, bool);

fn alike(edge: &Edge) -> Alike<'_> {
    let own = edge.outside.is_some();
    let (resource, holders) = if own {
        (edge.leaf.as_deref().unwrap_or_default(), std::ptr::null())
    } else {
        (edge.resource.id.as_str(), edge.holders.as_ptr())
    };
    (edge.place.as_deref(), edge.resource.kind, resource, holders, edge.held_elsewhere)
}

impl<'g> Groups<'g> {
    pub(super) fn of(graph: &'g WaitGraph) -> Self {
        let mut waits: FxHashMap<Waiter, Vec<&Edge>> = FxHashMap::default();
        for edge in &graph.edges {
            waits.entry(waiter(edge)).or_default().push(edge);
        }
        let mut groups: Vec<Vec<Waiter>> = Vec::new();
        let mut of = FxHashMap::default();
        let mut known: FxHashMap<(Option<Waiter>, Vec<Alike<'g>>), usize> = FxHashMap::default();
        for edge in &graph.edges {
            let party = waiter(edge);
            if of.contains_key(&party) {
                continue;
            }
            let edges = waits.get(&party).map(Vec::as_slice).unwrap_or_default();
            // A main future has no id to list, and a blocked thread is named with its task.
            let alone =
                matches!(party, (None | Some(0), _)) || edges.iter().any(|edge| edge.thread.is_some());
            let key = (alone.then_some(party), edges.iter().map(|edge| alike(edge)).collect());
            let number = *known.entry(key).or_insert(groups.len());
            match groups.get_mut(number) {
                Some(group) => group.push(party),
                None => groups.push(vec![party]),
            }
            of.insert(party, number);
        }
        Self { waits, groups, of }
    }

    /// The group of a waiter; none for one that waits for nothing.
    pub(super) fn number(&self, party: Waiter) -> Option<usize> {
        self.of.get(&party).copied()
    }

    pub(super) fn members(&self, group: usize) -> &[Waiter] {
        self.groups.get(group).map(Vec::as_slice).unwrap_or_default()
    }

    /// What a waiter waits for.
    pub(super) fn edges(&self, party: Waiter) -> Vec<&'g Edge> {
        self.waits.get(&party).cloned().unwrap_or_default()
    }
}
