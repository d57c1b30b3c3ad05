//! What a walk reads of its leaves.

use std::rc::Rc;

use super::super::leaves::{self, Leaf};
use super::super::plan::{Body, Plan};
use super::super::{Address, LeafPlace, ResourceKind, WaitsOn};
use super::trails::{Event, KnownLeaf};
use super::{Part, Walker, Way};

/// Functions that are asked for the owner of a resource, from the innermost on.
const MAX_CONTEXTS: usize = 8;

impl Walker<'_, '_, '_> {
    pub(super) fn leaf(&mut self, plan: &Rc<Plan>, address: u64, way: Way) {
        let Body::Leaf(leaf) = &plan.body else { return };
        let path = self.contexts.last().and_then(|context| match &context.plan.body {
            Body::Coroutine(coroutine) => Some(coroutine.path.clone()),
            _ => None,
        });
        let path = path.as_deref().unwrap_or_default();
        if leaf.is_handle().is_some_and(|home| !path.starts_with(home)) {
            return;
        }
        self.push(plan, Part::Type, way);
        let context = leaves::context(leaf.kind, path);
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
            let leaf = KnownLeaf { plan: plan.clone(), context, functions: functions.collect() };
            Event::Leaf { at: walker.spot(way, address), leaf }
        });
        self.wait(leaf, address, context);
    }

    /// Reads what the leaf at `address` waits for.
    pub(super) fn wait(&mut self, leaf: &Leaf, address: u64, context: Option<&leaves::Context>) {
        let process = self.process;
        let mut waits = leaf.waits_on(process, address, context);
        let resource = leaf.resource(process, address);
        let mut place = LeafPlace { at: address, resource, address: resource, path: leaf.path };
        if let Some(of) = context.and_then(|context| context.owner)
            && waits.fd.is_none()
            && let Some(resource) = resource
            && let Some(whole) = self.owner(of, resource, &mut waits)
        {
            waits.address = Some(Address(whole));
            place.address = Some(whole);
        }
        if let (ResourceKind::Join, Some(header)) = (waits.kind, resource) {
            self.found.joins.push((self.found.waits.len(), header));
        }
        self.found.add(waits, place);
    }

    /// Looks for the owner of `resource` among the variables of the functions on the way here: the channel
    /// of a semaphore, the socket of a readiness. Gives the address of the whole that `resource` is part of.
    fn owner(&self, of: (&'static str, &'static str), resource: u64, waits: &mut WaitsOn) -> Option<u64> {
        let process = self.process;
        for context in self.contexts.iter().rev().take(MAX_CONTEXTS) {
            let Body::Coroutine(coroutine) = &context.plan.body else { continue };
            let owner = coroutine.states.get(context.state).and_then(|state| self.plans.owner(state, of));
            let Some(owner) = owner else { continue };
            let Some(at) = owner.route.follow(process, context.address) else { continue };
            if let Some(Body::Leaf(leaf)) = owner.leaf.as_ref().map(|plan| &plan.body) {
                if leaf.resource(process, at) == Some(resource) {
                    waits.fd = leaf.waits_on(process, at, None).fd;
                    return None;
                }
            } else if let Some((whole, size)) = &owner.whole
                && let Some(whole) = whole.follow(process, at)
                && resource.checked_sub(whole).is_some_and(|offset| offset < *size)
            {
                return Some(whole);
            }
        }
        None
    }

    /// What is waited for is not known.
    pub(super) fn unknown(&mut self) {
        self.found.add(WaitsOn::default(), LeafPlace::default());
    }
}
