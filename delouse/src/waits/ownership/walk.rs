//! Walks what tasks and shared objects own, and records the handles.

mod beside;
mod coroutine;
mod partly;
mod shared;

use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use super::parts::{Draft, Parts};
use super::paths::{PathId, Paths};
use super::walk_context::WalkContext;
use super::{Holding, Node, Object, Reference};
use crate::debuginfo::types::TypeId;
use crate::snapshot::{Address, Hidden};
use crate::tasks::LeafPlace;
use crate::tasks::layout::handles::Handle;
use crate::tasks::layout::{
    Body, Case, Collection, Completion, Field, Interest, Label, Layout, LayoutId, Layouts, Visited,
};
use crate::tasks::process::Process;
use crate::waits::wait::ResourceKey;

/// The most values of one collection that are visited.
const MAX_ELEMENTS: u64 = 1 << 20;
/// The most values that are visited from one root; fewer in tests, which check what happens at the limit.
const MAX_STEPS: usize = if cfg!(test) { 1 << 18 } else { 1 << 22 };
/// The most steps of a path.
const MAX_DEPTH: u32 = 4096;
/// The most time for all walks together: much less than the lifetime of the image, and much more than walks take even
/// without optimisations on a busy machine.
const MAX_TIME: Duration = Duration::from_secs(15);
/// A set that had room for more is not used again.
const SMALL: usize = 1 << 10;
/// How a place was walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Seen {
    /// As a value of that layout.
    As(LayoutId),
    /// As a handle that is stored there by a guess.
    Guessed,
    /// As a counted pointer.
    Counted,
}

/// What walks found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) holdings: Vec<Holding>,
    pub(super) references: Vec<Reference>,
    pub(super) objects: Vec<Object>,
    /// Addresses and sizes of all values that were walked.
    pub(super) values: Vec<(Address, u64)>,
    /// The number of functions with a variable whose place is not known.
    pub(super) unplaced: usize,
}

impl Found {
    /// How many handles and how many references were found.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.holdings.len(), self.references.len())
    }
}

/// A step of the path to the current value; the first one is the root.
struct Step {
    parent: u32,
    depth: u32,
    label: Label,
}

/// A value to visit.
struct Visit<'l> {
    layout: &'l Layout,
    at: Address,
    /// Base address of the enclosing value.
    base: Address,
    step: u32,
    context: WalkContext,
}

/// Walks roots, one after the other.
pub(super) struct Walker<'w, 'p, 'i> {
    process: &'w Process<'p, 'i>,
    layouts: &'w Layouts<'i>,
    pub(super) paths: Paths,
    /// The addresses of resources that are waited for: other handles are not recorded.
    wanted: &'w FxHashSet<Hidden>,
    pub(super) found: Found,
    /// Addresses of what the last root owns that may store a waker of it.
    pub(super) slots: Vec<Address>,
    /// Whether branches of `join!`s are recorded.
    records_branches: bool,
    /// The branches that the last root waits in.
    branches: Vec<Draft>,
    /// A `join!` of the last root may be dropped before all of its branches have completed.
    raced: bool,
    /// Objects by their address, hidden so that a search of memory for it does not find our own stale copies.
    numbers: FxHashMap<Hidden, u32>,
    /// Objects that are still to be walked, with the layout of their value.
    queue: Vec<(u32, &'w Layout, Address)>,
    /// Values and layouts that were queued.
    queued: FxHashSet<(Address, LayoutId)>,
    owner: Node,
    /// The task is running: what is stored may be out of date.
    running: bool,
    /// A function in its first poll is walked as if it were suspended, at each of its `.await`s.
    first_polls: bool,
    work: Vec<Visit<'w>>,
    /// Variables. They are walked after everything that is polled, which may lead to the same values.
    aside: Vec<Visit<'w>>,
    steps: Vec<Step>,
    /// Places of this root that were walked.
    seen: FxHashSet<(Address, Seen)>,
    began: Instant,
    /// [`MAX_TIME`] is over.
    late: bool,
    /// The walk is incomplete: it reached a limit.
    pub(super) cut: bool,
}

