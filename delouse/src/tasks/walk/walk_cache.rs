//! The paths that walks have taken, so that a future in the same states need not be walked again.
//!
//! Most tasks of a program are suspended at a few places. Which path a walk takes depends on few of the values that it
//! reads: the states of coroutines, the cases of enums, the vtables of boxes. The paths are kept as trees, one for each
//! type, that branch where one of these is read. A replay reads only these values, pointers and leaves, and finds the
//! whole stack at the end of the path. A future that differs from all earlier ones is walked.

use std::mem::discriminant;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::super::layout::LayoutId;
use super::super::{Frame, Race, ResourceKind, leaves};
use crate::debuginfo::types::TypeId;

/// The most nodes of all trees, which take some megabytes. If more are needed, the cache is emptied.
const MAX_NODES: usize = 1 << 15;
/// The most events of one path: a path through a thousand futures of an array is seldom taken twice.
pub(super) const MAX_EVENTS: usize = 512;
/// The most pointers of one path, each of which is compared with all earlier ones.
pub(super) const MAX_BASES: usize = 32;

/// A place in a future: an offset from the future itself (base 0), or from the target of one of the path's pointers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) base: u32,
    pub(super) offset: u32,
}

/// A step of a walk that may be different in another future.
#[derive(Debug)]
pub(super) enum Event {
    /// It reads one of a few values, on which the rest of the path depends.
    Choice { of: Choice, at: Spot, is: u64 },
    /// It follows a pointer to a value with that layout.
    Pointer { at: Spot, layout: LayoutId },
    /// It finds where the futures of a `select!`, or a shared future, are stored.
    Whole { of: LayoutId, at: Spot },
    /// It reads a leaf.
    Leaf { at: Spot, leaf: KnownLeaf },
    /// It finds no leaf in a future, and shows a wait of this kind.
    NoLeaf { at: Spot, kind: ResourceKind },
}

/// The value on which a path depends.
#[derive(Debug)]
pub(super) enum Choice {
    /// A number of that many bytes: the state of a coroutine, or the address of a vtable.
    Number(u64),
    /// The case of an enum with that layout, by index.
    Case(LayoutId),
    /// The branches of a `select!` that are not polled.
    Branches(LayoutId),
    /// Whether the leaf with that layout is waited for, on a path with that hint.
    Waits(LayoutId, leaves::Hint),
}

/// What must be known of a leaf to read it.
#[derive(Debug)]
pub(super) struct KnownLeaf {
    pub(super) layout: LayoutId,
    pub(super) context: Option<&'static leaves::contexts::Context>,
    pub(super) race: Race,
    pub(super) hint: leaves::Hint,
    /// If the owner of its resource is among the variables of the functions around it: the layouts, states and places
    /// of these functions, the innermost last.
    pub(super) functions: Box<[(LayoutId, usize, Spot)]>,
}

/// A node of a tree: the next step. Numbers are those of the nodes that follow.
#[derive(Debug)]
pub(super) enum Node {
    Choice {
        of: Choice,
        at: Spot,
        cases: Cases,
    },
    Pointer {
        at: Spot,
        layout: LayoutId,
        next: u32,
    },
    Whole {
        of: LayoutId,
        at: Spot,
        next: u32,
    },
    Leaf {
        at: Spot,
        leaf: Box<KnownLeaf>,
        next: u32,
    },
    NoLeaf {
        at: Spot,
        kind: ResourceKind,
        next: u32,
    },
    /// The path ends, and this is the stack.
    End(Arc<[Frame]>),
    /// From here on, each future must be walked, because the next steps differ in each.
    Walk,
    /// No walk has reached this node yet.
    Open,
}

/// The values that were read so far, and what comes next for each.
// The first one is stored in the node itself: few have more, and less memory is read.
#[derive(Debug)]
pub(super) struct Cases {
    first: (u64, u32),
    /// In the order of their values.
    others: Vec<(u64, u32)>,
}

impl Cases {
    pub(super) fn get(&self, value: u64) -> Option<u32> {
        if self.first.0 == value {
            return Some(self.first.1);
        }
        let at = self.find(value).ok()?;
        self.others.get(at).map(|(_, next)| *next)
    }

    fn find(&self, value: u64) -> Result<usize, usize> {
        self.others.binary_search_by_key(&value, |(value, _)| *value)
    }
}

/// All trees.
#[derive(Default)]
pub(in crate::tasks) struct WalkCache {
    roots: FxHashMap<TypeId, u32>,
    nodes: Vec<Node>,
}

impl WalkCache {
    /// The node at which paths through futures of that type begin.
    pub(super) fn root(&self, of: TypeId) -> Option<u32> {
        self.roots.get(&of).copied()
    }

    pub(super) fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    /// Keeps a path through futures of type `of`, and the stack at its end; `None` if futures must be walked from there
    /// on.
    pub(super) fn learn(
        &mut self,
        of: TypeId,
        events: impl Iterator<Item = Event>,
        stack: Option<Arc<[Frame]>>,
    ) {
        if self.nodes.len() >= MAX_NODES {
            *self = Self::default();
        }
        let mut at = match self.root(of) {
            Some(root) => root,
            None => {
                let root = self.open();
                self.roots.insert(of, root);
                root
            }
        };
        for event in events {
            let Some(next) = self.step(at, event) else { return };
            at = next;
        }
        if let Some(end @ Node::Open) = self.nodes.get_mut(at as usize) {
            *end = stack.map_or(Node::Walk, Node::End);
        }
    }

