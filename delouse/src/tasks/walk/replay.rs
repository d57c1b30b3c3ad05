//! Replays the paths of earlier walks, and keeps those of new ones.

use std::sync::Arc;

use super::super::Frame;
use super::super::layout::{Body, LayoutId};
use super::position::Position;
use super::walk_cache::{Choice, Event, KnownLeaf, MAX_BASES, MAX_EVENTS, Node, Spot};
use super::{Context, Walker};
use crate::debuginfo::types::TypeId;
use crate::snapshot::Address;

/// How far a replay went.
pub(super) enum Replayed {
    /// To the end of a path: nothing is left to do.
    Whole,
    /// To a node from which no earlier walk continued as this future does.
    UpToNewPath,
    /// To a node from which the future must be walked.
    NotCached,
}

impl Walker<'_, '_, '_> {
    /// Keeps the path of the last walk, which ended with that stack.
    pub(in crate::tasks) fn keep(&mut self, stack: &Arc<[Frame]>) {
        if self.caches_path && self.found.cut.is_none() {
            self.learn(Some(stack.clone()));
        }
    }

    /// The path cannot be replayed from here on.
    pub(super) fn stop_caching(&mut self) {
        if self.caches_path {
            self.learn(None);
        }
    }

    /// Nothing is found on this branch for a reason that is no event, so the path must not be kept.
    pub(super) fn not_cached<T>(&mut self) -> Option<T> {
        self.caches_path = false;
        None
    }

    /// Records a step, if the path is worth keeping.
    pub(super) fn note(&mut self, event: impl FnOnce(&Self) -> Event) {
        if self.events.len() >= MAX_EVENTS {
            self.stop_caching();
        }
        if self.caches_path {
            let event = event(self);
            self.events.push(event);
        }
    }

    /// Records the step to `target`, and returns the position there.
    pub(super) fn lead(
        &mut self,
        event: impl FnOnce(&Self) -> Event,
        target: Address,
        position: Position,
    ) -> Position {
        if self.bases.len() >= MAX_BASES {
            self.stop_caching();
        }
        self.note(event);
        if self.caches_path {
            self.bases.push(target);
        }
        position.to(self.bases.len() - 1)
    }

    fn learn(&mut self, stack: Option<Arc<[Frame]>>) {
        self.caches_path = false;
        if let Some(of) = self.of {
            self.cache.borrow_mut().learn(of, self.events.drain(..), stack);
        }
    }

    /// Replays paths of earlier walks as far as possible.
    pub(super) fn replay(&mut self, of: TypeId) -> Replayed {
        let cache = self.cache.borrow();
        let Some(mut number) = cache.root(of) else { return Replayed::UpToNewPath };
        loop {
            number = match cache.node(number) {
                Some(Node::Choice { of, at, cases }) => {
                    let Some(value) = self.value(of, *at) else { return Replayed::NotCached };
                    let Some(next) = cases.get(value) else { return Replayed::UpToNewPath };
                    next
                }
                Some(Node::Pointer { at, layout, next }) => {
                    let target = self.address(*at).and_then(|at| self.process.memory.pointer(at));
                    let Some(target) = target.filter(|target| self.is_new(*target, *layout)) else {
                        return Replayed::NotCached;
                    };
                    self.bases.push(target);
                    *next
                }
                Some(Node::Whole { of, at, next }) => {
                    let Some(layout) = self.layouts.get(*of) else { return Replayed::NotCached };
                    let whole = self.address(*at).and_then(|at| self.whole_at(layout, at));
                    let is_new = |whole: &Address| match &layout.body {
                        Body::Shared { target, .. } => self.is_new(*whole, *target),
                        _ => true,
                    };
                    let Some(whole) = whole.filter(is_new) else { return Replayed::NotCached };
                    self.bases.push(whole);
                    *next
                }
                Some(Node::Leaf { at, leaf, next }) => {
                    if self.read(leaf, *at).is_none() {
                        return Replayed::NotCached;
                    }
                    *next
                }
                Some(Node::NoLeaf { .. }) if self.is_scheduled() => return Replayed::NotCached,
                Some(Node::NoLeaf { at, kind, next }) => {
                    let Some(at) = self.address(*at) else { return Replayed::NotCached };
                    self.found.add_without_leaf(0, at, *kind);
                    *next
                }
                Some(Node::End(stack)) => {
                    self.found.stack = Some(stack.clone());
                    return Replayed::Whole;
                }
                Some(Node::Open) => return Replayed::UpToNewPath,
                Some(Node::Walk) | None => return Replayed::NotCached,
            };
        }
    }

    /// The value that determines the next node.
    fn value(&self, of: &Choice, at: Spot) -> Option<u64> {
        let at = self.address(at)?;
        match of {
            Choice::Number(size) => self.process.memory.number(at, *size),
            Choice::Case(layout) => match &self.layouts.get(*layout)?.body {
                Body::Variants(variants) => Some(variants.case(&self.process.memory, at)?.0 as u64),
                _ => None,
            },
            Choice::Branches(layout) => match &self.layouts.get(*layout)?.body {
                Body::Select(select) => Some(select.disabled(self.process, at)),
                _ => None,
            },
            Choice::Waits(layout, hint) => match &self.layouts.get(*layout)?.body {
                Body::Leaf(leaf) => Some(u64::from(self.is_waiting(leaf, at, *hint))),
                _ => None,
            },
        }
    }

    /// Whether the path leads there for the first time. A walk compares only with the pointers around it, and cuts the
    /// stack.
    fn is_new(&mut self, at: Address, layout: LayoutId) -> bool {
        let is_new = !self.followed.contains(&(at, layout));
        self.followed.push((at, layout));
        is_new
    }

    fn read(&mut self, leaf: &KnownLeaf, at: Spot) -> Option<()> {
        self.contexts.clear();
        for (layout, state, at) in &leaf.functions {
            let (layout, state, address) = (self.layouts.get(*layout)?, *state, self.address(*at)?);
            let position = Position::default();
            let (found, before) = ((0, 0), (0, 0));
            self.contexts.push(Context { layout, state, address, position, found, before });
        }
        let Body::Leaf(kind) = &self.layouts.get(leaf.layout)?.body else { return None };
        self.add_leaf_wait(kind, self.address(at)?, (leaf.context, leaf.race), leaf.hint, None);
        Some(())
    }

    fn address(&self, spot: Spot) -> Option<Address> {
        Some(self.bases.get(spot.base as usize)?.wrapping_add(spot.offset.into()))
    }

    /// The place of `address`, relative to the base of that position.
    pub(super) fn spot(&self, position: Position, address: Address) -> Spot {
        let base = self.bases.get(position.base()).copied().unwrap_or_default();
        // No future is as large as 4 GB.
        Spot { base: position.base() as u32, offset: address.wrapping_offset_from(base) as u32 }
    }
}
