//! Walks one future with the plans of its types.

mod containers;
mod follow;
mod found;
mod leaf;
mod trails;

use std::cell::RefCell;
use std::rc::Rc;

pub(super) use found::{Node, Part, Place, Walked};
pub(super) use trails::Trails;

use super::plan::{Body, Coroutine, Plan, Plans, Step, Via};
use super::process::Process;
use crate::debuginfo::types::{Discriminant, TypeId};
use follow::Followed;
use trails::{Choice, Event};

/// Frames from a task's root to a leaf: what reads the answer recurses, on stacks of two megabytes.
const MAX_DEPTH: u16 = 256;
/// Frames of one task.
const MAX_NODES: usize = 4096;
/// Steps of one task, shown or not.
const MAX_STEPS: usize = 1 << 16;

const TOO_LARGE: &str = "it is deeper or wider than delouse follows";

/// A coroutine on the way to where we are.
struct Context {
    plan: Rc<Plan>,
    state: usize,
    address: u64,
    /// The way to what is below it.
    way: Way,
    /// How many frames and waits there were before what it awaits.
    found: (usize, usize),
}

/// A future to look at.
struct Visit {
    plan: Rc<Plan>,
    at: u64,
    way: Way,
}

/// How a future was come by: its depth in the stack that is shown, the base that it is counted from, and whether it lies
/// behind a pointer: the way there may have come through that very future.
#[derive(Clone, Copy)]
struct Way(u64);

impl Way {
    const BEHIND: u64 = 1 << 16;

    /// To the future itself.
    fn to_all() -> Self {
        Self(0)
    }

    /// For what lies in the same piece of memory, with that depth.
    fn deeper(self, frames: u16) -> Self {
        Self(u64::from(frames) | (self.base() as u64) << 32)
    }

    /// For what lies where a pointer led to, which is that base.
    fn to(self, base: usize) -> Self {
        Self(u64::from(self.frames()) | (base as u64) << 32)
    }

    fn behind(self) -> Self {
        Self(self.0 | Self::BEHIND)
    }

    fn frames(self) -> u16 {
        self.0 as u16
    }

    fn base(self) -> usize {
        (self.0 >> 32) as usize
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
    trails: &'w RefCell<Trails>,
    found: Walked,
    contexts: Vec<Context>,
    /// Addresses that pointers on the way led to.
    followed: Vec<(u64, u32)>,
    /// What is still to be done, the next last: futures nest deeper than a thread's stack allows recursion.
    work: Vec<Visit>,
    /// What has begun and is not over, the innermost last.
    scopes: Vec<Scope>,
    /// The header of the task whose future it is; 0 for a main future.
    task: u64,
    /// The task rests, and nothing has woken it since it was polled.
    idle: bool,
    /// The type of the future.
    of: Option<TypeId>,
    /// Where the future lies, and where each pointer led to.
    bases: Vec<u64>,
    /// What happened on the way, as long as that is worth keeping.
    events: Vec<Event>,
    keeps: bool,
}

impl<'w, 'p, 'i> Walker<'w, 'p, 'i> {
    pub(super) fn new(
        process: &'w Process<'p, 'i>,
        plans: &'w Plans<'p, 'i>,
        trails: &'w RefCell<Trails>,
    ) -> Self {
        Self {
            process,
            plans,
            trails,
            found: Walked::default(),
            contexts: Vec::new(),
            followed: Vec::new(),
            work: Vec::new(),
            scopes: Vec::new(),
            task: 0,
            idle: false,
            of: None,
            bases: Vec::new(),
            events: Vec::new(),
            keeps: false,
        }
    }

    fn begin(&mut self, address: u64) {
        self.found.clear();
        self.contexts.clear();
        self.followed.clear();
        self.work.clear();
        self.scopes.clear();
        self.events.clear();
        self.bases.clear();
        self.bases.push(address);
    }

