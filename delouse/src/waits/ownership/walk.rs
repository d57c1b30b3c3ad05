//! Walks what tasks and shared objects own, and writes down the handles.

mod coroutine;

use std::rc::Rc;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use super::ends::Ends;
use super::labels::{Label, PathId};
use super::parts::{Draft, Parts};
use super::plan::{Body, Case, Content, Field, Plan, Plans, Shared};
use super::standing::Standing;
use super::{Holding, Node, Object, Reference};
use crate::debuginfo::types::{Discriminant, TypeId};
use crate::tasks::LeafPlace;
use crate::waits::handles::Handle;

/// Steps from one root; few in tests, which want to see what is beyond them.
const MAX_STEPS: usize = if cfg!(test) { 1 << 18 } else { 1 << 22 };
/// Steps in a way.
const MAX_DEPTH: u32 = 4096;
/// Shared objects of one capture.
const MAX_OBJECTS: usize = 1 << 22;
/// Values of shared objects of one capture: those that are slices have several.
const MAX_QUEUED: usize = 1 << 23;
/// All walks together may take this long: far less than the image lives, far more than they take, even in a build
/// without optimisations on a machine that is busy.
const MAX_TIME: Duration = Duration::from_secs(15);
/// Stands for the plan of a handle that was found in a place that was guessed.
const GUESSED: u32 = u32::MAX - 1;
/// More references than that are no count but garbage.
const MAX_COUNT: u64 = 1 << 32;

/// What walks found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) holdings: Vec<Holding>,
    pub(super) references: Vec<Reference>,
    pub(super) objects: Vec<Object>,
    /// Addresses and sizes of all values that were walked.
    pub(super) values: Vec<(u64, u64)>,
    /// Functions with a variable whose place is not known.
    pub(super) unplaced: usize,
}

/// A step of the way to where we are; the first is the root's.
struct Trail {
    parent: u32,
    depth: u32,
    label: Label,
}

struct Work {
    plan: Rc<Plan>,
    at: u64,
    /// Where that lies in which it lies.
    base: u64,
    trail: u32,
    standing: Standing,
}

/// Walks roots, one after the other.
pub(super) struct Walker<'w, 'a, 'p, 'i> {
    plans: &'w Plans<'a, 'p, 'i>,
    /// The resources that somebody waits for: other handles are not written down.
    wanted: &'w FxHashSet<u64>,
    pub(super) found: Found,
    /// What the last root has that keeps wakers.
    pub(super) slots: Vec<u64>,
    /// Branches of `join!`s are told apart.
    parted: bool,
    /// Those that the last root waits in.
    branches: Vec<Draft>,
    /// A `join!` of it may be ended before all of its branches have ended.
    raced: bool,
    /// Objects by the complement of their address: who looks for the address itself in memory shall not find
    /// it in what is left of us.
    numbers: FxHashMap<u64, u32>,
    /// Objects that are still to be walked, with the plan of their value.
    queue: Vec<(u32, Rc<Plan>, u64)>,
    /// Objects and plans that were queued.
    queued: FxHashSet<(u64, u32)>,
    owner: Node,
    /// The task runs: its last state may not be what it has now.
    running: bool,
    work: Vec<Work>,
    /// Variables: walked when all that is polled has been, which may lead there, too.
    aside: Vec<Work>,
    trails: Vec<Trail>,
    /// Places of this root that were walked.
    seen: FxHashSet<(u64, u32)>,
    began: Instant,
    /// There is no time left for any root.
    late: bool,
    /// Not all of what there was could be walked.
    pub(super) cut: bool,
}

impl<'w, 'a, 'p, 'i> Walker<'w, 'a, 'p, 'i> {
    pub(super) fn new(plans: &'w Plans<'a, 'p, 'i>, wanted: &'w FxHashSet<u64>) -> Self {
        Self {
            plans,
            wanted,
            found: Found::default(),
            slots: Vec::new(),
            parted: false,
            branches: Vec::new(),
            raced: false,
            numbers: FxHashMap::default(),
            queue: Vec::new(),
            queued: FxHashSet::default(),
            owner: Node::Task(0),
            running: false,
            work: Vec::new(),
            aside: Vec::new(),
            trails: Vec::new(),
            seen: FxHashSet::default(),
            began: Instant::now(),
            late: false,
            cut: false,
        }
    }

    /// Walks the future of a task; says whether all of it was seen.
    pub(super) fn task(&mut self, number: u32, of: TypeId, at: u64, running: bool) -> bool {
        let Some(plan) = self.plans.plan(of) else { return false };
        self.running = running;
        let all = self.root(Node::Task(number), plan, at);
        self.running = false;
        all
    }

