//! Walks one future with the plans of its types.

use std::rc::Rc;

use super::leaves;
use super::plan::{Body, Container, Coroutine, Plan, Plans, Step, Via};
use super::process::Process;
use super::{Address, LeafPlace, ResourceKind, WaitsOn};
use crate::debuginfo::types::Discriminant;

/// Frames from a task's root to a leaf: what reads the answer recurses, on stacks of two megabytes.
const MAX_DEPTH: u16 = 256;
/// Frames of one task.
const MAX_NODES: usize = 4096;
/// Steps of one task, shown or not.
const MAX_STEPS: usize = 1 << 16;
/// Futures of one collection.
const MAX_ELEMENTS: u64 = 1024;

const TOO_LARGE: &str = "it is deeper or wider than delouse follows";

/// Functions that are asked for the owner of a resource, from the innermost on.
const MAX_CONTEXTS: usize = 8;

/// What was found in one future: its frames in preorder, and what its leaves wait for.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) nodes: Vec<Node>,
    pub(super) waits: Vec<WaitsOn>,
    /// Where the leaves lie, in the same order.
    pub(super) leaves: Vec<LeafPlace>,
    /// Headers of the tasks that are joined, by index into `waits`.
    pub(super) joins: Vec<(usize, u64)>,
    /// Why this is not all.
    pub(super) cut: Option<&'static str>,
}

impl Walked {
    fn clear(&mut self) {
        self.nodes.clear();
        self.waits.clear();
        self.leaves.clear();
        self.joins.clear();
        self.cut = None;
    }
}

/// One frame.
// Two words, as all that is handed on while walking is whole words: a processor that reads a word of which parts were
// just written waits for each, which was half of the time.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) plan: Rc<Plan>,
    pub(super) place: Place,
}

/// Where a frame stands in its stack, and which part of its plan it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place(u64);

impl Place {
    pub(super) fn new(depth: u16, part: Part) -> Self {
        let part = match part {
            Part::Type => 0,
            Part::State(index) => ((index as u64) << 2) | 1,
            Part::Awaitee(index) => ((index as u64) << 2) | 2,
        };
        Self((part << 16) | u64::from(depth))
    }

    pub(super) fn depth(self) -> u16 {
        self.0 as u16
    }

    pub(super) fn part(self) -> Part {
        let index = (self.0 >> 18) as usize;
        match (self.0 >> 16) & 3 {
            0 => Part::Type,
            1 => Part::State(index),
            _ => Part::Awaitee(index),
        }
    }
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
    /// The depth of what is below it.
    frames: u16,
    /// How many frames and waits there were before what it awaits.
    found: (usize, usize),
}

/// A future to look at.
struct Visit {
    plan: Rc<Plan>,
    at: u64,
    way: Way,
}

/// How a future was come by: its depth in the stack that is shown, and whether it lies behind a pointer: the way there
/// may have come through that very future.
#[derive(Clone, Copy)]
struct Way(u64);

impl Way {
    const BEHIND: u64 = 1 << 16;

    fn inside(frames: u16) -> Self {
        Self(frames.into())
    }

    fn behind(frames: u16) -> Self {
        Self(u64::from(frames) | Self::BEHIND)
    }

    fn frames(self) -> u16 {
        self.0 as u16
    }

    fn is_behind(self) -> bool {
        self.0 & Self::BEHIND != 0
    }
}

/// Something that ends when there is as little left to do as when it began.
#[derive(Clone, Copy)]
struct Scope(u64);

impl Scope {
    const AWAIT: u64 = 1;

    /// What lies behind a pointer.
    fn pointer(left: usize) -> Self {
        Self((left as u64) << 1)
    }

    /// What the innermost coroutine awaits.
    fn awaited(left: usize) -> Self {
        Self(((left as u64) << 1) | Self::AWAIT)
    }

    fn is_over(self, left: usize) -> bool {
        self.0 >> 1 == left as u64
    }

    fn is_await(self) -> bool {
        self.0 & Self::AWAIT != 0
    }
}

/// Walks futures, one after the other.
pub(super) struct Walker<'w, 'p, 'i> {
    process: &'w Process<'p, 'i>,
    plans: &'w Plans<'p, 'i>,
    found: Walked,
    contexts: Vec<Context>,
    /// Addresses that pointers on the way led to.
    followed: Vec<(u64, u32)>,
    /// What is still to be done, the next last: futures nest deeper than a thread's stack allows recursion.
    work: Vec<Visit>,
    /// What has begun and is not over, the innermost last.
    scopes: Vec<Scope>,
}

impl<'w, 'p, 'i> Walker<'w, 'p, 'i> {
    pub(super) fn new(process: &'w Process<'p, 'i>, plans: &'w Plans<'p, 'i>) -> Self {
        Self {
            process,
            plans,
            found: Walked::default(),
            contexts: Vec::new(),
            followed: Vec::new(),
            work: Vec::new(),
            scopes: Vec::new(),
        }
    }

