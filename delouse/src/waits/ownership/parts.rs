//! Parts of tasks that complete one by one: the branches of a `join!`.
//!
//! A `select!` completes with its first branch, and drops what the others own. A `join!` completes when all branches
//! have: until then, a stuck branch keeps what it owns, and the function around the `join!` keeps its guards, even if the
//! other branches continue.
//!
//! The *rest* of a task, or of a branch, is what runs after all branches of its `join!` have completed.

use rustc_hash::FxHashMap;

use super::{Holding, Node, Reference};
use crate::snapshot::Address;
use crate::tasks::LeafPlace;
use crate::tasks::layout::handles::{self, HandleFact, Roles};

/// A part of a task: a branch or a rest.
#[derive(Debug)]
pub(in crate::waits) struct Part {
    /// The task, by its index in the listing.
    pub(in crate::waits) task: u32,
    /// The task or branch that it is a part of, which is alive if one of its parts is.
    pub(in crate::waits) whole: Node,
    /// Something that is not known may complete it.
    pub(in crate::waits) open: bool,
    /// The rest that runs after this part has completed.
    next: Option<u32>,
}

/// All parts of all tasks; most tasks have none.
#[derive(Debug, Default)]
pub(in crate::waits) struct Parts {
    list: Vec<Part>,
    /// For each task or branch that waits in a `join!`, the branches that have not completed.
    branches: FxHashMap<Node, Vec<u32>>,
    /// For each of these tasks and branches, its rest.
    rests: FxHashMap<Node, u32>,
    /// For each rest, the parts that must complete before it runs.
    awaited: FxHashMap<u32, Vec<u32>>,
    /// The branch that a leaf is in, by the task and the leaf's number.
    of_leaf: FxHashMap<(u32, usize), u32>,
}

/// A branch as the walk through a task found it.
#[derive(Debug)]
pub(super) struct Draft {
    /// The branch that contains it; `None` for a branch of the task itself.
    pub(super) within: Option<u32>,
    /// Address of the value that contains all branches of its `join!`.
    pub(super) join: Address,
    /// Addresses and sizes of its values.
    pub(super) pieces: Vec<(Address, u64)>,
    /// Something that is not known may complete it.
    pub(super) open: bool,
}

impl Parts {
    /// All parts, with their numbers.
    pub(in crate::waits) fn all(&self) -> impl Iterator<Item = (u32, &Part)> {
        (0..).zip(&self.list)
    }

    pub(in crate::waits) fn len(&self) -> usize {
        self.list.len()
    }

    pub(in crate::waits) fn get(&self, part: u32) -> Option<&Part> {
        self.list.get(part as usize)
    }

    /// The task that a node is, or is a part of.
    pub(in crate::waits) fn task_of(&self, node: Node) -> Option<u32> {
        match node {
            Node::Task(task) => Some(task),
            Node::Part(part) => self.get(part).map(|part| part.task),
            Node::Object(_) | Node::Statics => None,
        }
    }

    /// The task for a part of a task; any other node unchanged.
    pub(in crate::waits) fn whole(&self, node: Node) -> Node {
        self.task_of(node).map_or(node, Node::Task)
    }

    /// The branches in which a task or branch waits.
    pub(in crate::waits) fn branches(&self, of: Node) -> &[u32] {
        self.branches.get(&of).map(Vec::as_slice).unwrap_or_default()
    }

    /// The node that is alive when a task or branch can complete: its rest, or itself if it has no branches.
    pub(in crate::waits) fn end(&self, of: Node) -> Node {
        self.rests.get(&of).map_or(of, |rest| Node::Part(*rest))
    }

    /// The parts that must complete before a rest runs.
    pub(in crate::waits) fn awaited(&self, part: u32) -> &[u32] {
        self.awaited.get(&part).map(Vec::as_slice).unwrap_or_default()
    }

    /// The rest that runs after this part has completed.
    pub(in crate::waits) fn next(&self, part: u32) -> Option<u32> {
        self.get(part)?.next
    }