    /// The same for one that waits at `leaves`, with the branches that it waits in.
    pub(super) fn suspended(
        &mut self,
        number: u32,
        (of, at): (TypeId, u64),
        leaves: &[LeafPlace],
        parts: &mut Parts,
    ) -> bool {
        let (holdings, references) = (self.found.holdings.len(), self.found.references.len());
        self.parted = true;
        let all = self.task(number, of, at, false);
        self.parted = false;
        if !self.branches.is_empty() {
            let holdings = self.found.holdings.get_mut(holdings..).unwrap_or_default();
            let references = self.found.references.get_mut(references..).unwrap_or_default();
            let leaves = Some(leaves).filter(|_| !self.raced);
            parts.settle(number, &self.branches, leaves, holdings, references);
        }
        all
    }

    /// Walks a static.
    pub(super) fn of_static(&mut self, of: TypeId, at: u64) {
        if let Some(plan) = self.plans.plan(of).filter(|plan| !plan.is_nothing()) {
            self.root(Node::Statics, plan, at);
        }
    }

    /// Walks all shared objects that were met, each once.
    pub(super) fn objects(&mut self) {
        while let Some((number, plan, at)) = self.queue.pop() {
            if !self.root(Node::Object(number), plan, at)
                && let Some(object) = self.found.objects.get_mut(number as usize)
            {
                object.cut = true;
            }
        }
    }

    fn root(&mut self, owner: Node, plan: Rc<Plan>, at: u64) -> bool {
        self.owner = owner;
        self.work.clear();
        self.aside.clear();
        self.raced = false;
        self.seen.clear();
        self.slots.clear();
        self.branches.clear();
        self.trails.clear();
        self.trails.push(Trail { parent: 0, depth: 0, label: Label::NONE });
        self.value(&plan, at);
        self.work.push(Work { plan, at, base: at, trail: 0, standing: Standing::default() });
        let mut all = true;
        for step in 0.. {
            let Some(work) = self.work.pop().or_else(|| self.aside.pop()) else { break };
            self.late |= step % 256 == 0 && self.began.elapsed() > MAX_TIME;
            // One that is too large, or damaged, says nothing of the others.
            if self.late || step >= MAX_STEPS {
                self.cut = true;
                return false;
            }
            all &= self.visit(work);
        }
        all
    }

    /// Looks at one place; says whether all of it could be seen.
    fn visit(&mut self, work: Work) -> bool {
        let Work { plan, at, base, trail, standing } = work;
        let (is_variable, was_raced) = (standing.variable, standing.raced);
        let standing = self.on_the_way(&plan, Standing { variable: false, ..standing });
        match &plan.body {
            Body::Nothing => {}
            Body::Fields(fields) => self.fields(fields, at, trail, standing),
            Body::Variants { at: discriminant, cases, is_branch } => {
                let value = discriminant.and_then(|place| self.discriminant(place, at));
                let exact = cases.iter().find(|case| value.is_some() && case.value == value);
                let case = exact.or_else(|| cases.iter().find(|case| case.value.is_none()));
                if let Some(case) = case {
                    let standing = match is_branch {
                        true => self.branch(case, (at, plan.size), base, standing),
                        false => standing,
                    };
                    self.fields(&case.fields, at, trail, standing);
                }
            }
            Body::Coroutine(coroutine) => return self.coroutine(&plan, coroutine, at, trail, standing),
            Body::Pointer { target, owned } => {
                if let Some(at) = self.pointer(at)
                    && let Some(plan) = self.plans.plan(*target)
                {
                    // A `&mut` leads to what is pinned elsewhere.
                    let standing = if *owned { standing.behind_pointer() } else { standing };
                    self.push_once(plan, at, trail, standing);
                }
            }
            Body::Dyn { future } => {
                let vtable = at.checked_add(8).and_then(|at| self.pointer(at));
                let (Some(at), Some(vtable)) = (self.pointer(at), vtable) else { return true };
                match self.plans.plan_of_vtable(vtable) {
                    Some(plan) => self.push_once(plan, at, trail, standing.behind_pointer()),
                    None => return false,
                }
                // What waits in there is no leaf that was seen, and may be the first to end.
                return *future || !was_raced || !standing.polled();
            }
            Body::Shared(shared) => return self.shared(shared, at, trail, standing),
            Body::Many(many) => {
                let trail = self.trail(trail, Label::ELEMENT);
                let standing = standing.behind_pointer();
                let mut left = MAX_STEPS.saturating_sub(self.work.len() + self.aside.len());
                let work = &mut self.work;
                let branch = standing.branch.filter(|_| standing.polled());
                let mut branch = branch.and_then(|branch| self.branches.get_mut(branch as usize));
                let all = many.each(self.plans.process, at, |element| {
                    if left > 0 {
                        left -= 1;
                        if let Some(branch) = &mut branch {
                            branch.pieces.push((element, many.plan.size));
                        }
                        work.push(Work { plan: many.plan.clone(), at: element, base: at, trail, standing });
                    }
                });
                return all && left > 0;
            }
            Body::Handle { handle, fields } => {
                if !standing.guessed && !self.seen.insert((at, plan.id)) {
                    return true;
                }
                let read = handle.read(self.plans.process, at);
                let is_wanted = read.is_some_and(|(resource, _)| self.wanted.contains(&resource));
                if standing.guessed && !(is_wanted && self.seen.insert((at, GUESSED))) {
                    return true;
                }
                let standing = Standing { guessed: false, ..standing };
                if handle.keeps_waker() {
                    // A queue place that was given nothing keeps one, too.
                    self.slots.push(read.map_or(at, |(resource, _)| resource));
                }
                if let Some(read) = read
                    && (is_wanted || handle.is_of_task())
                {
                    self.hold(handle, read, at, trail, Standing { variable: is_variable, ..standing });
                }
                self.fields(fields, at, trail, standing);
            }
        }
        true
    }

