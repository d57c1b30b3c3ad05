//! Walks one future with the plans of its types.

use std::rc::Rc;

use super::leaves::{self, hexadecimal};
use super::plan::{Body, Container, Coroutine, Plan, Plans, Step, Via};
use super::route::Route;
use super::{ResourceKind, WaitsOn};
use crate::debuginfo::types::Discriminant;

/// Steps from a task's root; recursion through `Box::pin` takes a few for each level.
const MAX_DEPTH: usize = 768;
/// Frames of one task.
const MAX_NODES: usize = 4096;
/// Steps of one task, shown or not.
const MAX_STEPS: usize = 1 << 16;
/// Futures of one collection.
const MAX_ELEMENTS: u64 = 1024;

/// Functions that are asked for the owner of a resource, from the innermost on.
const MAX_CONTEXTS: usize = 8;

/// What was found in one future: its frames in preorder, and what its leaves wait for.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) nodes: Vec<Node>,
    pub(super) waits: Vec<WaitsOn>,
    /// Headers of the tasks that are joined, by index into `waits`.
    pub(super) joins: Vec<(usize, u64)>,
    /// Why this is not all.
    pub(super) cut: Option<&'static str>,
}

/// One frame.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) depth: u16,
    pub(super) plan: Rc<Plan>,
    pub(super) part: Part,
}

/// Which part of a plan a frame shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// The type itself.
    Type,
    /// A coroutine in that state (an index).
    State(usize),
    /// The future that a coroutine in that state awaits, of which nothing more is known.
    Awaitee(usize),
}

/// A coroutine on the way to where we are.
struct Context {
    plan: Rc<Plan>,
    state: usize,
    address: u64,
}

struct Walk<'w, 'a, 'p, 'i> {
    plans: &'w Plans<'a, 'p, 'i>,
    found: Walked,
    contexts: Vec<Context>,
    /// Addresses that pointers on the way led to.
    followed: Vec<(u64, u32)>,
    steps: usize,
}

/// Walks the future at `address`.
pub(super) fn walk(plans: &Plans<'_, '_, '_>, plan: &Rc<Plan>, address: u64) -> Walked {
    let mut walk =
        Walk { plans, found: Walked::default(), contexts: Vec::new(), followed: Vec::new(), steps: 0 };
    walk.visit(plan, address, 0, 0);
    walk.found
}

impl Walk<'_, '_, '_, '_> {
    /// `frames` is the depth in the stack that is shown, `depth` that of the walk.
    fn visit(&mut self, plan: &Rc<Plan>, address: u64, frames: u16, depth: usize) {
        self.steps += 1;
        if depth >= MAX_DEPTH || self.found.nodes.len() >= MAX_NODES || self.steps >= MAX_STEPS {
            self.found.cut = Some("deeper or wider than delouse follows");
            return;
        }
        match &plan.body {
            Body::Nothing => {}
            Body::Coroutine(coroutine) => self.coroutine(plan, coroutine, address, frames, depth),
            Body::Leaf(_) => self.leaf(plan, address, frames),
            Body::Steps(steps) => {
                let frames = self.push(plan, Part::Type, frames);
                self.take(steps, address, frames, depth);
            }
            Body::Variants { at, cases } => {
                let value = at.and_then(|at| self.discriminant(at, address));
                let exact = cases.iter().find(|case| value.is_some() && case.value == value);
                let Some(case) = exact.or_else(|| cases.iter().find(|case| case.value.is_none())) else {
                    return;
                };
                if case.steps.is_empty() {
                    return;
                }
                let frames = self.push(plan, Part::Type, frames);
                self.take(&case.steps, address, frames, depth);
            }
        }
    }

    fn coroutine(&mut self, plan: &Rc<Plan>, coroutine: &Coroutine, address: u64, frames: u16, depth: usize) {
        let value = self.discriminant(coroutine.at, address);
        let Some(index) = coroutine.states.iter().position(|state| Some(state.value) == value) else {
            self.found.cut = Some("a future is in a state that its type does not have");
            return;
        };
        let Some(state) = coroutine.states.get(index) else { return };
        let frames = self.push(plan, Part::State(index), frames);
        if !state.suspended {
            return;
        }
        let details = self.plans.suspended(plan.of, coroutine, state);
        let before = (self.found.nodes.len(), self.found.waits.len());
        self.contexts.push(Context { plan: plan.clone(), state: index, address });
        self.take(&details.steps, address, frames, depth);
        self.contexts.pop();
        if before == (self.found.nodes.len(), self.found.waits.len()) {
            if details.awaitee.is_some() {
                self.found.nodes.push(Node { depth: frames, plan: plan.clone(), part: Part::Awaitee(index) });
            }
            self.found.waits.push(WaitsOn::default());
        }
    }

    fn leaf(&mut self, plan: &Rc<Plan>, address: u64, frames: u16) {
        let Body::Leaf(leaf) = &plan.body else { return };
        let path = self.contexts.last().and_then(|context| match &context.plan.body {
            Body::Coroutine(coroutine) => Some(coroutine.path.clone()),
            _ => None,
        });
        let path = path.as_deref().unwrap_or_default();
        if leaf.is_handle().is_some_and(|home| !path.starts_with(home)) {
            return;
        }
        self.push(plan, Part::Type, frames);
        let process = self.plans.process;
        let context = leaves::context(leaf.kind, path);
        let mut waits = leaf.waits_on(process, address, context);
        let resource = leaf.resource(process, address);
        if let Some(owner) = context.and_then(|context| context.owner)
            && waits.fd.is_none()
            && let Some(resource) = resource
        {
            self.owner(owner, resource, &mut waits);
        }
        if let (ResourceKind::Join, Some(header)) = (waits.kind, resource) {
            self.found.joins.push((self.found.waits.len(), header));
        }
        self.found.waits.push(waits);
    }

