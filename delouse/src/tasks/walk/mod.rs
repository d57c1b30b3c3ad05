//! Walks one future by the layouts of its types: its async stack, and what its leaves wait for.

mod collections;
mod found;
mod leaf;
mod position;
mod ready;
mod replay;
mod walk_cache;

use std::cell::RefCell;

pub(super) use found::{FramePlace, Node, Part, Walked};
pub(super) use walk_cache::WalkCache;

use super::layout::{Body, Coroutine, Dyn, Field, Interest, Layout, LayoutId, Layouts};
use super::process::Process;
use crate::debuginfo::types::TypeId;
use crate::snapshot::Address;
use position::{Kind, Position, Scope};
use ready::{Passed, Ready};
use replay::Replayed;
use walk_cache::{Choice, Event};

/// The most frames from a task's root to a leaf: code that reads the answer recurses on stacks of two megabytes.
const MAX_DEPTH: u16 = 256;
/// The most frames of one task.
const MAX_NODES: usize = 4096;
/// The most steps of one task, whether shown or not.
const MAX_STEPS: usize = 1 << 16;

/// Why a stack ends where a future is damaged, or is being polled.
pub(super) const UNKNOWN_STATE: &str = "a future is in a state that its type does not have";
const TOO_LARGE: &str = "it is deeper or wider than delouse follows";

/// A coroutine around the current position.
struct Context<'l> {
    layout: &'l Layout,
    state: usize,
    address: Address,
    /// The position of the futures below it.
    position: Position,
    /// How many frames and waits were found before the future that it awaits.
    found: (usize, usize),
    /// How many completed futures and passed leaves were found before that.
    before: (usize, usize),
}

/// One of several futures that are polled side by side.
struct Branch<'l> {
    layout: &'l Layout,
    address: Address,
    position: Position,
    /// How many frames and waits, completed futures, and passed leaves were found before it.
    before: (usize, usize),
    completed: usize,
    passed: usize,
}

/// A future to visit.
#[derive(Clone, Copy)]
struct Visit<'l> {
    layout: &'l Layout,
    at: Address,
    position: Position,
}

/// Walks futures, one after the other.
pub(super) struct Walker<'w, 'p, 'i> {
    process: &'w Process<'p, 'i>,
    layouts: &'w Layouts<'i>,
    cache: &'w RefCell<WalkCache>,
    found: Walked,
    contexts: Vec<Context<'w>>,
    branches: Vec<Branch<'w>>,
    /// How many futures were found that have completed, or were not polled yet.
    completed: usize,
    /// Leaves at which nothing waits, by their wakers.
    passed: Vec<Passed<'w>>,
    /// The passed leaves that are shown as waits, because their wake-up is under way.
    ready: Vec<Ready>,
    /// The task is running: its future may be changing, so an invalid state is not reported.
    runs: bool,
    /// Targets of pointers around the current position, with the numbers of their layouts.
    followed: Vec<(Address, LayoutId)>,
    /// Futures that are still to be visited; the last one is next. Futures nest deeper than a thread's stack allows
    /// recursion.
    work: Vec<Visit<'w>>,
    /// Scopes that are not completed, the innermost last.
    scopes: Vec<Scope>,
    /// The header of the task whose future it is; `None` for a main future.
    task: Option<Address>,
    /// The task is idle, and nothing has woken it since it was polled.
    idle: bool,
    /// The type of the future.
    of: Option<TypeId>,
    /// The address of the future, and the target of each pointer.
    bases: Vec<Address>,
    /// The steps of the walk, for the cache.
    events: Vec<Event>,
    /// Whether the steps are recorded: the path can be cached as far as is known.
    caches_path: bool,
}