    /// The task, or the branch of it, that waits at a leaf.
    pub(in crate::waits) fn at_leaf(&self, task: u32, leaf: usize) -> Node {
        self.of_leaf.get(&(task, leaf)).map_or(Node::Task(task), |part| Node::Part(*part))
    }

    /// Adds the branches of a task, and makes them the owners of what they own. If it is not certain in which branch
    /// each leaf is, or that all branches must complete (no `leaves`), no branch is added: the task then waits for any
    /// of its leaves.
    pub(super) fn settle(
        &mut self,
        task: u32,
        drafts: &[Draft],
        leaves: Option<&[LeafPlace]>,
        holdings: &mut [Holding],
        references: &mut [Reference],
    ) {
        let places = leaves.and_then(|leaves| places(drafts, leaves));
        let first = self.list.len() as u32;
        let node = |draft: Option<u32>| draft.map_or(Node::Task(task), |draft| Node::Part(first + draft));
        if let Some(places) = &places {
            self.add(task, drafts, node);
            let leaves = places.iter().enumerate().map(|(leaf, draft)| ((task, leaf), first + draft));
            self.of_leaf.extend(leaves);
        }
        let owner = |owner: Node| match owner {
            Node::Part(draft) if places.is_some() => node(Some(draft)),
            Node::Part(_) => Node::Task(task),
            other => other,
        };
        for holding in holdings {
            holding.owner = owner(holding.owner);
            // No other code can take a guard out of a variable: the guard is held until the rest runs, unless a drop
            // flag says that it may have been moved or dropped.
            let is_guard = |fact: &HandleFact| fact.roles.has(GUARDS) && !fact.is_permit();
            if holding.kept && !holding.uncertain && handles::at(holding.handle).is_some_and(is_guard) {
                holding.owner = self.end(holding.owner);
            }
        }
        for reference in references {
            reference.owner = owner(reference.owner);
        }
    }

    fn add(&mut self, task: u32, drafts: &[Draft], node: impl Fn(Option<u32>) -> Node) {
        for draft in drafts {
            self.list.push(Part { task, whole: node(draft.within), open: draft.open, next: None });
        }
        for (number, draft) in (0..).zip(drafts) {
            let Node::Part(branch) = node(Some(number)) else { continue };
            let whole = node(draft.within);
            self.branches.entry(whole).or_default().push(branch);
            if !self.rests.contains_key(&whole) {
                self.rests.insert(whole, self.list.len() as u32);
                self.list.push(Part { task, whole, open: false, next: None });
            }
        }
        for (number, draft) in (0..).zip(drafts) {
            let (Node::Part(end), Some(rest)) =
                (self.end(node(Some(number))), self.rests.get(&node(draft.within)))
            else {
                continue;
            };
            self.awaited.entry(*rest).or_default().push(end);
            if let Some(part) = self.list.get_mut(end as usize) {
                part.next = Some(*rest);
            }
        }
    }
}

/// Handles that only the function with the variable can release.
const GUARDS: Roles = Roles::GUARD.or(Roles::THREAD_GUARD);

/// The innermost branch of each leaf. `None` if a leaf is in no branch, or if two `join!`s are side by side, as in a
/// `select!`.
fn places(drafts: &[Draft], leaves: &[LeafPlace]) -> Option<Vec<u32>> {
    let mut joins: FxHashMap<Option<u32>, Address> = FxHashMap::default();
    if drafts.iter().any(|draft| *joins.entry(draft.within).or_insert(draft.join) != draft.join) {
        return None;
    }
    let is_whole = |number: &u32| !joins.contains_key(&Some(*number));
    innermost(drafts, leaves).into_iter().map(|branch| branch.filter(is_whole)).collect()
}

