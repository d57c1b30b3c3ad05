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

use super::plan::{Body, Coroutine, Dyn, Plan, Plans, Step, Via};
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

/// Why a stack ends where a future is damaged, or is being polled.
pub(super) const UNKNOWN_STATE: &str = "a future is in a state that its type does not have";
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

/// One of several futures that are polled side by side.
struct Branch {
    plan: Rc<Plan>,
    address: u64,
    way: Way,
    /// How many frames, waits and ends there were before it.
    before: (usize, usize),
    ends: usize,
}

/// A future to look at.
struct Visit {
    plan: Rc<Plan>,
    at: u64,
    way: Way,
}

/// How a future was come by: its depth in the stack that is shown, the base that it is counted from, whether it lies
/// behind a pointer (the way there may have come through that very future), and whether it is one of several that wait.
#[derive(Clone, Copy)]
struct Way(u64);

impl Way {
    const BEHIND: u64 = 1 << 16;
    const BRANCH: u64 = 1 << 17;

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

    /// The same for one of several futures that wait.
    fn branch(self, is_branch: bool) -> Self {
        if is_branch { Self(self.0 | Self::BRANCH) } else { self }
    }

    fn frames(self) -> u16 {
        self.0 as u16
    }

    fn is_branch(self) -> bool {
        self.0 & Self::BRANCH != 0
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

/// What it is that ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What lies behind a pointer.
    Pointer = 0,
    /// What the innermost coroutine awaits.
    Await = 1,
    /// The innermost of several futures that are polled side by side.
    Branch = 2,
}

impl Scope {
    fn new(kind: Kind, left: usize) -> Self {
        Self(((left as u64) << 2) | kind as u64)
    }

    fn is_over(self, left: usize) -> bool {
        self.0 >> 2 == left as u64
    }

