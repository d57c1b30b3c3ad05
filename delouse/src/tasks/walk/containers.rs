//! Walks into collections of futures.

use std::rc::Rc;

use super::super::plan::{Container, Plan};
use super::trails::{Choice, Event};
use super::{TOO_LARGE, Visit, Walker, Way};

/// Futures of one collection.
const MAX_ELEMENTS: u64 = 1024;

impl Walker<'_, '_, '_> {
    /// Puts what is in a collection in front of all other work.
    pub(super) fn container(&mut self, container: &Rc<Container>, at: u64, way: Way) {
        match container.as_ref() {
            Container::Array { plan, stride, count } => self.each(plan, at, *stride, *count, way),
            Container::Slice { plan, stride, pointer, length } => {
                self.only_walk();
                let word = |offset: u64| self.word(at.checked_add(offset)?);
                if let (Some(first), Some(count)) = (word(*pointer), word(*length)) {
                    self.each(plan, first, *stride, count, way);
                }
            }
            Container::Small { plan, stride, room, capacity, inline, pointer, length } => {
                self.only_walk();
                let word = |offset: &u64| self.word(at.checked_add(*offset)?);
                let (first, count) = match word(capacity) {
                    Some(count) if count <= *room => (at.checked_add(*inline), Some(count)),
                    Some(_) => (word(pointer), word(length)),
                    None => (None, None),
                };
                if let (Some(first), Some(count)) = (first, count) {
                    self.each(plan, first, *stride, count, way);
                }
            }
            Container::Lists { plan, heads, next, value } => {
                self.only_walk();
                let before = self.work.len();
                for head in heads {
                    let head = head.follow(self.process, at);
                    if let Some(first) = head.and_then(|head| self.word(head)) {
                        self.list(plan, first, (*next, *value), way);
                    }
                }
                self.ends += usize::from(self.work.len() == before);
            }
            Container::Select { branches, .. } => {
                let bits = self.disabled(container, at);
                self.note(|walker| {
                    let (of, at) = (Choice::Branches(container.clone()), walker.spot(way, at));
                    Event::Choice { of, at, is: bits }
                });
                let Some((tuple, way)) = self.whole(container, at, way) else { return };
                let way = way.branch(true);
                for (number, offset, plan) in branches {
                    let is_polled = bits.checked_shr(*number).is_none_or(|bits| bits & 1 == 0);
                    let at = tuple.checked_add(*offset).or_else(|| self.ends());
                    if let Some(at) = at.filter(|_| is_polled) {
                        self.work.push(Visit { plan: plan.clone(), at, way });
                    }
                }
            }
            Container::Shared { plan, .. } => {
                if let Some((at, way)) = self.whole(container, at, way) {
                    self.work.push(Visit { plan: plan.clone(), at, way: way.behind() });
                }
            }
        }
    }

    /// The bits of the branches of a `select!` that are not polled.
    pub(super) fn disabled(&self, container: &Container, at: u64) -> u64 {
        let Container::Select { disabled, size, .. } = container else { return 0 };
        let bits = disabled.follow(self.process, at);
        bits.and_then(|at| self.process.memory.number(at, *size)).unwrap_or(0)
    }

    /// Where what a collection consists of lies as a whole, and the way there.
    fn whole(&mut self, container: &Rc<Container>, at: u64, way: Way) -> Option<(u64, Way)> {
        let Some(whole) = self.whole_at(container, at) else { return self.ends() };
        let event = |walker: &Self| Event::Whole { of: container.clone(), at: walker.spot(way, at) };
        Some((whole, self.lead(event, whole, way)))
    }

    pub(super) fn whole_at(&self, container: &Container, at: u64) -> Option<u64> {
        match container {
            Container::Select { tuple, .. } => tuple.follow(self.process, at),
            Container::Shared { way, .. } => way.follow(self.process, at),
            _ => None,
        }
    }

    fn each(&mut self, plan: &Rc<Plan>, first: u64, stride: u64, count: u64, way: Way) {
        self.ends += usize::from(count == 0);
        let way = way.deeper(way.frames()).branch(plan.is_future);
        for index in 0..count.min(MAX_ELEMENTS) {
            let at = index.checked_mul(stride).and_then(|offset| first.checked_add(offset));
            let Some(at) = at.or_else(|| self.ends()) else { return };
            self.work.push(Visit { plan: plan.clone(), at, way });
        }
        if count > MAX_ELEMENTS {
            self.found.cut = Some(TOO_LARGE);
        }
    }

    fn list(&mut self, plan: &Rc<Plan>, first: u64, (next, value): (u64, u64), way: Way) {
        let way = way.deeper(way.frames()).branch(true);
        let mut node = first;
        for _ in 0..MAX_ELEMENTS {
            let Some(at) = node.checked_add(value) else { return };
            self.work.push(Visit { plan: plan.clone(), at, way });
            match node.checked_add(next).and_then(|link| self.word(link)) {
                Some(link) if link != first => node = link,
                _ => return,
            }
        }
        self.found.cut = Some(TOO_LARGE);
    }
}