impl<'w, 'p, 'i> Walker<'w, 'p, 'i> {
    pub(super) fn new(
        process: &'w Process<'p, 'i>,
        layouts: &'w Layouts<'i>,
        wanted: &'w FxHashSet<Hidden>,
    ) -> Self {
        Self {
            process,
            layouts,
            paths: Paths::default(),
            wanted,
            found: Found::default(),
            slots: Vec::new(),
            records_branches: false,
            branches: Vec::new(),
            raced: false,
            numbers: FxHashMap::default(),
            queue: Vec::new(),
            queued: FxHashSet::default(),
            owner: Node::Task(0),
            running: false,
            first_polls: false,
            work: Vec::new(),
            aside: Vec::new(),
            steps: Vec::new(),
            seen: FxHashSet::default(),
            began: Instant::now(),
            late: false,
            cut: false,
        }
    }

    /// Walks the future of a task; returns whether all of it was read.
    pub(super) fn task(&mut self, number: u32, of: TypeId, at: Address, running: bool) -> bool {
        let Some(layout) = self.layouts.of(Interest::Handles, of) else { return false };
        self.running = running;
        let all = self.root(Node::Task(number), layout, at);
        self.running = false;
        all
    }

    /// The same for a task that is suspended at `leaves`; also adds the branches of `join!`s that it waits in to
    /// `parts`.
    pub(super) fn suspended(
        &mut self,
        number: u32,
        (of, at): (TypeId, Address),
        leaves: &[LeafPlace],
        parts: &mut Parts,
    ) -> bool {
        let (holdings, references) = (self.found.holdings.len(), self.found.references.len());
        self.records_branches = true;
        let all = self.task(number, of, at, false);
        self.records_branches = false;
        if !self.branches.is_empty() {
            let holdings = self.found.holdings.get_mut(holdings..).unwrap_or_default();
            let references = self.found.references.get_mut(references..).unwrap_or_default();
            let leaves = Some(leaves).filter(|_| !self.raced);
            parts.settle(number, &self.branches, leaves, holdings, references);
        }
        all
    }

    /// Walks a static.
    pub(super) fn of_static(&mut self, of: TypeId, at: Address) {
        if let Some(layout) = self.layouts.of(Interest::Handles, of).filter(|layout| !layout.is_nothing()) {
            self.root(Node::Statics, layout, at);
        }
    }

    /// Walks all shared objects that were found, each once.
    pub(super) fn objects(&mut self) {
        while let Some((number, layout, at)) = self.queue.pop() {
            if !self.root(Node::Object(number), layout, at)
                && let Some(object) = self.found.objects.get_mut(number as usize)
            {
                object.cut = true;
            }
        }
    }

    fn root(&mut self, owner: Node, layout: &'w Layout, at: Address) -> bool {
        self.labelled_root(owner, Label::NONE, layout, at)
    }

    fn labelled_root(&mut self, owner: Node, label: Label, layout: &'w Layout, at: Address) -> bool {
        self.owner = owner;
        self.work.clear();
        self.aside.clear();
        self.raced = false;
        // Clearing a set takes time in proportion to the most that it ever contained: after a root with a million values,
        // as long as that for each further root.
        if self.seen.capacity() > SMALL {
            self.seen = FxHashSet::default();
        } else {
            self.seen.clear();
        }
        self.slots.clear();
        self.branches.clear();
        self.steps.clear();
        self.steps.push(Step { parent: 0, depth: 0, label: Label::NONE });
        self.value(layout, at);
        let step = self.step(0, label);
        self.work.push(Visit { layout, at, base: at, step, context: WalkContext::default() });
        let mut all = true;
        for visited in 0.. {
            let Some(visit) = self.work.pop().or_else(|| self.aside.pop()) else { break };
            self.late |= visited % 256 == 0 && self.began.elapsed() > MAX_TIME;
            // A root that is too large or damaged must not prevent the walk of others.
            if self.late || visited >= MAX_STEPS {
                self.cut = true;
                return false;
            }
            all &= self.visit(visit);
        }
        all
    }