    fn open(&mut self) -> u32 {
        let number = self.nodes.len() as u32;
        self.nodes.push(Node::Open);
        number
    }

    /// The node after `at` if that event happens there; `None` if another event is known to happen there.
    fn step(&mut self, at: u32, event: Event) -> Option<u32> {
        let next = self.nodes.len() as u32;
        let behind = match (self.nodes.get_mut(at as usize)?, event) {
            (node @ Node::Open, event) => {
                *node = match event {
                    Event::Choice { of, at, is } => {
                        Node::Choice { of, at, cases: Cases { first: (is, next), others: Vec::new() } }
                    }
                    Event::Pointer { at, layout } => Node::Pointer { at, layout, next },
                    Event::Whole { of, at } => Node::Whole { of, at, next },
                    Event::Leaf { at, leaf } => Node::Leaf { at, leaf: Box::new(leaf), next },
                    Event::NoLeaf { at, kind } => Node::NoLeaf { at, kind, next },
                };
                next
            }
            (Node::Choice { of, at, cases }, Event::Choice { of: by, at: here, is })
                if *at == here && discriminant(of) == discriminant(&by) =>
            {
                match cases.get(is) {
                    Some(behind) => behind,
                    None => {
                        let place = cases.find(is).unwrap_or_else(|place| place);
                        cases.others.insert(place, (is, next));
                        next
                    }
                }
            }
            (Node::Pointer { at, next, .. }, Event::Pointer { at: here, .. })
            | (Node::Whole { at, next, .. }, Event::Whole { at: here, .. })
            | (Node::Leaf { at, next, .. }, Event::Leaf { at: here, .. })
            | (Node::NoLeaf { at, next, .. }, Event::NoLeaf { at: here, .. })
                if *at == here =>
            {
                *next
            }
            // Not reached: a walk depends on nothing else than these events.
            _ => return None,
        };
        if behind == next {
            self.open();
        }
        Some(behind)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by it")]
    use super::*;

    const HERE: Spot = Spot { base: 0, offset: 8 };

    fn stack(function: &str) -> Arc<[Frame]> {
        Arc::from([Frame { function: function.to_owned(), ..Frame::default() }])
    }

    fn vtable(is: u64) -> Event {
        Event::Choice { of: Choice::Number(8), at: HERE, is }
    }

    fn pointer() -> Event {
        Event::Pointer { at: HERE, layout: LayoutId::default() }
    }

    /// The end of a path whose vtables are `values`, one after the other.
    fn end<'t>(cache: &'t WalkCache, of: TypeId, values: &[u64]) -> &'t Node {
        let (mut at, mut values) = (cache.root(of).unwrap(), values.iter());
        loop {
            at = match cache.node(at).unwrap() {
                Node::Choice { cases, .. } => cases.get(*values.next().unwrap()).unwrap(),
                Node::Pointer { next, .. } => *next,
                end => return end,
            };
        }
    }

    #[test]
    fn paths_branch_where_futures_differ() {
        let (mut cache, of) = (WalkCache::default(), TypeId { unit: 0, offset: 0 });
        assert_eq!(cache.root(of), None);
        cache.learn(of, [vtable(1), pointer(), vtable(3)].into_iter(), Some(stack("three")));
        cache.learn(of, [vtable(1), pointer(), vtable(4)].into_iter(), Some(stack("four")));
        cache.learn(of, [vtable(2)].into_iter(), None);
        let name = |values: &[u64]| match end(&cache, of, values) {
            Node::End(stack) => stack[0].function.clone(),
            other => format!("{other:?}"),
        };
        assert_eq!(name(&[1, 3]), "three");
        assert_eq!(name(&[1, 4]), "four");
        assert_eq!(name(&[2]), "Walk");
        // Known paths are kept.
        cache.learn(of, [vtable(2)].into_iter(), Some(stack("two")));
        assert!(matches!(end(&cache, of, &[2]), Node::Walk));
    }

    #[test]
    fn trees_are_bounded() {
        let (mut cache, of) = (WalkCache::default(), TypeId { unit: 0, offset: 0 });
        for value in (0..1000).rev() {
            cache.learn(of, [vtable(value)].into_iter(), Some(stack(&format!("path {value}"))));
        }
        for value in 0..1000 {
            let Node::End(stack) = end(&cache, of, &[value]) else { panic!("no end") };
            assert_eq!(stack[0].function, format!("path {value}"));
        }
        for unit in 1..1000 {
            let of = TypeId { unit, offset: 0 };
            cache.learn(of, (0..MAX_EVENTS).map(|_| pointer()), Some(stack("long")));
            assert!(matches!(end(&cache, of, &[]), Node::End(_)));
            assert!(cache.nodes.len() <= MAX_NODES + MAX_EVENTS, "{}", cache.nodes.len());
        }
        assert_eq!(cache.root(of), None, "the cache was emptied");
    }

    #[test]
    fn paths_that_do_not_agree_are_not_mixed() {
        let (mut cache, of) = (WalkCache::default(), TypeId { unit: 0, offset: 0 });
        let elsewhere = Spot { base: 0, offset: 16 };
        cache.learn(of, [vtable(1)].into_iter(), Some(stack("here")));
        let other = Event::Choice { of: Choice::Number(8), at: elsewhere, is: 2 };
        cache.learn(of, [other].into_iter(), Some(stack("elsewhere")));
        let Some(Node::Choice { at: HERE, cases, .. }) = cache.node(cache.root(of).unwrap()) else {
            panic!("{:?}", cache.nodes)
        };
        assert_eq!(cases.get(2), None);
    }
}
