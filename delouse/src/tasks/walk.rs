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
    /// The depth of what is below it.
    frames: u16,
    /// How many frames and waits there were before what it awaits.
    found: (usize, usize),
}

/// What is still to be done, the next last: futures nest deeper than a thread's stack allows recursion.
enum Work {
    /// Look at a future; `frames` is its depth in the stack that is shown.
    Visit { plan: Rc<Plan>, at: u64, frames: u16 },
    /// The same behind a pointer, unless the way here came through that very future.
    Follow { plan: Rc<Plan>, at: u64, frames: u16 },
    /// All behind a pointer is done.
    Followed,
    /// All that the innermost coroutine awaits is done.
    Awaited,
}

/// Walks futures, one after the other.
pub(super) struct Walker<'w, 'p, 'i> {
    process: &'w Process<'p, 'i>,
    plans: &'w Plans<'p, 'i>,
    found: Walked,
    contexts: Vec<Context>,
    /// Addresses that pointers on the way led to.
    followed: Vec<(u64, u32)>,
    work: Vec<Work>,
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
        }
    }

    /// Walks the future at `address`. What is found stays until the next walk, which uses its room.
    pub(super) fn walk(&mut self, plan: &Rc<Plan>, address: u64) -> &mut Walked {
        self.found.clear();
        self.contexts.clear();
        self.followed.clear();
        self.work.clear();
        // Mostly each step leads to one other: that one need not wait behind the others.
        let mut next = Some(Work::Visit { plan: plan.clone(), at: address, frames: 0 });
        let mut steps = 0;
        while let Some(work) = next.take().or_else(|| self.work.pop()) {
            steps += 1;
            if self.found.nodes.len() >= MAX_NODES || steps >= MAX_STEPS || self.work.len() >= MAX_STEPS {
                self.found.cut = Some(TOO_LARGE);
                break;
            }
            next = self.perform(work);
        }
        &mut self.found
    }

    /// Does one thing, and gives what comes next where that is one thing only.
    fn perform(&mut self, work: Work) -> Option<Work> {
        match work {
            Work::Visit { frames: MAX_DEPTH.., .. } => self.found.cut = Some(TOO_LARGE),
            Work::Visit { plan, at, frames } => return self.visit(&plan, at, frames),
            Work::Follow { plan, at, .. } if self.followed.contains(&(at, plan.id)) => {
                self.found.cut = Some("a future that contains itself");
            }
            Work::Follow { plan, at, frames } => {
                self.followed.push((at, plan.id));
                self.work.push(Work::Followed);
                return Some(Work::Visit { plan, at, frames });
            }
            Work::Followed => {
                self.followed.pop();
            }
            Work::Awaited => self.awaited(),
        }
        None
    }

    fn visit(&mut self, plan: &Rc<Plan>, address: u64, frames: u16) -> Option<Work> {
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
    ) -> Option<Work> {
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
        self.work.push(Work::Awaited);
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
                self.found.nodes.push(Node { depth: frames, plan, part: Part::Awaitee(index) });
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
    fn take(&mut self, steps: &[Step], base: u64, frames: u16) -> Option<Work> {
        if let [step] = steps
            && !matches!(step.via, Via::Container(_))
        {
            return self.step(step, base, frames);
        }
        let first = self.work.len();
        for step in steps {
            let work = self.step(step, base, frames);
            self.work.extend(work);
        }
        if let Some(new) = self.work.get_mut(first..) {
            new.reverse();
        }
        None
    }

    fn step(&mut self, step: &Step, base: u64, frames: u16) -> Option<Work> {
        let at = base.checked_add(step.offset)?;
        match &step.via {
            Via::Inline(plan) => Some(Work::Visit { plan: plan.clone(), at, frames }),
            Via::Pointer(target) => {
                let plan = self.plans.plan(*target)?;
                Some(Work::Follow { plan, at: self.word(at)?, frames })
            }
            Via::Dyn => self.dynamic(at, frames),
            Via::Container(container) => {
                self.container(container, at, frames);
                None
            }
        }
    }

    fn dynamic(&self, at: u64, frames: u16) -> Option<Work> {
        let vtable = self.word(at.checked_add(8)?)?;
        let at = self.word(at)?;
        Some(Work::Follow { plan: self.plans.plan_of_vtable(self.process, vtable)?, at, frames })
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
                let work = at.checked_add(*offset).and_then(|at| self.dynamic(at, frames));
                self.work.extend(work);
            }
            Container::Select { disabled, size, tuple, branches } => {
                let bits = disabled.follow(self.process, at);
                let bits = bits.and_then(|at| self.process.memory.number(at, *size)).unwrap_or(0);
                let Some(tuple) = tuple.follow(self.process, at) else { return };
                for (number, offset, plan) in branches {
                    let is_polled = bits.checked_shr(*number).is_none_or(|bits| bits & 1 == 0);
                    if let Some(at) = tuple.checked_add(*offset).filter(|_| is_polled) {
                        self.work.push(Work::Visit { plan: plan.clone(), at, frames });
                    }
                }
            }
            Container::Shared { plan, way } => {
                if let Some(at) = way.follow(self.process, at) {
                    self.work.push(Work::Follow { plan: plan.clone(), at, frames });
                }
            }
        }
    }

    fn each(&mut self, plan: &Rc<Plan>, first: u64, stride: u64, count: u64, frames: u16) {
        for index in 0..count.min(MAX_ELEMENTS) {
            let Some(at) = index.checked_mul(stride).and_then(|offset| first.checked_add(offset)) else {
                return;
            };
            self.work.push(Work::Visit { plan: plan.clone(), at, frames });
        }
        if count > MAX_ELEMENTS {
            self.found.cut = Some(TOO_LARGE);
        }
    }

    fn list(&mut self, plan: &Rc<Plan>, first: u64, (next, value): (u64, u64), frames: u16) {
        let mut node = first;
        for _ in 0..MAX_ELEMENTS {
            let Some(at) = node.checked_add(value) else { return };
            self.work.push(Work::Visit { plan: plan.clone(), at, frames });
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
        self.found.nodes.push(Node { depth: frames, plan: plan.clone(), part });
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