    /// Writes a handle down.
    fn hold(
        &mut self,
        handle: &Handle,
        (resource, permits): (u64, u64),
        at: u64,
        trail: u32,
        standing: Standing,
    ) {
        let queued = handle.waits_in_queue();
        let unpolled = standing.unpolled.or((queued && standing.aside).then_some(trail));
        let doubt = if queued { standing.pinned } else { standing.doubt };
        self.found.holdings.push(Holding {
            owner: self.owner(standing),
            resource,
            permits,
            handle: handle.index(),
            path: self.path(trail),
            unpolled: unpolled.map(|trail| self.path(trail)),
            uncertain: self.running || doubt.maybe_moved,
            place: at,
            solid: !doubt.loose && !self.running,
            kept: standing.variable && unpolled.is_none(),
        });
    }

    /// Says whether there was room for the object.
    fn shared(&mut self, shared: &Shared, at: u64, trail: u32, standing: Standing) -> bool {
        // The counters: strong, weak, one more weak for all strong together (`sync.rs`, `rc.rs`).
        let Some(counters) = at.checked_add(shared.pointer).and_then(|at| self.pointer(at)) else {
            return true;
        };
        let memory = &self.plans.process.memory;
        let count =
            |offset: u64| memory.word(counters.checked_add(offset)?).filter(|count| *count < MAX_COUNT);
        let (Some(strong), Some(weak)) = (count(0), count(8)) else { return true };
        if !counters.is_multiple_of(8) || strong == 0 || weak == 0 || !self.seen.insert((at, u32::MAX)) {
            return true;
        }
        let new = self.found.objects.len();
        if new >= MAX_OBJECTS && !self.numbers.contains_key(&!counters) {
            self.cut = true;
            return false;
        }
        let number = *self.numbers.entry(!counters).or_insert(new as u32);
        if number as usize == new {
            self.found.objects.push(Object {
                hidden: !counters,
                strong,
                weak: weak - 1,
                value: 0,
                cut: false,
            });
        }
        let path = self.path(trail);
        let Some(place) = at.checked_add(shared.pointer) else { return true };
        self.found.references.push(Reference {
            owner: self.owner(standing),
            object: number,
            weak: shared.weak,
            path,
            uncertain: self.running || standing.doubt.maybe_moved,
            unpolled: standing.unpolled.map(|trail| self.path(trail)),
            place,
            solid: !standing.doubt.loose && !self.running,
        });
        self.content(shared, number, counters, place.checked_add(8));
        true
    }

    /// Queues the value of a shared object, unless it was queued with that type already.
    fn content(&mut self, shared: &Shared, number: u32, counters: u64, behind: Option<u64>) {
        let process = self.plans.process;
        match &shared.content {
            Content::Value { of, offset } => {
                if let (Some(plan), Some(at)) = (self.plans.plan(*of), counters.checked_add(*offset)) {
                    self.enqueue(number, plan, at);
                }
            }
            Content::Dyn => {
                let vtable = behind.and_then(|at| self.pointer(at));
                // Words of a vtable: drop, size, align.
                let align = vtable.and_then(|vtable| process.memory.word(vtable.checked_add(16)?));
                let Some(align) = align.filter(|align| align.is_power_of_two() && *align <= 1 << 20) else {
                    return;
                };
                let at = counters.checked_add(16_u64.next_multiple_of(align));
                match (vtable.and_then(|vtable| self.plans.plan_of_vtable(vtable)), at) {
                    (Some(plan), Some(at)) => self.enqueue(number, plan, at),
                    _ => {
                        if let Some(object) = self.found.objects.get_mut(number as usize) {
                            object.cut = true;
                        }
                    }
                }
            }
            Content::Slice { of, offset, stride } => {
                let length = behind.and_then(|at| process.memory.word(at)).unwrap_or(0).min(1 << 20);
                let (Some(plan), Some(first)) = (self.plans.plan(*of), counters.checked_add(*offset)) else {
                    return;
                };
                for index in 0..length {
                    if let Some(at) = index.checked_mul(*stride).and_then(|offset| first.checked_add(offset))
                    {
                        self.enqueue(number, plan.clone(), at);
                    }
                }
            }
        }
    }