    /// Visits one value; returns whether all of it could be read.
    fn visit(&mut self, visit: Visit<'w>) -> bool {
        let Visit { layout, at, base, step, context } = visit;
        let (is_variable, was_raced) = (context.variable, context.raced);
        let context = self.polled_by(layout, WalkContext { variable: false, ..context });
        match &layout.body {
            Body::Nothing | Body::Leaf(_) | Body::Opaque | Body::Select(_) | Body::Shared { .. } => {}
            Body::Fields(fields) => self.parts(layout, fields, at, step, context),
            Body::Variants(variants) => {
                if let Some((_, case)) = variants.case(&self.process.memory, at) {
                    let context = match variants.is_branch {
                        true => self.branch(case, (at, layout.size), base, context),
                        false => context,
                    };
                    self.fields(&case.fields, at, step, context);
                }
            }
            Body::Coroutine(coroutine) => return self.coroutine(layout, coroutine, at, step, context),
            Body::Pointer { target, owned } => {
                if let Some(at) = self.process.memory.pointer(at)
                    && let Some(target) = self.layouts.of(Interest::Handles, *target)
                {
                    // The target of a `&mut` is not necessarily an allocation: it may be in a variable.
                    let context = if *owned { context.behind_pointer() } else { context };
                    self.push_once(target, at, step, context);
                }
            }
            Body::Raw { target } => self.raw(*target, at, step, context),
            Body::Dyn(of) => {
                let place = |offset| at.checked_add(offset).and_then(|at| self.process.memory.pointer(at));
                let (Some(at), Some(vtable)) = (place(of.pointer), place(of.vtable)) else { return true };
                match self.layouts.owned_by_vtable(self.process, vtable) {
                    Some(target) => self.push_once(target, at, step, context.behind_pointer()),
                    None => return false,
                }
                // Futures behind this pointer are not among the leaves that were found, and may complete first.
                return of.is_future || !was_raced || !context.polled();
            }
            Body::Counted(counted) => return self.counted(counted, at, step, context),
            Body::Collection(collection) => return self.collection(collection, at, step, context),
            Body::Handle { handle, fields } => {
                if !context.guessed && !self.seen.insert((at, Seen::As(layout.id))) {
                    return true;
                }
                if context.borrowed && !handle.is_waker() {
                    self.fields(fields, at, step, context);
                    return true;
                }
                let read = handle.read(self.process, at);
                let is_wanted = read.is_some_and(|(resource, _)| self.wanted.contains(&resource.into()));
                if context.guessed && !(is_wanted && self.seen.insert((at, Seen::Guessed))) {
                    return true;
                }
                let context = WalkContext { guessed: false, ..context };
                if handle.keeps_waker() {
                    // A place in a queue to which no permit is assigned stores a waker, too.
                    let shared = read.filter(|_| !handle.has_own_waker());
                    self.slots.push(shared.map_or(at, |(resource, _)| resource));
                }
                if let Some(read) = read
                    && (is_wanted || handle.is_of_task())
                {
                    self.hold(handle, read, at, step, WalkContext { variable: is_variable, ..context });
                }
                self.fields(fields, at, step, WalkContext { only_adds: handle.only_adds(), ..context });
            }
        }
        true
    }

    /// Visits the values of a collection.
    fn collection(&mut self, collection: &Collection, at: Address, step: u32, context: WalkContext) -> bool {
        let Some(layout) = self.layouts.get(collection.element) else { return false };
        let step = self.step(step, Label::ELEMENT);
        let context = context.behind_pointer();
        let mut left = MAX_STEPS.saturating_sub(self.work.len() + self.aside.len());
        let work = &mut self.work;
        let branch = context.branch.filter(|_| context.polled());
        let mut branch = branch.and_then(|branch| self.branches.get_mut(branch as usize));
        let visited = collection.each(self.process, at, MAX_ELEMENTS, |element| {
            if left > 0 {
                left -= 1;
                if let Some(branch) = &mut branch {
                    branch.pieces.push((element, layout.size));
                }
                work.push(Visit { layout, at: element, base: at, step, context });
            }
        });
        match visited {
            Visited::All => left > 0,
            Visited::Some => false,
            // A variable that was moved or dropped may contain anything: what it had is found where it is now.
            Visited::Garbage => context.doubt.loose,
        }
    }