    /// Walks the future at `address`. What is found stays until the next walk, which uses its room.
    pub(super) fn walk(&mut self, plan: &Rc<Plan>, address: u64) -> &mut Walked {
        self.found.clear();
        self.contexts.clear();
        self.followed.clear();
        self.work.clear();
        self.scopes.clear();
        // Mostly one future leads to one other, which need not wait in memory: that is a third of the time.
        let (mut next, mut at, mut way) = (Some(plan.clone()), address, Way::inside(0));
        let mut steps = 0;
        loop {
            if next.is_none() {
                let left = self.work.len();
                if let Some(scope) = self.scopes.pop_if(|scope| scope.is_over(left)) {
                    if scope.is_await() {
                        self.awaited();
                    } else {
                        self.followed.pop();
                    }
                    continue;
                }
                let Some(visit) = self.work.pop() else { break };
                (next, at, way) = (Some(visit.plan), visit.at, visit.way);
            }
            let Some(plan) = next.take() else { break };
            steps += 1;
            if self.found.nodes.len() >= MAX_NODES || steps >= MAX_STEPS || self.work.len() >= MAX_STEPS {
                self.found.cut = Some(TOO_LARGE);
                break;
            }
            if way.frames() >= MAX_DEPTH {
                self.found.cut = Some(TOO_LARGE);
                continue;
            }
            if way.is_behind() {
                if self.followed.contains(&(at, plan.id)) {
                    self.found.cut = Some("a future that contains itself");
                    continue;
                }
                self.followed.push((at, plan.id));
                self.scopes.push(Scope::pointer(self.work.len()));
            }
            if let Some(visit) = self.visit(&plan, at, way.frames()) {
                (next, at, way) = (Some(visit.plan), visit.at, visit.way);
            }
        }
        &mut self.found
    }

    /// Looks at one future, and gives the next one where there is just one.
    #[inline]
    fn visit(&mut self, plan: &Rc<Plan>, address: u64, frames: u16) -> Option<Visit> {
        match &plan.body {
            Body::Nothing => None,
            Body::Coroutine(coroutine) => self.coroutine(plan, coroutine, address, frames),
            Body::Leaf(_) => {
                self.leaf(plan, address, frames);
                None
            }
            Body::Steps(steps) => {
                let frames = self.push(plan, Part::Type, frames);
                self.take(steps, address, frames)
            }
            Body::Variants { at, cases } => {
                let value = at.and_then(|at| self.discriminant(at, address));
                let exact = cases.iter().find(|case| value.is_some() && case.value == value);
                let case = exact.or_else(|| cases.iter().find(|case| case.value.is_none()))?;
                if case.steps.is_empty() {
                    return None;
                }
                let frames = self.push(plan, Part::Type, frames);
                self.take(&case.steps, address, frames)
            }
        }
    }

    fn coroutine(
        &mut self,
        plan: &Rc<Plan>,
        coroutine: &Coroutine,
        address: u64,
        frames: u16,
    ) -> Option<Visit> {
        let value = self.discriminant(coroutine.at, address);
        let Some(index) = coroutine.states.iter().position(|state| Some(state.value) == value) else {
            self.found.cut = Some("a future is in a state that its type does not have");
            return None;
        };
        let state = coroutine.states.get(index)?;
        let frames = self.push(plan, Part::State(index), frames);
        if !state.suspended {
            return None;
        }
        let details = self.plans.suspended(plan.of, coroutine, state);
        let found = (self.found.nodes.len(), self.found.waits.len());
        self.scopes.push(Scope::awaited(self.work.len()));
        self.contexts.push(Context { plan: plan.clone(), state: index, address, frames, found });
        self.take(&details.steps, address, frames)
    }