impl<'w, 'p, 'i> Walker<'w, 'p, 'i> {
    pub(super) fn new(
        process: &'w Process<'p, 'i>,
        layouts: &'w Layouts<'i>,
        cache: &'w RefCell<WalkCache>,
    ) -> Self {
        Self {
            process,
            layouts,
            cache,
            found: Walked::default(),
            contexts: Vec::new(),
            branches: Vec::new(),
            completed: 0,
            passed: Vec::new(),
            ready: Vec::new(),
            runs: false,
            followed: Vec::new(),
            work: Vec::new(),
            scopes: Vec::new(),
            task: None,
            idle: false,
            of: None,
            bases: Vec::new(),
            events: Vec::new(),
            caches_path: false,
        }
    }

    fn begin(&mut self, address: Address) {
        self.found.clear();
        self.contexts.clear();
        self.branches.clear();
        self.completed = 0;
        self.passed.clear();
        self.followed.clear();
        self.work.clear();
        self.scopes.clear();
        self.events.clear();
        self.bases.clear();
        self.bases.push(address);
    }

    /// Walks the future at `address`, of a task that `runs` or not. The result is valid until the next walk, which
    /// reuses its memory.
    pub(super) fn walk(&mut self, layout: &'w Layout, address: Address, runs: bool) -> &mut Walked {
        self.of = Some(layout.of);
        self.caches_path = false;
        self.runs = runs;
        self.begin(address);
        // The path of a running task is seldom taken again.
        if !runs {
            match self.replay(layout.of) {
                Replayed::Whole => return &mut self.found,
                Replayed::UpToNewPath => self.caches_path = true,
                Replayed::NotCached => {}
            }
            self.begin(address);
        }
        self.ready.clear();
        self.all(layout, address);
        if !self.ready.is_empty() {
            self.begin(address);
            self.all(layout, address);
        }
        self.found.drop_idle_frames();
        &mut self.found
    }

