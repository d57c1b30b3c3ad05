//! The ways that walks took, so that a future which looks the same need not be walked again.
//!
//! Most tasks of a program stand at a few places. Which way a walk goes depends on little that it reads: the states of
//! coroutines, the cases of enums, the vtables of boxes. The ways are kept as trees, one for each type, that branch where
//! one of these is read. Whoever follows a tree reads these, pointers and leaves, and finds the whole stack at its end;
//! where a future differs from all before, it is walked as if nothing were known.

use std::mem::discriminant;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::super::plan::{Container, Plan};
use super::super::{Frame, leaves};
use crate::debuginfo::types::TypeId;

/// Nodes of all trees: some megabytes. Where more are wanted, all begins anew.
const MAX_NODES: usize = 1 << 15;
/// Events of one way: a way through a thousand futures of an array is seldom gone twice.
pub(super) const MAX_EVENTS: usize = 512;
/// Pointers on one way, each of which is compared with those before.
pub(super) const MAX_BASES: usize = 32;

/// A place in a future: from the future itself (base 0), or from where one of the pointers on the way led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) base: u32,
    pub(super) offset: u32,
}

/// What a walk does on its way that can be different in the next future.
#[derive(Debug)]
pub(super) enum Event {
    /// It reads one of a few values, by which it goes on.
    Choice { of: Choice, at: Spot, is: u64 },
    /// It follows a pointer to something with that plan.
    Pointer { at: Spot, plan: u32 },
    /// It finds where the futures of a collection lie.
    Whole { of: Rc<Container>, at: Spot },
    /// It reads a leaf.
    Leaf { at: Spot, leaf: KnownLeaf },
    /// It does not know what the future there waits for.
    Unknown { at: Spot },
}

/// By what a walk chooses.
#[derive(Debug)]
pub(super) enum Choice {
    /// A number of so many bytes: the state of a coroutine, or the address of a vtable.
    Number(u64),
    /// The case of an enum with that plan, by index.
    Case(Rc<Plan>),
    /// The branches of a `select!` that are not polled.
    Branches(Rc<Container>),
    /// Whether the leaf with that plan is waited for, on a way that tells so much of it.
    Waits(Rc<Plan>, leaves::Hint),
}

/// What must be known of a leaf to read it.
#[derive(Debug)]
pub(super) struct KnownLeaf {
    pub(super) plan: Rc<Plan>,
    pub(super) context: Option<&'static leaves::contexts::Context>,
    pub(super) hint: leaves::Hint,
    /// The functions on the way to it, the innermost last, where they are asked for the owner of its resource: their plan,
    /// their state, and where they are.
    pub(super) functions: Box<[(Rc<Plan>, usize, Spot)]>,
}

/// A node of a tree: what comes next. Numbers are those of the nodes behind it.
#[derive(Debug)]
pub(super) enum Node {
    Choice {
        of: Choice,
        at: Spot,
        cases: Cases,
    },
    Pointer {
        at: Spot,
        plan: u32,
        next: u32,
    },
    Whole {
        of: Rc<Container>,
        at: Spot,
        next: u32,
    },
    Leaf {
        at: Spot,
        leaf: Box<KnownLeaf>,
        next: u32,
    },
    Unknown {
        at: Spot,
        next: u32,
    },
    /// The way ends, and this is the stack.
    End(Arc<[Frame]>),
    /// From here on, it has to be walked: what follows is different in each future.
    Walk,
    /// Nobody came this way yet.
    Open,
}

/// The values that were read so far, and what comes next for each.
// The first one lies in the node itself: few have more, and less memory is looked at.
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
pub(in crate::tasks) struct Trails {
    roots: FxHashMap<TypeId, u32>,
    nodes: Vec<Node>,
}

impl Trails {
    /// Where ways through futures of that type begin.
    pub(super) fn root(&self, of: TypeId) -> Option<u32> {
        self.roots.get(&of).copied()
    }

    pub(super) fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    /// Keeps a way through futures of type `of`, and the stack at its end: `None` where it can only be walked from there
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