    fn kind(self) -> Kind {
        match self.0 & 3 {
            0 => Kind::Pointer,
            1 => Kind::Await,
            _ => Kind::Branch,
        }
    }
}

/// Walks futures, one after the other.
pub(super) struct Walker<'w, 'p, 'i> {
    process: &'w Process<'p, 'i>,
    plans: &'w Plans<'p, 'i>,
    trails: &'w RefCell<Trails>,
    found: Walked,
    contexts: Vec<Context>,
    branches: Vec<Branch>,
    /// How many futures were met that wait for nothing any more, or not yet.
    ends: usize,
    /// The task runs: its future may be in the middle of anything, so what looks odd is nothing to speak of.
    runs: bool,
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
            branches: Vec::new(),
            ends: 0,
            runs: false,
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
        self.branches.clear();
        self.ends = 0;
        self.followed.clear();
        self.work.clear();
        self.scopes.clear();
        self.events.clear();
        self.bases.clear();
        self.bases.push(address);
    }

    /// Walks the future at `address`, of a task that `runs` or not. What is found stays until the next walk, which uses
    /// its room.
    pub(super) fn walk(&mut self, plan: &Rc<Plan>, address: u64, runs: bool) -> &mut Walked {
        self.of = Some(plan.of);
        self.keeps = false;
        self.runs = runs;
        self.begin(address);
        // Of one that runs, most is different each time.
        if !runs {
            match self.follow(plan.of) {
                Followed::ToItsEnd => return &mut self.found,
                Followed::NewWay => self.keeps = true,
                Followed::MustWalk => {}
            }
            self.begin(address);
        }
        self.all(plan, address);
        self.found.drop_idle_frames();
        &mut self.found
    }

    /// Looks at the future and at all that it leads to.
    fn all(&mut self, plan: &Rc<Plan>, address: u64) {
        // Mostly one future leads to one other, which need not wait in memory: that is a third of the time.
        let (mut next, mut at, mut way) = (Some(plan.clone()), address, Way::to_all().branch(true));
        let mut steps = 0;
        loop {
            if next.is_none() {
                let left = self.work.len();
                if let Some(scope) = self.scopes.pop_if(|scope| scope.is_over(left)) {
                    match scope.kind() {
                        Kind::Await => self.awaited(),
                        Kind::Branch => self.branch_ends(),
                        Kind::Pointer => {
                            self.followed.pop();
                        }
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
            if way.is_branch() {
                self.branch_begins(&plan, at, way);
            }
            if way.is_behind() {
                if self.followed.contains(&(at, plan.id)) {
                    self.found.cut = Some("a future that contains itself");
                    self.keeps = false;
                    continue;
                }
                self.followed.push((at, plan.id));
                self.scopes.push(Scope::new(Kind::Pointer, self.work.len()));
            }
            if let Some(visit) = self.visit(&plan, at, way) {
                (next, at, way) = (Some(visit.plan), visit.at, visit.way);
            }
        }
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
            Body::Opaque => {
                self.push(plan, Part::Type, way);
                self.unknown(self.found.nodes.len().saturating_sub(1), address, way);
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
                    self.ends += usize::from(case.is_over);
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
            if !self.runs {
                self.found.cut = Some(UNKNOWN_STATE);
            }
            return self.ends();
        };
        self.note(|walker| {
            let at = walker.spot(way, address.wrapping_add(coroutine.at.offset));
            Event::Choice { of: Choice::Number(coroutine.at.size), at, is: value.unwrap_or_default() }
        });
        let state = coroutine.states.get(index)?;
        let way = self.push(plan, Part::State(index), way);
        if !state.suspended {
            self.ends += 1;
            return None;
        }
        let details = self.plans.suspended(plan.of, coroutine, state);
        let found = (self.found.nodes.len(), self.found.waits.len());
        self.scopes.push(Scope::new(Kind::Await, self.work.len()));
        self.contexts.push(Context { plan: plan.clone(), state: index, address, way, found });
        self.take(&details.steps, address, way)
    }

    /// Says that what a coroutine awaits is not known, where no wait was found in it, and shows the awaitee itself where
    /// nothing was.
    fn awaited(&mut self) {
        let Some(Context { plan, state: index, address, way, found: (nodes, waits) }) = self.contexts.pop()
        else {
            return;
        };
        let Body::Coroutine(coroutine) = &plan.body else { return };
        let Some(state) = coroutine.states.get(index) else { return };
        if waits != self.found.waits.len() {
            return;
        }
        if nodes == self.found.nodes.len()
            && self.plans.suspended(plan.of, coroutine, state).awaitee.is_some()
        {
            self.found.nodes.push(Node { plan, place: Place::new(way.frames(), Part::Awaitee(index)) });
        }
        // The frame before those below is the coroutine's own.
        self.unknown(nodes.saturating_sub(1), address, way);
    }

    fn branch_begins(&mut self, plan: &Rc<Plan>, address: u64, way: Way) {
        self.scopes.push(Scope::new(Kind::Branch, self.work.len()));
        let before = (self.found.nodes.len(), self.found.waits.len());
        self.branches.push(Branch { plan: plan.clone(), address, way, before, ends: self.ends });
    }

    /// Says that what a branch waits for is not known, where no wait was found in it, and it is not over.
    fn branch_ends(&mut self) {
        let Some(Branch { plan, address, way, before: (nodes, waits), ends }) = self.branches.pop() else {
            return;
        };
        let is_over = self.ends > ends && self.plans.tells_its_end(&plan);
        if waits != self.found.waits.len() || is_over {
            return;
        }
        if nodes == self.found.nodes.len() {
            let plan = if plan.frame.is_some() { plan } else { self.plans.unrecognised(&plan) };
            self.found.nodes.push(Node { plan, place: Place::new(way.frames(), Part::Type) });
        }
        self.unknown(nodes, address, way);
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
        let visit = match &step.via {
            Via::Inline(plan) => Some(Visit { plan: plan.clone(), at, way: way.deeper(way.frames()) }),
            Via::Pointer(target) => {
                let plan = self.plans.plan(*target)?;
                self.behind(plan, at, way)
            }
            Via::Dyn(of) => self.dynamic(of, at, way),
            Via::Container(container) => {
                self.container(container, at, way);
                None
            }
        };
        visit.map(|visit| Visit { way: visit.way.branch(step.is_branch), ..visit })
    }

    /// What the pointer and vtable at `at` lead to, where that is polled.
    fn dynamic(&mut self, of: &Dyn, at: u64, way: Way) -> Option<Visit> {
        let places = at.checked_add(of.pointer).zip(at.checked_add(of.vtable));
        let Some((at, vtable_at)) = places else { return self.ends() };
        let Some(is) = self.word(vtable_at) else { return self.ends() };
        self.note(|walker| Event::Choice { of: Choice::Number(8), at: walker.spot(way, vtable_at), is });
        let plan = self.plans.plan_of_vtable(self.process, is, of).filter(|plan| !plan.is_nothing())?;
        let Some(value) = of.value(self.process, is) else { return self.ends() };
        let visit = self.behind(plan, at, way)?;
        Some(Visit { at: visit.at.wrapping_add(value), ..visit })
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
