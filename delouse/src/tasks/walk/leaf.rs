//! What a walk reads of its leaves.

use std::rc::Rc;

use super::super::leaves::{self, Hint, Leaf, Met, Owner, contexts};
use super::super::plan::{Body, Plan};
use super::super::{Address, LeafPlace, ResourceKind, WaitsOn};
use super::trails::{Choice, Event, KnownLeaf};
use super::{Part, Walker, Way};

/// Functions that are asked for the owner of a resource, from the innermost on.
const MAX_CONTEXTS: usize = 8;

/// Types on the way to a leaf that are asked what they read or write.
const MAX_HINTS: usize = 8;

impl Walker<'_, '_, '_> {
    /// Whose leaves the next walk reads: the header of a task, 0 for a main future; and whether the task rests, and
    /// nothing has woken it since it was polled.
    pub(in crate::tasks) fn of_task(&mut self, header: u64, idle: bool) {
        (self.task, self.idle) = (header, idle);
    }

    /// Whether the leaf at `address` is waited for, as far as that can be told.
    pub(super) fn is_waiting(&self, leaf: &Leaf, address: u64, hint: Hint) -> bool {
        let met = Met { context: None, hint, task: self.task, idle: self.idle };
        leaf.is_waiting(self.process, &self.plans.learned, address, &met)
    }

    pub(super) fn leaf(&mut self, plan: &Rc<Plan>, address: u64, way: Way) {
        let Body::Leaf(leaf) = &plan.body else { return };
        let path = |context: &super::Context| match &context.plan.body {
            Body::Coroutine(coroutine) => Some(coroutine.path.clone()),
            _ => None,
        };
        let paths: Vec<_> = self.contexts.iter().rev().take(MAX_CONTEXTS).filter_map(path).collect();
        let innermost = paths.first().map(|path| &**path).unwrap_or_default();
        if leaf.home().is_some_and(|home| !innermost.starts_with(home)) {
            return;
        }
        let hint = match leaf.kind() {
            ResourceKind::Io | ResourceKind::Join => self.hint(),
            _ => Hint::default(),
        };
        if leaf.is_conditional() {
            let is = self.is_waiting(leaf, address, hint);
            self.note(|walker| {
                let (of, at) = (Choice::Waits(plan.clone(), hint), walker.spot(way, address));
                Event::Choice { of, at, is: u64::from(is) }
            });
            if !is {
                return;
            }
        }
        self.push(plan, Part::Type, way);
        let context = contexts::find(leaf.kind(), paths.iter().map(|path| &**path));
        self.note(|walker| {
            let asked = context.is_some_and(|context| context.owner.is_some());
            let unasked = if asked {
                walker.contexts.len().saturating_sub(MAX_CONTEXTS)
            } else {
                walker.contexts.len()
            };
            let functions = walker.contexts.iter().skip(unasked).map(|context| {
                (context.plan.clone(), context.state, walker.spot(context.way, context.address))
            });
            let leaf = KnownLeaf { plan: plan.clone(), context, hint, functions: functions.collect() };
            Event::Leaf { at: walker.spot(way, address), leaf }
        });
        self.wait(leaf, address, context, hint);
    }

    /// What the types tell that the leaf is part of: those on the way down from the innermost function.
    fn hint(&self) -> Hint {
        let first = self.contexts.last().map_or(0, |context| context.found.0);
        let nodes = self.found.nodes.get(first..).unwrap_or_default();
        let mut depth = u16::MAX;
        let on_the_way = nodes.iter().rev().filter(|node| {
            let is_above = node.place.depth() < depth;
            depth = depth.min(node.place.depth());
            is_above
        });
        leaves::hint(on_the_way.take(MAX_HINTS).filter_map(|node| node.plan.frame.as_deref()))
    }

    /// Reads what the leaf at `address` waits for.
    pub(super) fn wait(
        &mut self,
        leaf: &Leaf,
        address: u64,
        context: Option<&'static contexts::Context>,
        hint: Hint,
    ) {
        let met = Met { context, hint, task: self.task, idle: self.idle };
        let mut waits = leaf.waits_on(self.process, &self.plans.learned, address, &met);
        let resource = waits.address.map(|address| address.0);
        let mut place = LeafPlace { at: address, resource, address: resource, path: leaf.path() };
        if let Some(of) = context.and_then(|context| context.owner)
            && waits.fd.is_none()
            && let Some(resource) = resource
            && let Some(whole) = self.owner(of, resource, &mut waits)
        {
            waits.address = Some(Address(whole));
            place.address = Some(whole);
        }
        if waits.kind == ResourceKind::Signal {
            let channel = place.address;
            waits.signal =
                channel.and_then(|channel| self.plans.learned.signals.number(self.process, channel));
        }
        if let (ResourceKind::Join, Some(header)) = (waits.kind, resource) {
            self.found.joins.push((self.found.waits.len(), header));
        }
        self.found.add(waits, place);
    }

    /// Looks for the owner of `resource` among the variables of the functions on the way here: the channel
    /// of a semaphore, the socket of a readiness. Gives the address of the whole that `resource` is part of.
    fn owner(&self, of: Owner, resource: u64, waits: &mut WaitsOn) -> Option<u64> {
        let process = self.process;
        for context in self.contexts.iter().rev().take(MAX_CONTEXTS) {
            let Body::Coroutine(coroutine) = &context.plan.body else { continue };
            let owner = coroutine.states.get(context.state).and_then(|state| self.plans.owner(state, of));
            let Some(owner) = owner else { continue };
            let Some(at) = owner.route.follow(process, context.address) else { continue };
            if let Some(Body::Leaf(leaf)) = owner.leaf.as_ref().map(|plan| &plan.body) {
                if leaf.resource(process, at) == Some(resource) {
                    waits.fd = leaf.fd(process, at);
                    return None;
                }
            } else if let Some((whole, size)) = &owner.whole
                && let Some(whole) = whole.follow(process, at)
                && (!of.contains || resource.checked_sub(whole).is_some_and(|offset| offset < *size))
            {
                leaves::read(process, &owner.details, at, waits);
                return Some(whole);
            }
        }
        None
    }

    /// What the future at `at` waits for is not known. Its frames begin with the one at `first`.
    pub(super) fn unknown(&mut self, first: usize, at: u64, way: Way) {
        // What runs waits for nothing.
        if self.runs {
            return;
        }
        self.found.add_unknown(first, at);
        self.note(|walker| Event::Unknown { at: walker.spot(way, at) });
    }
}
