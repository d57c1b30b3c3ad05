//! Walks into collections of futures.

use super::super::layout::{Body, Layout, LayoutId, Storage, Visited};
use super::position::Position;
use super::walk_cache::{Choice, Event};
use super::{TOO_LARGE, Visit, Walker};
use crate::snapshot::Address;

/// The most futures of one collection that are visited.
const MAX_ELEMENTS: u64 = 1024;

impl<'w> Walker<'w, '_, '_> {
    /// Adds the futures of a collection, a `select!` or a shared future, to be visited before all other work.
    pub(super) fn several(&mut self, layout: &'w Layout, at: Address, position: Position) {
        self.in_order(|walker| {
            walker.push_all(layout, at, position);
        });
    }

    fn push_all(&mut self, layout: &'w Layout, at: Address, position: Position) -> Option<()> {
        match &layout.body {
            Body::Collection(collection) => {
                let element = self.layouts.get(collection.element)?;
                let (is_array, is_list) = match collection.storage {
                    Storage::Array { .. } => (true, false),
                    Storage::Lists { .. } => (false, true),
                    _ => (false, false),
                };
                if !is_array {
                    self.stop_caching();
                }
                let is_branch = is_list || element.is_future;
                let position = position.deeper(position.frames()).branch(is_branch);
                let before = self.work.len();
                let work = &mut self.work;
                let push = |at| work.push(Visit { layout: element, at, position });
                if collection.each(self.process, at, MAX_ELEMENTS, push) != Visited::All {
                    self.found.cut = Some(TOO_LARGE);
                }
                if is_array || is_list {
                    self.completed += usize::from(self.work.len() == before);
                }
            }
            Body::Select(select) => {
                let bits = select.disabled(self.process, at);
                self.note(|walker| {
                    let (of, at) = (Choice::Branches(layout.id), walker.spot(position, at));
                    Event::Choice { of, at, is: bits }
                });
                let (tuple, position) = self.whole(layout, at, position.raced())?;
                for (number, offset, branch) in &select.branches {
                    let is_polled = bits.checked_shr(*number).is_none_or(|bits| bits & 1 == 0);
                    let at = tuple.checked_add(*offset).or_else(|| self.not_cached());
                    if let Some(at) = at.filter(|_| is_polled) {
                        self.push_at(*branch, at, position.branch(true));
                    }
                }
            }
            Body::Shared { target, .. } => {
                let (at, position) = self.whole(layout, at, position)?;
                self.push_at(*target, at, position.behind());
            }
            _ => {}
        }
        Some(())
    }

    fn push_at(&mut self, layout: LayoutId, at: Address, position: Position) {
        let layout = self.layouts.get(layout);
        self.work.extend(layout.map(|layout| Visit { layout, at, position }));
    }

    /// The address of the value that contains the futures of a `select!` or a shared future, and the position there.
    fn whole(&mut self, layout: &Layout, at: Address, position: Position) -> Option<(Address, Position)> {
        let Some(whole) = self.whole_at(layout, at) else { return self.not_cached() };
        let event = |walker: &Self| Event::Whole { of: layout.id, at: walker.spot(position, at) };
        Some((whole, self.lead(event, whole, position)))
    }

    pub(super) fn whole_at(&self, layout: &Layout, at: Address) -> Option<Address> {
        match &layout.body {
            Body::Select(select) => select.tuple.follow(self.process, at),
            Body::Shared { route, .. } => route.follow(self.process, at),
            _ => None,
        }
    }
}
