//! Reads the leaves that a walk reaches: whether the task waits at a leaf, for which resource, and which value owns that
//! resource.

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

/// The most enclosing types whose names are searched for what a leaf reads or writes.
const MAX_HINTS: usize = 8;

impl<'w> Walker<'w, '_, '_> {
    /// Sets the task of the next walk: its header, or `None` for a main future. An `idle` task was not woken since its last
    /// poll.
    pub(in crate::tasks) fn set_task(&mut self, header: Option<Address>, idle: bool) {
        (self.task, self.idle) = (header, idle);
    }

    /// Whether the task waits at the leaf at `address`. True for kinds of leaves whose memory does not show that.
    pub(super) fn is_waiting(&self, leaf: &Leaf, address: Address, hint: Hint) -> bool {
        let met = Met { hint, task: self.task, idle: self.idle, ..Met::default() };
        leaf.is_waiting(self.process, &self.layouts.learned, address, &met)
    }

    /// Visits the leaf at `address`. If the task waits there, adds the frame and the wait, else records the leaf as passed.
    pub(super) fn visit_leaf(&mut self, layout: &'w Layout, address: Address, position: Position) {
        let Body::Leaf(leaf) = &layout.body else { return };
        let paths: Vec<_> = self.function_paths().take(MAX_CONTEXTS).collect();
        let innermost = paths.first().map(|path| &**path).unwrap_or_default();
        // Outside the module that waits with it, the type is only a handle.
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
                    return self.record_passed(layout, address, hint);
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
            // A replay needs the enclosing functions only to search their variables for the owner.
            let searched = context.and_then(|context| context.owner).map_or(0, |_| MAX_CONTEXTS);
            let skipped = walker.contexts.len().saturating_sub(searched);
            let functions = walker.contexts.iter().skip(skipped).map(|context| {
                (context.layout.id, context.state, walker.spot(context.position, context.address))
            });
            let leaf = KnownLeaf { layout: layout.id, context, race, hint, functions: functions.collect() };
            Event::Leaf { at: walker.spot(position, address), leaf }
        });
        self.add_leaf_wait(leaf, address, (context, race), hint, ready);
    }

    /// The paths of the enclosing functions, the innermost first.
    pub(super) fn function_paths(&self) -> impl Iterator<Item = Arc<str>> {
        self.contexts.iter().rev().filter_map(|context| match &context.layout.body {
            Body::Coroutine(coroutine) => Some(coroutine.path.clone()),
            _ => None,
        })
    }

    /// Whether the task was woken and waits for a worker.
    pub(super) fn is_scheduled(&self) -> bool {
        self.task.is_some() && !self.idle && !self.runs
    }

    /// What the names of the types between the innermost function and the leaf show about its input or output.
    fn hint(&self) -> Hint {
        let nodes = self.enclosing_frames().take(MAX_HINTS);
        leaves::hint(nodes.filter_map(|node| self.layouts.get(node.layout)?.frame.as_deref()))
    }

    /// Whether the name of the enclosing type has `Timeout` in it.
    fn is_in_timeout(&self) -> bool {
        // The first frame is the leaf's own.
        let enclosing =
            self.enclosing_frames().nth(1).and_then(|node| self.layouts.get(node.layout)?.frame.as_deref());
        enclosing.is_some_and(|name| names::last_segment(names::without_parameters(name)).contains("Timeout"))
    }

    /// The frames from the current position up to the innermost function, the nearest first.
    pub(super) fn enclosing_frames(&self) -> impl Iterator<Item = &Node> {
        let first = self.contexts.last().map_or(0, |context| context.found.0);
        let nodes = self.found.nodes.get(first..).unwrap_or_default();
        let mut depth = u16::MAX;
        nodes.iter().rev().filter(move |node| {
            let is_above = node.place.depth() < depth;
            depth = depth.min(node.place.depth());
            is_above
        })
    }

    /// Reads what the leaf at `address` waits for, and adds that to the result of the walk.
    pub(super) fn add_leaf_wait(
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
        if let Some(wanted) = context.and_then(|context| context.owner)
            && waits.fd.is_none()
            && let Some(resource) = resource
            && let Some(whole) = self.find_owner(wanted, resource, &mut waits)
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

    /// Searches the variables of the enclosing functions for the owner of `resource`: the channel of a semaphore, the
    /// socket of a readiness. Returns the address that all waiters of the owner have in common, and adds details of the
    /// owner to `waits`. An owner that is a leaf with the same resource only adds its descriptor.
    fn find_owner(&self, wanted: Owner, resource: Address, waits: &mut WaitsOn) -> Option<Address> {
        let process = self.process;
        for context in self.contexts.iter().rev().take(MAX_CONTEXTS) {
            let Body::Coroutine(coroutine) = &context.layout.body else { continue };
            let owner =
                coroutine.states.get(context.state).and_then(|state| self.layouts.owner(state, wanted));
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
                && (!wanted.contains || resource.offset_from(whole).is_some_and(|offset| offset < *size))
            {
                leaves::read(process, &owner.details, at, waits);
                return Some(whole);
            }
        }
        None
    }

    /// Adds a wait of the future at `at`, in which no leaf was found and whose frames begin with the one at `first`.
    pub(super) fn add_wait_without_leaf(
        &mut self,
        first: usize,
        at: Address,
        position: Position,
        kind: ResourceKind,
    ) {
        // A running task waits for nothing; a task that was woken or never polled waits for a worker.
        if self.runs || self.is_scheduled() {
            self.caches_path = false;
            return;
        }
        self.found.add_without_leaf(first, at, kind);
        self.note(|walker| Event::NoLeaf { at: walker.spot(position, at), kind });
    }
}