    /// Records a handle.
    fn hold(
        &mut self,
        handle: &Handle,
        (resource, permits): (Address, u64),
        at: Address,
        step: u32,
        context: WalkContext,
    ) {
        let queued = handle.waits_in_queue();
        let unpolled = context.unpolled.or((queued && context.aside).then_some(step));
        let doubt = if queued { context.pinned } else { context.doubt };
        let kept = context.variable && unpolled.is_none();
        let (path, unpolled) = (self.path(step), unpolled.map(|step| self.path(step)));
        self.found.holdings.push(Holding {
            owner: self.owner(context),
            resource: ResourceKey::Value(resource),
            permits,
            others: handle.others(self.process, at),
            handle: handle.index(),
            path,
            unpolled,
            uncertain: self.running || doubt.maybe_moved,
            place: at,
            solid: !doubt.loose && !self.running,
            kept,
        });
    }

    fn fields(&mut self, fields: &[Field], base: Address, step: u32, context: WalkContext) {
        for field in fields.iter().rev() {
            let Some(at) = base.checked_add(field.offset) else { continue };
            let Some(layout) = self.layouts.get(field.layout) else { continue };
            let step = self.step(step, field.label);
            let visit = Visit { layout, at, base, step, context };
            if context.aside { self.aside.push(visit) } else { self.work.push(visit) }
        }
    }

    /// The context inside a variant of a branch of a `join!`. Records the branch if its task polls it and it has not
    /// completed.
    fn branch(
        &mut self,
        case: &Case,
        piece: (Address, u64),
        join: Address,
        context: WalkContext,
    ) -> WalkContext {
        if !self.records_branches || !context.polled() || !context.joined || !case.pending {
            return context;
        }
        self.raced |= context.raced;
        let number = self.branches.len() as u32;
        self.branches.push(Draft { within: context.branch, join, pieces: vec![piece], open: false });
        WalkContext { branch: Some(number), joined: false, raced: false, ..context }
    }

    /// The context of the futures that a value polls: it depends on when the value itself completes.
    fn polled_by(&mut self, layout: &Layout, context: WalkContext) -> WalkContext {
        if !self.records_branches || !context.polled() {
            return context;
        }
        let (raced, open) = match layout.completion {
            Completion::With => (false, false),
            Completion::WithAll => return WalkContext { joined: true, ..context },
            Completion::Closure => (!context.joined, !context.joined),
            Completion::WithAny => (true, false),
            Completion::Unknown => (true, true),
        };
        let blind = matches!(&layout.body, Body::Dyn(of) if !of.is_future);
        if let Some(branch) = context.branch.and_then(|branch| self.branches.get_mut(branch as usize)) {
            branch.open |= open || blind;
        }
        WalkContext { raced: context.raced || raced || blind, ..context }
    }

    /// The owner of a value: the root, or a branch of it.
    fn owner(&self, context: WalkContext) -> Node {
        context.branch.map_or(self.owner, Node::Part)
    }

    /// Visits the target of a pointer, once: if it is borrowed, several paths lead to it.
    fn push_once(&mut self, layout: &'w Layout, at: Address, step: u32, context: WalkContext) {
        // Coroutines and handles are marked as seen when they are visited.
        let is_marked_later = matches!(layout.body, Body::Coroutine(_) | Body::Handle { .. });
        if !context.borrowed {
            self.value(layout, at);
        }
        if is_marked_later || self.seen.insert((at, Seen::As(layout.id))) {
            let branch = context.branch.filter(|_| context.polled());
            let branch = branch.and_then(|branch| self.branches.get_mut(branch as usize));
            if let Some(branch) = branch {
                branch.pieces.push((at, layout.size));
            }
            self.work.push(Visit { layout, at, base: at, step, context });
        }
    }

    /// Records where a value is stored.
    fn value(&mut self, layout: &Layout, at: Address) {
        self.found.values.push((at, layout.size));
    }

    fn step(&mut self, parent: u32, label: Label) -> u32 {
        if label == Label::NONE {
            return parent;
        }
        let depth = self.steps.get(parent as usize).map_or(0, |step| step.depth) + 1;
        if depth >= MAX_DEPTH {
            return parent;
        }
        self.steps.push(Step { parent, depth, label });
        (self.steps.len() - 1) as u32
    }

    fn path(&mut self, step: u32) -> PathId {
        let mut labels = Vec::new();
        let mut at = step;
        while let Some(step) = self.steps.get(at as usize).filter(|step| step.depth > 0) {
            labels.push(step.label);
            at = step.parent;
        }
        labels.reverse();
        self.paths.path(&labels)
    }
}