    /// The node behind `at` where that event happened there; `None` where another one is known to happen.
    fn step(&mut self, at: u32, event: Event) -> Option<u32> {
        let next = self.nodes.len() as u32;
        let behind = match (self.nodes.get_mut(at as usize)?, event) {
            (node @ Node::Open, event) => {
                *node = match event {
                    Event::Choice { of, at, is } => {
                        Node::Choice { of, at, cases: Cases { first: (is, next), others: Vec::new() } }
                    }
                    Event::Pointer { at, plan } => Node::Pointer { at, plan, next },
                    Event::Whole { of, at } => Node::Whole { of, at, next },
                    Event::Leaf { at, leaf } => Node::Leaf { at, leaf: Box::new(leaf), next },
                    Event::Unknown { at } => Node::Unknown { at, next },
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
            | (Node::Unknown { at, next }, Event::Unknown { at: here })
                if *at == here =>
            {
                *next
            }
            // A walk depends on nothing else than these events: it does not come here.
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
        Event::Pointer { at: HERE, plan: 1 }
    }

    /// Follows a tree whose vtables are `values`, one after the other.
    fn end<'t>(trails: &'t Trails, of: TypeId, values: &[u64]) -> &'t Node {
        let (mut at, mut values) = (trails.root(of).unwrap(), values.iter());
        loop {
            at = match trails.node(at).unwrap() {
                Node::Choice { cases, .. } => cases.get(*values.next().unwrap()).unwrap(),
                Node::Pointer { next, .. } => *next,
                end => return end,
            };
        }
    }

    #[test]
    fn ways_branch_where_futures_differ() {
        let (mut trails, of) = (Trails::default(), TypeId { unit: 0, offset: 0 });
        assert_eq!(trails.root(of), None);
        trails.learn(of, [vtable(1), pointer(), vtable(3)].into_iter(), Some(stack("three")));
        trails.learn(of, [vtable(1), pointer(), vtable(4)].into_iter(), Some(stack("four")));
        trails.learn(of, [vtable(2)].into_iter(), None);
        let name = |values: &[u64]| match end(&trails, of, values) {
            Node::End(stack) => stack[0].function.clone(),
            other => format!("{other:?}"),
        };
        assert_eq!(name(&[1, 3]), "three");
        assert_eq!(name(&[1, 4]), "four");
        assert_eq!(name(&[2]), "Walk");
        // What is known stays.
        trails.learn(of, [vtable(2)].into_iter(), Some(stack("two")));
        assert!(matches!(end(&trails, of, &[2]), Node::Walk));
    }

    #[test]
    fn trees_are_bounded() {
        let (mut trails, of) = (Trails::default(), TypeId { unit: 0, offset: 0 });
        for value in (0..1000).rev() {
            trails.learn(of, [vtable(value)].into_iter(), Some(stack(&format!("way {value}"))));
        }
        for value in 0..1000 {
            let Node::End(stack) = end(&trails, of, &[value]) else { panic!("no end") };
            assert_eq!(stack[0].function, format!("way {value}"));
        }
        for unit in 1..1000 {
            let of = TypeId { unit, offset: 0 };
            trails.learn(of, (0..MAX_EVENTS).map(|_| pointer()), Some(stack("long")));
            assert!(matches!(end(&trails, of, &[]), Node::End(_)));
            assert!(trails.nodes.len() <= MAX_NODES + MAX_EVENTS, "{}", trails.nodes.len());
        }
        assert_eq!(trails.root(of), None, "all began anew");
    }

    #[test]
    fn ways_that_do_not_agree_are_not_mixed() {
        let (mut trails, of) = (Trails::default(), TypeId { unit: 0, offset: 0 });
        let elsewhere = Spot { base: 0, offset: 16 };
        trails.learn(of, [vtable(1)].into_iter(), Some(stack("here")));
        let other = Event::Choice { of: Choice::Number(8), at: elsewhere, is: 2 };
        trails.learn(of, [other].into_iter(), Some(stack("elsewhere")));
        let Some(Node::Choice { at: HERE, cases, .. }) = trails.node(trails.root(of).unwrap()) else {
            panic!("{:?}", trails.nodes)
        };
        assert_eq!(cases.get(2), None);
    }
}
