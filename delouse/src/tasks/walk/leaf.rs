//! Reads the leaves of a walk.

use std::sync::Arc;

use super::super::layout::{Body, Layout};
use super::super::leaves::{self, Hint, Leaf, Met, Owner, contexts};
use super::super::{Address, Direction, LeafPlace, Race, ResourceKind, WaitsOn};
use super::position::Position;
use super::walk_cache::{Choice, Event, KnownLeaf};
use super::{Node, Part, Walker};
use crate::debuginfo::types::names;

/// The most functions whose variables are searched for the owner of a resource, from the innermost on.
const MAX_CONTEXTS: usize = 8;

/// The most types around a leaf whose names are examined for what it reads or writes.
const MAX_HINTS: usize = 8;

impl<'w> Walker<'w, '_, '_> {
    /// Sets the task of the next walk: its header, `None` for a main future; and whether the task is idle, and nothing has
    /// woken it since it was polled.
    pub(in crate::tasks) fn of_task(&mut self, header: Option<Address>, idle: bool) {
        (self.task, self.idle) = (header, idle);
    }

    /// Whether the leaf at `address` is waited for, as far as that is known.
    pub(super) fn is_waiting(&self, leaf: &Leaf, address: Address, hint: Hint) -> bool {
        let met = Met { hint, task: self.task, idle: self.idle, ..Met::default() };
        leaf.is_waiting(self.process, &self.layouts.learned, address, &met)
    }

    /// Visits a leaf at `address`: adds its frame and its wait, if its task waits for it.
    pub(super) fn leaf(&mut self, layout: &'w Layout, address: Address, position: Position) {
        let Body::Leaf(leaf) = &layout.body else { return };
        let paths: Vec<_> = self.paths().take(MAX_CONTEXTS).collect();
        let innermost = paths.first().map(|path| &**path).unwrap_or_default();
        if leaf.home().is_some_and(|home| !innermost.starts_with(home)) {
            return;
        }
        let hint = match leaf.kind() {
            ResourceKind::Io | ResourceKind::Join => self.hint(),
            _ => Hint::default(),
        };
        let mut ready = None;
        if leaf.is_conditional() {
            let waits = self.is_waiting(leaf, address, hint);
            self.note(|walker| {
                let (of, at) = (Choice::Waits(layout.id, hint), walker.spot(position, address));
                Event::Choice { of, at, is: u64::from(waits) }
            });
            if !waits {
                ready = self.ready_for(address, hint);
                if ready.is_none() {
                    return self.pass(layout, address, hint);
                }
            }
        }
        self.push(layout, Part::Type, position);
        let context = contexts::find(leaf.kind(), paths.iter().map(|path| &**path));
        let race = match leaf.kind() {
            ResourceKind::Timer if self.is_in_timeout() => Race::Timeout,
            _ if position.is_raced() => Race::Select,
            _ => Race::No,
        };
        self.note(|walker| {
            // The functions in which the owner of the resource is searched for.
            let searched = context.and_then(|context| context.owner).map_or(0, |_| MAX_CONTEXTS);
            let skipped = walker.contexts.len().saturating_sub(searched);
            let functions = walker.contexts.iter().skip(skipped).map(|context| {
                (context.layout.id, context.state, walker.spot(context.position, context.address))
            });
            let leaf = KnownLeaf { layout: layout.id, context, race, hint, functions: functions.collect() };
            Event::Leaf { at: walker.spot(position, address), leaf }
        });
        self.wait(leaf, address, (context, race), hint, ready);
    }

    /// The paths of the functions around, the innermost first.
    pub(super) fn paths(&self) -> impl Iterator<Item = Arc<str>> {
        self.contexts.iter().rev().filter_map(|context| match &context.layout.body {
            Body::Coroutine(coroutine) => Some(coroutine.path.clone()),
            _ => None,
        })
    }

    /// Whether the task was woken and waits for a worker.
    pub(super) fn is_scheduled(&self) -> bool {
        self.task.is_some() && !self.idle && !self.runs
    }