    /// Shows the awaitee itself where nothing was recognised in it.
    fn awaited(&mut self) {
        let Some(Context { plan, state: index, frames, found, .. }) = self.contexts.pop() else { return };
        let Body::Coroutine(coroutine) = &plan.body else { return };
        let Some(state) = coroutine.states.get(index) else { return };
        if found == (self.found.nodes.len(), self.found.waits.len()) {
            if self.plans.suspended(plan.of, coroutine, state).awaitee.is_some() {
                self.found.nodes.push(Node { plan, place: Place::new(frames, Part::Awaitee(index)) });
            }
            self.found.waits.push(WaitsOn::default());
            self.found.leaves.push(LeafPlace::default());
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
        let process = self.process;
        let context = leaves::context(leaf.kind, path);
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
        self.found.waits.push(waits);
        self.found.leaves.push(place);
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

    /// Gives the one step, or puts several in front of all other work, in their order.
    fn take(&mut self, steps: &[Step], base: u64, frames: u16) -> Option<Visit> {
        if let [step] = steps
            && !matches!(step.via, Via::Container(_))
        {
            return self.step(step, base, frames);
        }
        let first = self.work.len();
        for step in steps {
            let visit = self.step(step, base, frames);
            self.work.extend(visit);
        }
        if let Some(new) = self.work.get_mut(first..) {
            new.reverse();
        }
        None
    }

    fn step(&mut self, step: &Step, base: u64, frames: u16) -> Option<Visit> {
        let at = base.checked_add(step.offset)?;
        match &step.via {
            Via::Inline(plan) => Some(Visit { plan: plan.clone(), at, way: Way::inside(frames) }),
            Via::Pointer(target) => {
                let plan = self.plans.plan(*target)?;
                Some(Visit { plan, at: self.word(at)?, way: Way::behind(frames) })
            }
            Via::Dyn => self.dynamic(at, frames),
            Via::Container(container) => {
                self.container(container, at, frames);
                None
            }
        }
    }

    fn dynamic(&self, at: u64, frames: u16) -> Option<Visit> {
        let vtable = self.word(at.checked_add(8)?)?;
        let at = self.word(at)?;
        let plan = self.plans.plan_of_vtable(self.process, vtable)?;
        Some(Visit { plan, at, way: Way::behind(frames) })
    }

    fn container(&mut self, container: &Container, at: u64, frames: u16) {
        match container {
            Container::Array { plan, stride, count } => self.each(plan, at, *stride, *count, frames),
            Container::Slice { plan, stride, pointer, length } => {
                let word = |offset: u64| self.word(at.checked_add(offset)?);
                if let (Some(first), Some(count)) = (word(*pointer), word(*length)) {
                    self.each(plan, first, *stride, count, frames);
                }
            }
            Container::Lists { plan, heads, next, value } => {
                for head in heads {
                    let head = head.follow(self.process, at);
                    if let Some(first) = head.and_then(|head| self.word(head)) {
                        self.list(plan, first, (*next, *value), frames);
                    }
                }
            }
            Container::Dyn { offset } => {
                let visit = at.checked_add(*offset).and_then(|at| self.dynamic(at, frames));
                self.work.extend(visit);
            }
            Container::Select { disabled, size, tuple, branches } => {
                let bits = disabled.follow(self.process, at);
                let bits = bits.and_then(|at| self.process.memory.number(at, *size)).unwrap_or(0);
                let Some(tuple) = tuple.follow(self.process, at) else { return };
                for (number, offset, plan) in branches {
                    let is_polled = bits.checked_shr(*number).is_none_or(|bits| bits & 1 == 0);
                    if let Some(at) = tuple.checked_add(*offset).filter(|_| is_polled) {
                        self.work.push(Visit { plan: plan.clone(), at, way: Way::inside(frames) });
                    }
                }
            }
            Container::Shared { plan, way } => {
                if let Some(at) = way.follow(self.process, at) {
                    self.work.push(Visit { plan: plan.clone(), at, way: Way::behind(frames) });
                }
            }
        }
    }

    fn each(&mut self, plan: &Rc<Plan>, first: u64, stride: u64, count: u64, frames: u16) {
        for index in 0..count.min(MAX_ELEMENTS) {
            let Some(at) = index.checked_mul(stride).and_then(|offset| first.checked_add(offset)) else {
                return;
            };
            self.work.push(Visit { plan: plan.clone(), at, way: Way::inside(frames) });
        }
        if count > MAX_ELEMENTS {
            self.found.cut = Some(TOO_LARGE);
        }
    }

    fn list(&mut self, plan: &Rc<Plan>, first: u64, (next, value): (u64, u64), frames: u16) {
        let mut node = first;
        for _ in 0..MAX_ELEMENTS {
            let Some(at) = node.checked_add(value) else { return };
            self.work.push(Visit { plan: plan.clone(), at, way: Way::inside(frames) });
            match node.checked_add(next).and_then(|link| self.word(link)) {
                Some(link) if link != first => node = link,
                _ => return,
            }
        }
        self.found.cut = Some(TOO_LARGE);
    }

    /// Adds a frame if `plan` has one, and gives the depth of those below.
    fn push(&mut self, plan: &Rc<Plan>, part: Part, frames: u16) -> u16 {
        if plan.frame.is_none() {
            return frames;
        }
        self.found.nodes.push(Node { plan: plan.clone(), place: Place::new(frames, part) });
        frames.saturating_add(1)
    }

    fn discriminant(&self, at: Discriminant, base: u64) -> Option<u64> {
        self.process.memory.number(base.checked_add(at.offset)?, at.size)
    }

    /// A pointer that is not null.
    fn word(&self, at: u64) -> Option<u64> {
        self.process.memory.word(at).filter(|word| *word != 0)
    }
}