/// The innermost branch that contains each leaf. In `drafts`, a branch comes after the branch that contains it.
fn innermost(drafts: &[Draft], leaves: &[LeafPlace]) -> Vec<Option<u32>> {
    let of = |(number, draft): (u32, &Draft)| {
        let piece = move |(at, size): &(Address, u64)| (*at, at.saturating_add(*size), number);
        draft.pieces.iter().map(piece).collect::<Vec<_>>()
    };
    let mut pieces: Vec<(Address, Address, u32)> = (0..).zip(drafts).flat_map(of).collect();
    pieces.sort_unstable();
    let mut pieces = pieces.into_iter().peekable();
    let mut ordered: Vec<(Address, usize)> = leaves.iter().map(|leaf| leaf.at).zip(0..).collect();
    ordered.sort_unstable();
    let mut found = vec![None; leaves.len()];
    let mut around: Vec<(Address, u32)> = Vec::new();
    for (at, leaf) in ordered {
        while let Some((_, end, number)) = pieces.next_if(|(start, ..)| *start <= at) {
            around.push((end, number));
        }
        around.retain(|(end, _)| *end > at);
        let innermost = around.iter().map(|(_, number)| *number).max();
        // A leaf that two branches share is in neither.
        let outer = |number: u32| drafts.get(number as usize).and_then(|draft| draft.within);
        let chain = std::iter::successors(innermost, |number| outer(*number));
        let chain: Vec<u32> = chain.collect();
        if let Some(of) = found.get_mut(leaf) {
            *of = innermost.filter(|_| around.iter().all(|(_, number)| chain.contains(number)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(within: Option<u32>, join: u64, at: u64) -> Draft {
        Draft { within, join: Address::new(join), pieces: vec![(Address::new(at), 16)], open: false }
    }

    fn leaf(at: u64) -> LeafPlace {
        LeafPlace { at: Address::new(at), ..LeafPlace::default() }
    }

    #[test]
    fn leaves_are_in_the_innermost_branch() {
        let nested = [
            draft(None, 100, 100),
            draft(None, 100, 116),
            draft(Some(1), 116, 116),
            draft(Some(1), 116, 120),
        ];
        assert_eq!(places(&nested, &[leaf(104), leaf(118), leaf(135)]), Some(vec![0, 2, 3]));
        assert_eq!(places(&nested, &[leaf(104), leaf(96)]), None, "a leaf beside the join, as in a timeout");
        let side_by_side = [draft(None, 100, 100), draft(None, 200, 200)];
        assert_eq!(places(&side_by_side, &[leaf(100), leaf(200)]), None, "two joins in a select");
        let outer = [draft(None, 100, 100), draft(Some(0), 50, 104)];
        assert_eq!(places(&outer, &[leaf(100)]), None, "a leaf beside the inner join");
        let mut common = [draft(None, 100, 100), draft(None, 100, 116)];
        common.iter_mut().for_each(|draft| draft.pieces.push((Address::new(500), 8)));
        assert_eq!(places(&common, &[leaf(100), leaf(500)]), None, "a leaf that both branches share");
    }

    #[test]
    fn a_rest_waits_for_all_branches() {
        let drafts = [draft(None, 100, 100), draft(None, 100, 116), draft(Some(1), 300, 300)];
        let mut parts = Parts::default();
        parts.settle(7, &drafts, Some(&[leaf(100), leaf(300)]), &mut [], &mut []);
        assert_eq!(parts.at_leaf(7, 0), Node::Part(0));
        assert_eq!(parts.at_leaf(7, 1), Node::Part(2));
        assert_eq!(parts.at_leaf(8, 0), Node::Task(8));
        assert_eq!(parts.branches(Node::Task(7)), [0, 1]);
        assert_eq!(parts.branches(Node::Part(1)), [2]);
        let (Node::Part(all), Node::Part(inner)) = (parts.end(Node::Task(7)), parts.end(Node::Part(1)))
        else {
            panic!("both wait for branches")
        };
        assert_eq!(parts.awaited(all), [0, inner]);
        assert_eq!(parts.awaited(inner), [2]);
        assert_eq!(parts.next(inner), Some(all));
        assert_eq!(parts.next(1), None, "it completes when its own branches have");
        assert_eq!(parts.end(Node::Part(0)), Node::Part(0));
        assert_eq!(parts.whole(Node::Part(inner)), Node::Task(7));
    }
}