    /// Visits the future and all that it leads to.
    fn all(&mut self, layout: &'w Layout, address: Address) {
        // Most futures lead to just one other, which is not put on `work`: that saves a third of the time.
        let mut next = Some(Visit { layout, at: address, position: Position::default().branch(true) });
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
                next = self.work.pop();
            }
            let Some(visit) = next.take() else { break };
            steps += 1;
            if self.found.nodes.len() >= MAX_NODES || steps >= MAX_STEPS || self.work.len() >= MAX_STEPS {
                self.found.cut = Some(TOO_LARGE);
                break;
            }
            if visit.position.frames() >= MAX_DEPTH {
                self.found.cut = Some(TOO_LARGE);
                continue;
            }
            if visit.position.is_branch() {
                self.branch_begins(visit);
            }
            if visit.position.is_behind() {
                let target = (visit.at, visit.layout.id);
                if self.followed.contains(&target) {
                    self.found.cut = Some("a future that contains itself");
                    self.caches_path = false;
                    continue;
                }
                self.followed.push(target);
                self.scopes.push(Scope::new(Kind::Pointer, self.work.len()));
            }
            next = self.visit(visit);
        }
    }

    /// Visits one future, and returns the next one where there is just one.
    #[inline]
    fn visit(&mut self, visit: Visit<'w>) -> Option<Visit<'w>> {
        let Visit { layout, at: address, position } = visit;
        match &layout.body {
            Body::Nothing | Body::Counted(_) | Body::Handle { .. } | Body::Raw { .. } => None,
            Body::Coroutine(coroutine) => self.coroutine(visit, coroutine),
            Body::Leaf(_) => {
                self.visit_leaf(layout, address, position);
                None
            }
            Body::Opaque => {
                self.push(layout, Part::Type, position);
                let kind = self.kind_without_leaf(self.passed.len());
                self.add_wait_without_leaf(self.found.nodes.len().saturating_sub(1), address, position, kind);
                None
            }
            Body::Fields(fields) => {
                let alone = self.polled_alone(layout, fields, address, position);
                let position = self.push(layout, Part::Type, position);
                match alone {
                    Some(field) => self.field(field, address, position),
                    None => self.fields(fields, address, position),
                }
            }
            Body::Variants(variants) => {
                let memory = &self.process.memory;
                let Some((index, case)) = variants.case(memory, address) else { return self.not_cached() };
                self.note(|walker| {
                    let (of, at) = (Choice::Case(layout.id), walker.spot(position, address));
                    Event::Choice { of, at, is: index as u64 }
                });
                if case.fields.is_empty() {
                    self.completed += usize::from(case.is_over);
                    return None;
                }
                let position = self.push(layout, Part::Type, position);
                self.fields(&case.fields, address, position)
            }
            Body::Pointer { target, .. } => {
                let position = self.push(layout, Part::Type, position);
                let target = self.layouts.of(Interest::Futures, *target)?;
                self.behind(target, address, position)
            }
            Body::Dyn(of) => {
                let position = self.push(layout, Part::Type, position);
                self.dynamic(layout, of, address, position)
            }
            Body::Collection(_) | Body::Select(_) | Body::Shared { .. } => {
                let position = self.push(layout, Part::Type, position);
                self.several(layout, address, position);
                None
            }
        }
    }

    fn coroutine(&mut self, visit: Visit<'w>, coroutine: &'w Coroutine) -> Option<Visit<'w>> {
        let Visit { layout, at: address, position } = visit;
        let Some((index, state)) = coroutine.state(&self.process.memory, address) else {
            if !self.runs {
                self.found.cut = Some(UNKNOWN_STATE);
            }
            return self.not_cached();
        };
        self.note(|walker| {
            let at = walker.spot(position, address.wrapping_add(coroutine.at.offset));
            Event::Choice { of: Choice::Number(coroutine.at.size), at, is: state.value }
        });
        let position = self.push(layout, Part::State(index), position).in_function();
        if !state.is_suspended() {
            self.completed += 1;
            return None;
        }
        let suspended = self.layouts.suspended(layout.of, coroutine, state);
        let found = (self.found.nodes.len(), self.found.waits.len());
        self.scopes.push(Scope::new(Kind::Await, self.work.len()));
        let before = (self.completed, self.passed.len());
        self.contexts.push(Context { layout, state: index, address, position, found, before });
        self.fields(&suspended.fields, address, position)
    }

    /// If no wait was found in what a coroutine awaits, records an unknown wait; if nothing was found in it, adds a
    /// frame for the awaitee.
    fn awaited(&mut self) {
        let Some(context) = self.contexts.pop() else { return };
        let Context { layout, state: index, address, position, found, before } = context;
        let ((nodes, waits), (completed, passed)) = (found, before);
        let Body::Coroutine(coroutine) = &layout.body else { return };
        let Some(state) = coroutine.states.get(index) else { return };
        if waits != self.found.waits.len() || self.is_woken(passed) {
            return;
        }
        let kind = self.kind_of_function(&coroutine.path, passed);
        let suspended = self.layouts.suspended(layout.of, coroutine, state);
        self.found.is_polled |= self.completed > completed && self.is_over(suspended);
        if nodes == self.found.nodes.len() && suspended.awaitee.is_some() {
            let place = FramePlace::new(position.frames(), Part::Awaitee(index));
            self.found.nodes.push(Node { layout: layout.id, place });
        }
        // The frame before those below is the coroutine's own.
        self.add_wait_without_leaf(nodes.saturating_sub(1), address, position, kind);
    }

    fn branch_begins(&mut self, Visit { layout, at: address, position }: Visit<'w>) {
        self.scopes.push(Scope::new(Kind::Branch, self.work.len()));
        let before = (self.found.nodes.len(), self.found.waits.len());
        let (completed, passed) = (self.completed, self.passed.len());
        self.branches.push(Branch { layout, address, position, before, completed, passed });
    }

    /// Records an unknown wait for a branch that has not completed and in which no wait was found.
    fn branch_ends(&mut self) {
        let Some(branch) = self.branches.pop() else { return };
        let Branch { layout, address, position, before: (nodes, waits), completed, passed } = branch;
        let is_over = self.completed > completed && self.layouts.shows_completion(layout);
        if waits != self.found.waits.len() || is_over || self.is_woken(passed) {
            return;
        }
        if nodes == self.found.nodes.len() {
            let shown = if layout.frame.is_some() { Some(layout) } else { self.layouts.unrecognised(layout) };
            let place = FramePlace::new(position.frames(), Part::Type);
            self.found.nodes.extend(shown.map(|layout| Node { layout: layout.id, place }));
        }
        let kind = self.kind_without_leaf(passed);
        self.add_wait_without_leaf(nodes, address, position, kind);
    }

    /// The field that is polled alone at the moment.
    fn polled_alone<'f>(
        &mut self,
        layout: &'w Layout,
        fields: &'f [Field],
        address: Address,
        position: Position,
    ) -> Option<&'f Field> {
        let option = self.layouts.option_alone(layout, address)?;
        let (number, is_there) = option.read(&self.process.memory)?;
        self.note(|walker| {
            let at = walker.spot(position, option.at);
            Event::Choice { of: Choice::Case(option.layout.id), at, is: number as u64 }
        });
        fields.iter().find(|field| is_there && field.offset == option.offset)
    }

    /// Returns the only field; several are added in their order, to be visited before all other work.
    fn fields(&mut self, fields: &[Field], base: Address, position: Position) -> Option<Visit<'w>> {
        if let [field] = fields {
            return self.field(field, base, position);
        }
        self.in_order(|walker| {
            for field in fields {
                if let Some(Visit { layout, at, position }) = walker.field(field, base, position) {
                    let position = position.branch(layout.is_future);
                    walker.work.push(Visit { layout, at, position });
                }
            }
        });
        None
    }

    fn field(&mut self, field: &Field, base: Address, position: Position) -> Option<Visit<'w>> {
        let Some(at) = base.checked_add(field.offset) else { return self.not_cached() };
        let layout = self.layouts.get(field.layout)?;
        Some(Visit { layout, at, position: position.deeper(position.frames()) })
    }

    /// Reverses the visits that `push` adds, because the last one of `work` is next.
    fn in_order(&mut self, push: impl FnOnce(&mut Self)) {
        let first = self.work.len();
        push(self);
        if let Some(new) = self.work.get_mut(first..) {
            new.reverse();
        }
    }

    /// The target of a pointer with a vtable, if it is polled.
    fn dynamic(&mut self, layout: &Layout, of: &Dyn, at: Address, position: Position) -> Option<Visit<'w>> {
        let places = at.checked_add(of.pointer).zip(at.checked_add(of.vtable));
        let Some((at, vtable_at)) = places else { return self.not_cached() };
        let Some(vtable) = self.process.memory.pointer(vtable_at) else { return self.not_cached() };
        self.note(|walker| {
            let at = walker.spot(position, vtable_at);
            Event::Choice { of: Choice::Number(8), at, is: vtable.get() }
        });
        let target =
            self.layouts.of_vtable(self.process, vtable, layout).filter(|target| !target.is_nothing())?;
        let Some(value) = of.value(self.process, vtable) else { return self.not_cached() };
        let visit = self.behind(target, at, position)?;
        Some(Visit { at: visit.at.wrapping_add(value), ..visit })
    }

    /// The target of the pointer at `at`.
    fn behind(&mut self, layout: &'w Layout, at: Address, position: Position) -> Option<Visit<'w>> {
        let Some(target) = self.process.memory.pointer(at) else { return self.not_cached() };
        let event = |walker: &Self| Event::Pointer { at: walker.spot(position, at), layout: layout.id };
        let position = self.lead(event, target, position).behind();
        Some(Visit { layout, at: target, position })
    }

    /// Adds a frame if `layout` has one, and returns the position of those below.
    fn push(&mut self, layout: &Layout, part: Part, position: Position) -> Position {
        let frames = position.frames();
        if layout.frame.is_none() {
            return position.deeper(frames);
        }
        self.found.nodes.push(Node { layout: layout.id, place: FramePlace::new(frames, part) });
        position.deeper(frames.saturating_add(1))
    }
}