    fn enqueue(&mut self, number: u32, plan: Rc<Plan>, at: u64) {
        if let Some(object) = self.found.objects.get_mut(number as usize)
            && object.value == 0
        {
            object.value = at;
        }
        if self.queued.len() >= MAX_QUEUED {
            self.cut = true;
            if let Some(object) = self.found.objects.get_mut(number as usize) {
                object.cut = true;
            }
        } else if self.queued.insert((at, plan.id)) {
            self.queue.push((number, plan, at));
        }
    }

    fn fields(&mut self, fields: &[Field], base: u64, trail: u32, standing: Standing) {
        for field in fields.iter().rev() {
            let Some(at) = base.checked_add(field.offset) else { continue };
            let trail = self.trail(trail, field.label);
            let work = Work { plan: field.plan.clone(), at, base, trail, standing };
            if standing.aside { self.aside.push(work) } else { self.work.push(work) }
        }
    }

    /// Where we are inside of a branch of a `join!`, if this is one that its task polls and that has not ended.
    fn branch(&mut self, case: &Case, piece: (u64, u64), join: u64, standing: Standing) -> Standing {
        if !self.parted || !standing.polled() || !standing.joined || !case.pending {
            return standing;
        }
        self.raced |= standing.raced;
        let number = self.branches.len() as u32;
        self.branches.push(Draft { within: standing.branch, join, pieces: vec![piece], open: false });
        Standing { branch: Some(number), joined: false, raced: false, ..standing }
    }

    /// What follows for what a future polls, from when it ends itself.
    fn on_the_way(&mut self, plan: &Plan, standing: Standing) -> Standing {
        if !self.parted || !standing.polled() {
            return standing;
        }
        let (raced, open) = match plan.ends {
            Ends::With => (false, false),
            Ends::WithAll => return Standing { joined: true, ..standing },
            Ends::Closure => (!standing.joined, !standing.joined),
            Ends::WithAny => (true, false),
            Ends::Unknown => (true, true),
        };
        let blind = matches!(plan.body, Body::Dyn { future: false });
        if let Some(branch) = standing.branch.and_then(|branch| self.branches.get_mut(branch as usize)) {
            branch.open |= open || blind;
        }
        Standing { raced: standing.raced || raced || blind, ..standing }
    }

    /// Who owns what lies here.
    fn owner(&self, standing: Standing) -> Node {
        standing.branch.map_or(self.owner, Node::Part)
    }

    /// What a pointer leads to; the same place is met by several ways only if somebody borrows it.
    fn push_once(&mut self, plan: Rc<Plan>, at: u64, trail: u32, standing: Standing) {
        // Coroutines and handles mind that themselves.
        let minds = matches!(plan.body, Body::Coroutine(_) | Body::Handle { .. });
        self.value(&plan, at);
        if minds || self.seen.insert((at, plan.id)) {
            let branch = standing.branch.filter(|_| standing.polled());
            let branch = branch.and_then(|branch| self.branches.get_mut(branch as usize));
            if let Some(branch) = branch {
                branch.pieces.push((at, plan.size));
            }
            self.work.push(Work { plan, at, base: at, trail, standing });
        }
    }

    fn value(&mut self, plan: &Plan, at: u64) {
        self.found.values.push((at, plan.size));
    }

    fn trail(&mut self, parent: u32, label: Label) -> u32 {
        if label == Label::NONE {
            return parent;
        }
        let depth = self.trails.get(parent as usize).map_or(0, |trail| trail.depth) + 1;
        if depth >= MAX_DEPTH {
            return parent;
        }
        self.trails.push(Trail { parent, depth, label });
        (self.trails.len() - 1) as u32
    }

    fn path(&self, trail: u32) -> PathId {
        let mut steps = Vec::new();
        let mut at = trail;
        while let Some(trail) = self.trails.get(at as usize).filter(|trail| trail.depth > 0) {
            steps.push(trail.label);
            at = trail.parent;
        }
        steps.reverse();
        self.plans.labels.borrow_mut().path(&steps)
    }

    fn discriminant(&self, place: Discriminant, base: u64) -> Option<u64> {
        self.plans.process.memory.number(base.checked_add(place.offset)?, place.size)
    }

    /// A pointer that is not null.
    fn pointer(&self, at: u64) -> Option<u64> {
        self.plans.process.memory.word(at).filter(|word| *word != 0)
    }
}