    /// Looks for the owner of `resource` among the variables of the functions on the way here: the channel
    /// of a semaphore, the socket of a readiness.
    fn owner(&self, (path, way): (&'static str, &'static str), resource: u64, waits: &mut WaitsOn) {
        let process = self.plans.process;
        for context in self.contexts.iter().rev().take(MAX_CONTEXTS) {
            let Body::Coroutine(coroutine) = &context.plan.body else { continue };
            let found = coroutine.states.get(context.state).and_then(|state| self.plans.owner(state, path));
            let Some(route) = found else { continue };
            let Some(owner) = route.follow(process, context.address) else { continue };
            if let Some(plan) = self.plans.plan(route.end)
                && let Body::Leaf(leaf) = &plan.body
            {
                let of_owner = leaf.waits_on(process, owner, None);
                if of_owner.address == waits.address {
                    waits.fd = of_owner.fd;
                    return;
                }
            } else if let Some(way) = Route::compile(process, route.end, way)
                && let Some(whole) = way.follow(process, owner)
                && let Some(size) = process.ty(way.end).map(|ty| ty.size)
                && resource.checked_sub(whole).is_some_and(|offset| offset < size)
            {
                waits.address = Some(hexadecimal(whole));
                return;
            }
        }
    }

    fn take(&mut self, steps: &[Step], base: u64, frames: u16, depth: usize) {
        for step in steps {
            let Some(at) = base.checked_add(step.offset) else { continue };
            match &step.via {
                Via::Inline(plan) => self.visit(plan, at, frames, depth + 1),
                Via::Pointer(target) => {
                    if let Some(plan) = self.plans.plan(*target)
                        && let Some(to) = self.word(at)
                    {
                        self.follow(&plan, to, frames, depth);
                    }
                }
                Via::Dyn => {
                    if let Some(vtable) = at.checked_add(8).and_then(|at| self.word(at))
                        && let Some(to) = self.word(at)
                        && let Some(plan) = self.plans.plan_of_vtable(vtable)
                    {
                        self.follow(&plan, to, frames, depth);
                    }
                }
                Via::Container(container) => self.container(container, at, frames, depth),
            }
        }
    }

    fn container(&mut self, container: &Container, at: u64, frames: u16, depth: usize) {
        match container {
            Container::Array { plan, stride, count } => self.each(plan, at, *stride, *count, frames, depth),
            Container::Slice { plan, stride, pointer, length } => {
                let word = |offset: u64| self.word(at.checked_add(offset)?);
                if let (Some(first), Some(count)) = (word(*pointer), word(*length)) {
                    self.each(plan, first, *stride, count, frames, depth);
                }
            }
            Container::Lists { plan, heads, next, value } => {
                for head in heads {
                    self.list(plan, head, at, (*next, *value), frames, depth);
                }
            }
            Container::Dyn { offset } => {
                let step = Step { offset: *offset, via: Via::Dyn };
                self.take(std::slice::from_ref(&step), at, frames, depth);
            }
            Container::Shared { plan, way } => {
                if let Some(to) = way.follow(self.plans.process, at) {
                    self.follow(plan, to, frames, depth);
                }
            }
        }
    }

    fn each(&mut self, plan: &Rc<Plan>, first: u64, stride: u64, count: u64, frames: u16, depth: usize) {
        for index in 0..count.min(MAX_ELEMENTS) {
            let Some(at) = index.checked_mul(stride).and_then(|offset| first.checked_add(offset)) else {
                return;
            };
            self.visit(plan, at, frames, depth + 1);
            if self.found.cut.is_some() {
                return;
            }
        }
        if count > MAX_ELEMENTS {
            self.found.cut = Some("a collection of more futures than delouse follows");
        }
    }

    fn list(
        &mut self,
        plan: &Rc<Plan>,
        head: &Route,
        at: u64,
        (next, value): (u64, u64),
        frames: u16,
        depth: usize,
    ) {
        let head = head.follow(self.plans.process, at);
        let Some(first) = head.and_then(|head| self.word(head)) else { return };
        let mut node = first;
        for _ in 0..MAX_ELEMENTS {
            let Some(future) = node.checked_add(value) else { return };
            self.visit(plan, future, frames, depth + 1);
            match node.checked_add(next).and_then(|link| self.word(link)) {
                Some(link) if link != first && self.found.cut.is_none() => node = link,
                _ => return,
            }
        }
        self.found.cut = Some("a collection of more futures than delouse follows");
    }

    /// Visits behind a pointer, unless the way here came through that very future.
    fn follow(&mut self, plan: &Rc<Plan>, to: u64, frames: u16, depth: usize) {
        if self.followed.contains(&(to, plan.id)) {
            self.found.cut = Some("a future that contains itself");
            return;
        }
        self.followed.push((to, plan.id));
        self.visit(plan, to, frames, depth + 1);
        self.followed.pop();
    }

    /// Adds a frame if `plan` has one, and gives the depth of those below.
    fn push(&mut self, plan: &Rc<Plan>, part: Part, frames: u16) -> u16 {
        if plan.frame.is_none() {
            return frames;
        }
        self.found.nodes.push(Node { depth: frames, plan: plan.clone(), part });
        frames.saturating_add(1)
    }

    fn discriminant(&self, at: Discriminant, base: u64) -> Option<u64> {
        self.plans.process.memory.number(base.checked_add(at.offset)?, at.size)
    }

    /// A pointer that is not null.
    fn word(&self, at: u64) -> Option<u64> {
        self.plans.process.memory.word(at).filter(|word| *word != 0)
    }
}
