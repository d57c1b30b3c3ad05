//! Follows the ways of earlier walks, and keeps those of new ones.

use std::sync::Arc;

use super::super::Frame;
use super::super::plan::{Body, Container};
use super::trails::{Choice, Event, KnownLeaf, MAX_BASES, MAX_EVENTS, Node, Spot};
use super::{Context, Walker, Way};
use crate::debuginfo::types::TypeId;

/// How far the ways of earlier walks led.
pub(super) enum Followed {
    /// To the end: nothing is left to do.
    ToItsEnd,
    /// To where nobody went on as this future does.
    NewWay,
    /// To where it has to be walked.
    MustWalk,
}

impl Walker<'_, '_, '_> {
    /// Keeps the way of the last walk, which led to that stack, for others.
    pub(in crate::tasks) fn keep(&mut self, stack: &Arc<[Frame]>) {
        if self.keeps && self.found.cut.is_none() {
            self.learn(Some(stack.clone()));
        }
    }

    /// The way cannot be followed from here on, by nobody.
    pub(super) fn only_walk(&mut self) {
        if self.keeps {
            self.learn(None);
        }
    }

    /// Nothing is found on this branch, for reasons that are not noted: the way must not be kept.
    pub(super) fn ends<T>(&mut self) -> Option<T> {
        self.keeps = false;
        None
    }

    /// Notes what happens, where that is worth keeping.
    pub(super) fn note(&mut self, event: impl FnOnce(&Self) -> Event) {
        if self.events.len() >= MAX_EVENTS {
            self.only_walk();
        }
        if self.keeps {
            let event = event(self);
            self.events.push(event);
        }
    }

    /// Notes what leads to `target`, and gives the way on from there.
    pub(super) fn lead(&mut self, event: impl FnOnce(&Self) -> Event, target: u64, way: Way) -> Way {
        if self.bases.len() >= MAX_BASES {
            self.only_walk();
        }
        self.note(event);
        if self.keeps {
            self.bases.push(target);
        }
        way.to(self.bases.len() - 1)
    }

    fn learn(&mut self, stack: Option<Arc<[Frame]>>) {
        self.keeps = false;
        if let Some(of) = self.of {
            self.trails.borrow_mut().learn(of, self.events.drain(..), stack);
        }
    }

    /// Follows ways of earlier walks as far as they lead.
    pub(super) fn follow(&mut self, of: TypeId) -> Followed {
        let trails = self.trails.borrow();
        let Some(mut number) = trails.root(of) else { return Followed::NewWay };
        loop {
            number = match trails.node(number) {
                Some(Node::Choice { of, at, cases }) => {
                    let Some(value) = self.value(of, *at) else { return Followed::MustWalk };
                    let Some(next) = cases.get(value) else { return Followed::NewWay };
                    next
                }
                Some(Node::Pointer { at, plan, next }) => {
                    let target = self.address(*at).and_then(|at| self.word(at));
                    let Some(target) = target.filter(|target| self.is_new(*target, *plan)) else {
                        return Followed::MustWalk;
                    };
                    self.bases.push(target);
                    *next
                }
                Some(Node::Whole { of, at, next }) => {
                    let whole = self.address(*at).and_then(|at| self.whole_at(of, at));
                    let is_new = |whole: &u64| match of.as_ref() {
                        Container::Shared { plan, .. } => self.is_new(*whole, plan.id),
                        _ => true,
                    };
                    let Some(whole) = whole.filter(is_new) else { return Followed::MustWalk };
                    self.bases.push(whole);
                    *next
                }
                Some(Node::Leaf { at, leaf, next }) => {
                    if self.read(leaf, *at).is_none() {
                        return Followed::MustWalk;
                    }
                    *next
                }
                Some(Node::Unknown { at, next }) => {
                    let Some(at) = self.address(*at) else { return Followed::MustWalk };
                    self.found.add_unknown(0, at);
                    *next
                }
                Some(Node::End(stack)) => {
                    self.found.stack = Some(stack.clone());
                    return Followed::ToItsEnd;
                }
                Some(Node::Open) => return Followed::NewWay,
                Some(Node::Walk) | None => return Followed::MustWalk,
            };
        }
    }

    /// What is read to choose by.
    fn value(&self, of: &Choice, at: Spot) -> Option<u64> {
        let at = self.address(at)?;
        match of {
            Choice::Number(size) => self.process.memory.number(at, *size),
            Choice::Case(plan) => self.case(plan, at).map(|index| index as u64),
            Choice::Branches(container) => Some(self.disabled(container, at)),
            Choice::Waits(plan, hint) => match &plan.body {
                Body::Leaf(leaf) => Some(u64::from(self.is_waiting(leaf, at, *hint))),
                _ => None,
            },
        }
    }

    /// Whether this is the first time that the way leads there. A walk looks only at what is open still, and cuts the stack.
    fn is_new(&mut self, at: u64, plan: u32) -> bool {
        let is_new = !self.followed.contains(&(at, plan));
        self.followed.push((at, plan));
        is_new
    }

    fn read(&mut self, leaf: &KnownLeaf, at: Spot) -> Option<()> {
        self.contexts.clear();
        for (plan, state, at) in &leaf.functions {
            let (plan, state, address) = (plan.clone(), *state, self.address(*at)?);
            self.contexts.push(Context { plan, state, address, way: Way::to_all(), found: (0, 0) });
        }
        let Body::Leaf(kind) = &leaf.plan.body else { return None };
        self.wait(kind, self.address(at)?, leaf.context, leaf.hint);
        Some(())
    }

    fn address(&self, spot: Spot) -> Option<u64> {
        Some(self.bases.get(spot.base as usize)?.wrapping_add(spot.offset.into()))
    }

    /// Where `address` is, on that way.
    pub(super) fn spot(&self, way: Way, address: u64) -> Spot {
        let base = self.bases.get(way.base()).copied().unwrap_or_default();
        // No future is as large as 4 GB.
        Spot { base: way.base() as u32, offset: address.wrapping_sub(base) as u32 }
    }
}