    /// What the names of the types around the leaf, up to the innermost function, say about it.
    fn hint(&self) -> Hint {
        let nodes = self.on_the_path().take(MAX_HINTS);
        leaves::hint(nodes.filter_map(|node| self.layouts.get(node.layout)?.frame.as_deref()))
    }

    /// Whether the type around the leaf is named for a timeout.
    fn is_in_timeout(&self) -> bool {
        // The nearest is the leaf's own.
        let around =
            self.on_the_path().nth(1).and_then(|node| self.layouts.get(node.layout)?.frame.as_deref());
        around.is_some_and(|name| names::last_segment(names::without_parameters(name)).contains("Timeout"))
    }

    /// The frames from the current position up to the innermost function, the nearest first.
    pub(super) fn on_the_path(&self) -> impl Iterator<Item = &Node> {
        let first = self.contexts.last().map_or(0, |context| context.found.0);
        let nodes = self.found.nodes.get(first..).unwrap_or_default();
        let mut depth = u16::MAX;
        nodes.iter().rev().filter(move |node| {
            let is_above = node.place.depth() < depth;
            depth = depth.min(node.place.depth());
            is_above
        })
    }

    /// Reads what the leaf at `address` waits for.
    pub(super) fn wait(
        &mut self,
        leaf: &Leaf,
        address: Address,
        (context, race): (Option<&'static contexts::Context>, Race),
        hint: Hint,
        ready: Option<Direction>,
    ) {
        let met = Met { context, hint, task: self.task, idle: self.idle, ready };
        let mut waits = leaf.waits_on(self.process, &self.layouts.learned, address, &met);
        let resource = waits.address;
        let mut place = LeafPlace { at: address, resource, address: resource, path: leaf.path(), race };
        if let Some(of) = context.and_then(|context| context.owner)
            && waits.fd.is_none()
            && let Some(resource) = resource
            && let Some(whole) = self.owner(of, resource, &mut waits)
        {
            waits.address = Some(whole);
            place.address = Some(whole);
        }
        if waits.kind == ResourceKind::Signal {
            let channel = place.address;
            waits.signal =
                channel.and_then(|channel| self.layouts.learned.signals.number(self.process, channel));
        }
        if let (ResourceKind::Join, Some(header)) = (waits.kind, resource) {
            self.found.joins.push((self.found.waits.len(), header));
        }
        self.found.add(waits, place);
    }

    /// Searches the variables of the functions around for the owner of `resource`: the channel of a semaphore, the
    /// socket of a readiness. Returns the address of the whole that `resource` is part of.
    fn owner(&self, of: Owner, resource: Address, waits: &mut WaitsOn) -> Option<Address> {
        let process = self.process;
        for context in self.contexts.iter().rev().take(MAX_CONTEXTS) {
            let Body::Coroutine(coroutine) = &context.layout.body else { continue };
            let owner = coroutine.states.get(context.state).and_then(|state| self.layouts.owner(state, of));
            let Some(owner) = owner else { continue };
            let Some(at) = owner.route.follow(process, context.address) else { continue };
            let leaf = owner.leaf.and_then(|leaf| self.layouts.get(leaf));
            if let Some(Body::Leaf(leaf)) = leaf.map(|layout| &layout.body) {
                if leaf.resource(process, at) == Some(resource) {
                    waits.fd = leaf.fd(process, at);
                    return None;
                }
            } else if let Some((whole, size)) = &owner.whole
                && let Some(whole) = whole.follow(process, at)
                && (!of.contains || resource.offset_from(whole).is_some_and(|offset| offset < *size))
            {
                leaves::read(process, &owner.details, at, waits);
                return Some(whole);
            }
        }
        None
    }

    /// Adds a wait of the future at `at`, in which no leaf was found and whose frames begin with the one at `first`.
    pub(super) fn without_leaf(&mut self, first: usize, at: Address, position: Position, kind: ResourceKind) {
        // A running task waits for nothing; a task that was woken or never polled waits for a worker.
        if self.runs || self.is_scheduled() {
            self.keeps = false;
            return;
        }
        self.found.add_without_leaf(first, at, kind);
        self.note(|walker| Event::NoLeaf { at: walker.spot(position, at), kind });
    }
}