    /// Walks the future at `address`. What is found stays until the next walk, which uses its room.
    pub(super) fn walk(&mut self, plan: &Rc<Plan>, address: u64) -> &mut Walked {
        self.of = Some(plan.of);
        self.keeps = false;
        self.begin(address);
        match self.follow(plan.of) {
            Followed::ToItsEnd => return &mut self.found,
            Followed::NewWay => self.keeps = true,
            Followed::MustWalk => {}
        }
        self.begin(address);
        // Mostly one future leads to one other, which need not wait in memory: that is a third of the time.
        let (mut next, mut at, mut way) = (Some(plan.clone()), address, Way::to_all());
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
                    self.keeps = false;
                    continue;
                }
                self.followed.push((at, plan.id));
                self.scopes.push(Scope::pointer(self.work.len()));
            }
            if let Some(visit) = self.visit(&plan, at, way) {
                (next, at, way) = (Some(visit.plan), visit.at, visit.way);
            }
        }
        &mut self.found
    }

    /// Looks at one future, and gives the next one where there is just one.
    #[inline]
    fn visit(&mut self, plan: &Rc<Plan>, address: u64, way: Way) -> Option<Visit> {
        match &plan.body {
            Body::Nothing => None,
            Body::Coroutine(coroutine) => self.coroutine(plan, coroutine, address, way),
            Body::Leaf(_) => {
                self.leaf(plan, address, way);
                None
            }
            Body::Steps(steps) => {
                let way = self.push(plan, Part::Type, way);
                self.take(steps, address, way)
            }
            Body::Variants { cases, .. } => {
                let Some(index) = self.case(plan, address) else { return self.ends() };
                self.note(|walker| {
                    let (of, at) = (Choice::Case(plan.clone()), walker.spot(way, address));
                    Event::Choice { of, at, is: index as u64 }
                });
                let case = cases.get(index)?;
                if case.steps.is_empty() {
                    return None;
                }
                let way = self.push(plan, Part::Type, way);
                self.take(&case.steps, address, way)
            }
        }
    }

    /// The case of an enum, by index.
    fn case(&self, plan: &Plan, address: u64) -> Option<usize> {
        let Body::Variants { at, cases } = &plan.body else { return None };
        let value = at.and_then(|at| self.discriminant(at, address));
        let exact = cases.iter().position(|case| value.is_some() && case.value == value);
        exact.or_else(|| cases.iter().position(|case| case.value.is_none()))
    }

    fn coroutine(&mut self, plan: &Rc<Plan>, coroutine: &Coroutine, address: u64, way: Way) -> Option<Visit> {
        let value = self.discriminant(coroutine.at, address);
        let Some(index) = coroutine.states.iter().position(|state| Some(state.value) == value) else {
            self.found.cut = Some("a future is in a state that its type does not have");
            return self.ends();
        };
        self.note(|walker| {
            let at = walker.spot(way, address.wrapping_add(coroutine.at.offset));
            Event::Choice { of: Choice::Number(coroutine.at.size), at, is: value.unwrap_or_default() }
        });
        let state = coroutine.states.get(index)?;
        let way = self.push(plan, Part::State(index), way);
        if !state.suspended {
            return None;
        }
        let details = self.plans.suspended(plan.of, coroutine, state);
        let found = (self.found.nodes.len(), self.found.waits.len());
        self.scopes.push(Scope::awaited(self.work.len()));
        self.contexts.push(Context { plan: plan.clone(), state: index, address, way, found });
        self.take(&details.steps, address, way)
    }

    /// Shows the awaitee itself where nothing was recognised in it.
    fn awaited(&mut self) {
        let Some(Context { plan, state: index, way, found, .. }) = self.contexts.pop() else { return };
        let Body::Coroutine(coroutine) = &plan.body else { return };
        let Some(state) = coroutine.states.get(index) else { return };
        if found == (self.found.nodes.len(), self.found.waits.len()) {
            if self.plans.suspended(plan.of, coroutine, state).awaitee.is_some() {
                self.found.nodes.push(Node { plan, place: Place::new(way.frames(), Part::Awaitee(index)) });
            }
            self.unknown();
            self.note(|_| Event::Unknown);
        }
    }

    /// Gives the one step, or puts several in front of all other work, in their order.
    fn take(&mut self, steps: &[Step], base: u64, way: Way) -> Option<Visit> {
        if let [step] = steps
            && !matches!(step.via, Via::Container(_))
        {
            return self.step(step, base, way);
        }
        let first = self.work.len();
        for step in steps {
            let visit = self.step(step, base, way);
            self.work.extend(visit);
        }
        if let Some(new) = self.work.get_mut(first..) {
            new.reverse();
        }
        None
    }

    fn step(&mut self, step: &Step, base: u64, way: Way) -> Option<Visit> {
        let Some(at) = base.checked_add(step.offset) else { return self.ends() };
        match &step.via {
            Via::Inline(plan) => Some(Visit { plan: plan.clone(), at, way: way.deeper(way.frames()) }),
            Via::Pointer(target) => {
                let plan = self.plans.plan(*target)?;
                self.behind(plan, at, way)
            }
            Via::Dyn => self.dynamic(at, way),
            Via::Container(container) => {
                self.container(container, at, way);
                None
            }
        }
    }

    /// What the pointer and vtable at `at` lead to.
    fn dynamic(&mut self, at: u64, way: Way) -> Option<Visit> {
        let Some(vtable_at) = at.checked_add(8) else { return self.ends() };
        let vtable = self.word(vtable_at);
        let plan = vtable.and_then(|vtable| self.plans.plan_of_vtable(self.process, vtable));
        let (Some(is), Some(plan)) = (vtable, plan) else { return self.ends() };
        self.note(|walker| Event::Choice { of: Choice::Number(8), at: walker.spot(way, vtable_at), is });
        self.behind(plan, at, way)
    }

    /// What the pointer at `at` leads to.
    fn behind(&mut self, plan: Rc<Plan>, at: u64, way: Way) -> Option<Visit> {
        let Some(target) = self.word(at) else { return self.ends() };
        let event = |walker: &Self| Event::Pointer { at: walker.spot(way, at), plan: plan.id };
        let way = self.lead(event, target, way).behind();
        Some(Visit { plan, at: target, way })
    }

    /// Adds a frame if `plan` has one, and gives the way to those below.
    fn push(&mut self, plan: &Rc<Plan>, part: Part, way: Way) -> Way {
        let frames = way.frames();
        if plan.frame.is_none() {
            return way.deeper(frames);
        }
        self.found.nodes.push(Node { plan: plan.clone(), place: Place::new(frames, part) });
        way.deeper(frames.saturating_add(1))
    }

    fn discriminant(&self, at: Discriminant, base: u64) -> Option<u64> {
        self.process.memory.number(base.checked_add(at.offset)?, at.size)
    }

    /// A pointer that is not null.
    fn word(&self, at: u64) -> Option<u64> {
        self.process.memory.word(at).filter(|word| *word != 0)
    }
}
