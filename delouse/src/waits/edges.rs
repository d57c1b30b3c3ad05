//! The wait-for graph as it is told.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::handles::{self, Roles};
use super::holders::{Account, Holders, role};
use super::ownership::{Holding, Node, Ownership, PathId, Reference};
use super::resources::{Wait, Waits, Waker};
use super::{Edge, Holder, Resource, words};
use crate::debuginfo::types::TypeId;
use crate::tasks::{BlockingCall, Examination, Frame, Origin, ResourceKind, Task, TaskState, WaitsOn};

/// Holders of one resource that are listed; more are counted.
const MAX_HOLDERS: usize = 8;
/// Shared objects between a task and a handle.
const MAX_WAY: usize = 64;
/// References that are looked through, in all, for a holder that does not wait itself, and to count holders.
const MAX_LOOKED_AT: usize = 1 << 20;

/// Tells who waits for whom.
pub(super) struct Teller<'t, 'e, 'p, 'i> {
    pub(super) examination: &'t Examination<'e, 'p, 'i>,
    pub(super) waits: &'t Waits,
    pub(super) holders: &'t Holders,
    frames: FxHashMap<(TypeId, u64), Option<Rc<Told>>>,
    told: FxHashMap<(u64, u16), Rc<Group>>,
    leaves: RefCell<FxHashMap<LeafOf, LeafText>>,
    /// How many of [`MAX_LOOKED_AT`] are left.
    to_look_at: usize,
}

/// A stack, and which of its waits.
type LeafOf = (*const Frame, usize);

/// A wait in a stack, as text.
#[derive(Clone, Default)]
struct LeafText {
    /// The innermost function of the program's own that waits.
    place: Option<Arc<str>>,
    /// The innermost future.
    leaf: Option<Arc<str>>,
}

/// A frame as it is told.
struct Told {
    place: String,
    own: bool,
}

/// Those who can end a wait.
struct Group {
    holders: Arc<[Holder]>,
    /// So many more tasks are holders, too.
    more: usize,
    /// There are more than were found.
    elsewhere: bool,
    /// They wait in the queue themselves, and were given a part of it.
    in_line: bool,
}

impl<'t, 'e, 'p, 'i> Teller<'t, 'e, 'p, 'i> {
    pub(super) fn new(
        examination: &'t Examination<'e, 'p, 'i>,
        waits: &'t Waits,
        holders: &'t Holders,
    ) -> Self {
        Self {
            examination,
            waits,
            holders,
            frames: FxHashMap::default(),
            told: FxHashMap::default(),
            leaves: RefCell::default(),
            to_look_at: MAX_LOOKED_AT,
        }
    }

    /// One edge for each wait.
    pub(super) fn edges(&mut self) -> Vec<Edge> {
        let (waits, tasks) = (self.waits, &self.examination.listing.tasks);
        let is_told = |wait: &&Wait| {
            let state = tasks.get(wait.task as usize).and_then(|task| task.state);
            // A task that nobody has woken has no use for its thread.
            match wait.kind {
                ResourceKind::Thread => state == Some(TaskState::Scheduled),
                // What a blocked thread's task seems to wait for it is past.
                _ => state != Some(TaskState::Running) || waits.counts(wait),
            }
        };
        waits.list.iter().filter(is_told).map(|wait| self.others(wait)).collect()
    }

    /// A wait, and who else can end it: nobody waits for his own place in the queue.
    fn others(&mut self, wait: &Wait) -> Edge {
        let mut edge = self.edge(wait);
        let own = |holder: &Holder| {
            holder.task == edge.waiter && (edge.waiter.is_some() || holder.thread == edge.thread)
        };
        if self.group(wait).in_line && edge.holders.iter().any(own) {
            edge.holders = edge.holders.iter().filter(|holder| !own(holder)).cloned().collect();
        }
        edge
    }

    pub(super) fn edge(&mut self, wait: &Wait) -> Edge {
        let group = self.group(wait);
        let LeafText { place, leaf } = self.leaf(wait);
        let outside = if wait.by == Waker::Outside { self.waits_on(wait).cloned() } else { None };
        let (waiter, thread) = self.told_as(wait.task);
        let drives = self.task(wait.task).is_some_and(|task| !task.drives.is_empty());
        let blocks = self.thread(wait.task).filter(|_| wait.kind == ResourceKind::Lock || drives);
        Edge {
            waiter,
            thread: thread.or(blocks),
            place,
            leaf,
            resource: self.resource(wait),
            outside: outside.map(Arc::new),
            holders: group.holders.clone(),
            more_holders: group.more,
            held_elsewhere: group.elsewhere,
            unknown_handles: self.has_unknown_handles(wait),
        }
    }

    /// What the task's leaf says of a wait.
    fn waits_on(&self, wait: &Wait) -> Option<&'t WaitsOn> {
        let examination = self.examination;
        examination.listing.tasks.get(wait.task as usize)?.waits_on.get(wait.leaf)
    }

    /// Whether no table says who could end a wait: handles of it are not found where they are.
    pub(super) fn has_unknown_handles(&self, wait: &Wait) -> bool {
        let place = self.examination.places.get(wait.task as usize);
        let path = place.and_then(|place| place.leaves.get(wait.leaf)).map_or("", |leaf| leaf.path);
        match wait.by {
            // What a thread waits for is no leaf of a future, and its guards are known.
            Waker::Handles(_) if wait.kind == ResourceKind::Lock => false,
            Waker::Handles(roles) => !handles::are_known(path, roles),
            Waker::Task(of) => of.is_none(),
            Waker::Outside => false,
        }
    }

    pub(super) fn resource(&self, wait: &Wait) -> Arc<Resource> {
        self.waits.resource(wait)
    }

    /// The id of a task, by its place in the listing.
    pub(super) fn id(&self, task: u32) -> u64 {
        self.examination.listing.tasks.get(task as usize).map_or(0, |task| task.id)
    }

    fn task(&self, task: u32) -> Option<&'t Task> {
        self.examination.listing.tasks.get(task as usize)
    }

    /// A task's id, or the thread that drives it where it was found on a stack: several such have no id.
    fn told_as(&self, task: u32) -> (Option<u64>, Option<i32>) {
        match self.task(task).and_then(|task| task.found_in.as_ref()) {
            Some(call) => (None, Some(call.thread)),
            None => (Some(self.id(task)), None),
        }
    }

    /// The thread that polls a task.
    fn thread(&self, task: u32) -> Option<i32> {
        self.examination.listing.tasks.get(task as usize)?.thread
    }

    /// `function at file:line` of the innermost function of the user's that waits.
    pub(super) fn place(&self, wait: &Wait) -> Option<Arc<str>> {
        self.leaf(wait).place
    }

    /// `function at file:line` of a task of which no wait is known.
    pub(super) fn of_stack(&self, task: u32) -> Option<Arc<str>> {
        let task = self.examination.listing.tasks.get(task as usize)?;
        words::user_frame(&task.stack).map(|frame| words::frame_at(frame).into())
    }

    /// Where in the stack of its task a wait is.
    fn leaf(&self, wait: &Wait) -> LeafText {
        // Where a thread is blocked, its own stack tells.
        let task = self.examination.listing.tasks.get(wait.task as usize);
        let Some(task) = task.filter(|_| wait.kind != ResourceKind::Lock) else { return LeafText::default() };
        // What a task drives by a call that blocks, it waits for at that call.
        if let Some(call) = blocking_call(task) {
            let place = call.caller.as_ref().map(|caller| words::frame_at(caller).into());
            return LeafText { place, leaf: None };
        }
        // Tasks that stand at the same place share their stack.
        let key = (task.stack.as_ptr(), wait.leaf);
        if let Some(known) = self.leaves.borrow().get(&key) {
            return known.clone();
        }
        let mut ways = Vec::new();
        leaves(&task.stack, None, &mut ways);
        // A wait that no future has, as the one for a thread, is at the first leaf.
        let way = ways.get(wait.leaf).or(ways.first()).copied();
        let (place, leaf) =
            way.map_or_else(|| (first_leaf(&task.stack), None), |(place, leaf)| (place, Some(leaf)));
        let text = LeafText {
            place: place.map(|frame| words::frame_at(frame).into()),
            leaf: leaf.map(|leaf| leaf.function.as_str().into()),
        };
        self.leaves.borrow_mut().insert(key, text.clone());
        text
    }

    fn group(&mut self, wait: &Wait) -> Rc<Group> {
        let key = (wait.resource, self.holders.roles_of(wait).bits());
        if let Some(known) = self.told.get(&key) {
            return known.clone();
        }
        let group = Rc::new(self.make_group(wait));
        self.told.insert(key, group.clone());
        group
    }

    fn make_group(&mut self, wait: &Wait) -> Group {
        if wait.by == Waker::Outside {
            return Group { holders: [].into(), more: 0, elsewhere: false, in_line: false };
        }
        if let Waker::Task(of) = wait.by {
            let told_as = of.map(|of| self.told_as(of));
            let holder = told_as.map(|(task, thread)| Holder {
                task,
                thread,
                handle: "task".to_owned(),
                certain: true,
                ..Holder::default()
            });
            return Group {
                elsewhere: holder.is_none(),
                holders: holder.into_iter().collect(),
                more: 0,
                in_line: false,
            };
        }
        let account = self.account(wait);
        let mut elsewhere = account == Account::Missing;
        let holders = self.holders;
        let mut found: Vec<&Holding> = holders.of_wait(wait).take(4 * MAX_HOLDERS).collect();
        if found.iter().any(|holding| !holding.is_in_line()) {
            found.retain(|holding| !holding.is_in_line());
        }
        let in_line = found.first().is_some_and(|holding| holding.is_in_line());
        let is_named = |holding: &&Holding| handles::is_named(holding.handle, wait.kind);
        if holders.roles_of(wait) == Roles::ACCESS && found.iter().any(is_named) {
            found.retain(is_named);
        }
        // What was moved is seen a second time where it was before: its name of now is told.
        found.sort_by_key(|holding| holding.uncertain);
        let mut told = Vec::new();
        for holding in found {
            if told.len() >= MAX_HOLDERS {
                break;
            }
            self.holder(holding, account, &mut told, &mut elsewhere);
        }
        let more = if told.len() < MAX_HOLDERS { 0 } else { self.count_more(wait, &told) };
        let threads = self.holders.threads(wait).iter().take(MAX_HOLDERS - told.len().min(MAX_HOLDERS));
        told.extend(threads.map(|tid| Holder {
            thread: Some(*tid),
            handle: handles::name(handles::ON_STACK).to_owned(),
            ..Holder::default()
        }));
        Group { holders: told.into(), more, elsewhere, in_line }
    }

    /// Whether the handles that were found are those that there are.
    pub(super) fn account(&self, wait: &Wait) -> Account {
        let task = self.examination.listing.tasks.get(wait.task as usize);
        let on = task.and_then(|task| task.waits_on.get(wait.leaf));
        self.holders.account(wait, on.and_then(|on| on.available))
    }

    /// How many tasks are holders beside those that are `told`. Of very many references, only some are counted.
    fn count_more(&mut self, wait: &Wait, told: &[Holder]) -> usize {
        let holders = self.holders;
        let parts = &holders.ownership.parts;
        let mut seen: FxHashSet<Node> = FxHashSet::default();
        let mut queue: Vec<Node> = Vec::new();
        let told: FxHashSet<u64> = told.iter().filter_map(|holder| holder.task).collect();
        let mut more = 0;
        for holding in holders.of_wait(wait) {
            queue.push(parts.whole(holding.owner));
            while let Some(node) = queue.pop() {
                if self.to_look_at == 0 {
                    return more;
                }
                self.to_look_at -= 1;
                if !seen.insert(node) {
                    continue;
                }
                match node {
                    Node::Task(task) => more += usize::from(!told.contains(&self.id(task))),
                    Node::Object(object) => {
                        queue.extend(holders.references_to(object).map(|other| parts.whole(other.owner)));
                    }
                    Node::Part(_) | Node::Statics => {}
                }
            }
        }
        more
    }

    /// The tasks that own a handle, directly or through shared objects, nearest first.
    fn holder(&mut self, holding: &Holding, account: Account, told: &mut Vec<Holder>, elsewhere: &mut bool) {
        let certain =
            account == Account::Exact && (!holding.uncertain || self.holders.is_closed(holding.resource));
        let parts = &self.holders.ownership.parts;
        let owner = parts.whole(holding.owner);
        let mut seen = FxHashSet::from_iter([owner]);
        let way = self.way(holding.path, holding.unpolled);
        // Who has an `Arc` of nothing but the handle, has the handle.
        let is_whole = way.is_empty();
        let mut queue = VecDeque::from([(owner, way, certain, holding.path, false)]);
        while let Some((node, rest, certain, path, shared)) = queue.pop_front() {
            match node {
                // Whole tasks are told.
                Node::Part(_) => {}
                Node::Task(task) => {
                    let (place, _) = self.step(path);
                    let running = self.examination.listing.tasks.get(task as usize).and_then(|t| t.state)
                        == Some(TaskState::Running);
                    let (id, thread) = self.told_as(task);
                    let on_stack = self.thread(task).filter(|_| holding.handle == handles::ON_STACK);
                    let holder = Holder {
                        task: id,
                        thread: thread.or(on_stack),
                        variable: rest,
                        place,
                        handle: handles::name(holding.handle).to_owned(),
                        certain: certain && !running,
                        shared,
                    };
                    add(told, holder);
                    if told.len() >= MAX_HOLDERS {
                        return;
                    }
                }
                Node::Statics => *elsewhere = true,
                Node::Object(object) => {
                    *elsewhere |= self.holders.account_of_object(object) == Account::Missing;
                    if seen.len() > MAX_WAY {
                        continue;
                    }
                    let several = holders_of(&self.holders.ownership, object) > 1;
                    let shared = shared || several && !(is_whole && node == owner);
                    for reference in self.references(object, holding) {
                        let owner = parts.whole(reference.owner);
                        if seen.insert(owner) {
                            let variable = self.way(reference.path, reference.unpolled);
                            let way = join(&variable, &rest);
                            let certain = certain && !reference.uncertain;
                            queue.push_back((owner, way, certain, reference.path, shared));
                        }
                    }
                }
            }
        }
    }

    /// Some of those who refer to the shared object that a handle is in. Where hundreds wait for a `Notify` that
    /// each of them has, the one that does not wait comes first: it is the one that will notify them.
    fn references(&mut self, object: u32, holding: &Holding) -> Vec<&'t Reference> {
        let (waits, holders) = (self.waits, self.holders);
        let all = holders.references_to(object);
        if !role(holding).has(Roles::ACCESS) {
            return all.take(4 * MAX_HOLDERS).collect();
        }
        let is_waiting = |reference: &&Reference| {
            let task = holders.ownership.parts.task_of(reference.owner);
            task.is_some_and(|task| waits.of_task(task).iter().any(|wait| wait.resource == holding.resource))
        };
        let all: Vec<&Reference> = all.take(self.to_look_at.max(4 * MAX_HOLDERS)).collect();
        self.to_look_at = self.to_look_at.saturating_sub(all.len());
        let (waiting, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_waiting);
        others.into_iter().chain(waiting).take(4 * MAX_HOLDERS).collect()
    }

    /// A way, with the variable in front that has the future that is not polled.
    fn way(&mut self, path: PathId, unpolled: Option<PathId>) -> String {
        let (_, inner) = self.step(path);
        let Some(outer) = unpolled else { return inner };
        let rest = inner.strip_prefix("(awaited)").unwrap_or(&inner);
        join(&self.step(outer).1, rest.strip_prefix('.').unwrap_or(rest))
    }

    /// Where a way begins, and what follows from there.
    fn step(&mut self, path: PathId) -> (Option<String>, String) {
        let examination = self.examination;
        let frames = &mut self.frames;
        let mut told = |of: TypeId, state: u64| {
            let frame = frames.entry((of, state)).or_insert_with(|| {
                let frame = examination.frame(of, state)?;
                Some(Rc::new(Told { own: frame.origin == Origin::User, place: words::frame_at(&frame) }))
            });
            frame.clone()
        };
        let (frame, variable) = self
            .holders
            .ownership
            .labels
            .tell(path, |of, state| told(of, state).is_some_and(|told| told.own));
        (frame.and_then(|(of, state)| told(of, state)).map(|told| told.place.clone()), variable)
    }
}

/// How many strong pointers to a shared object there are.
fn holders_of(ownership: &Ownership, object: u32) -> u64 {
    ownership.objects.get(object as usize).map_or(0, |object| object.strong)
}

/// The call that a task, or a thread with a future of a library's, is blocked in.
fn blocking_call(task: &Task) -> Option<&BlockingCall> {
    let is_own = |frame: &&Frame| frame.origin == Origin::User;
    let of_library = || words::user_frame(&task.stack).filter(is_own).is_none();
    let innermost = task.drives.last().map(|driven| &driven.call);
    innermost.or_else(|| task.found_in.as_ref().filter(|_| of_library()))
}

/// Adds a holder, unless it was told. Of two variables of one function, one is what is left of the other when it was
/// moved, unless counters confirm both.
fn add(told: &mut Vec<Holder>, holder: Holder) {
    let same = |known: &&mut Holder| {
        (known.task, known.thread) == (holder.task, holder.thread)
            && (&known.place, &known.handle) == (&holder.place, &holder.handle)
            && (known.variable == holder.variable || !known.certain || !holder.certain)
    };
    match told.iter_mut().find(same) {
        Some(known) if holder.certain => *known = holder,
        Some(_) => {}
        None => told.push(holder),
    }
}

fn join(first: &str, second: &str) -> String {
    match (first, second) {
        ("", way) | (way, "") => way.to_owned(),
        (first, second) if second.starts_with('[') => format!("{first}{second}"),
        (first, second) => format!("{first}.{second}"),
    }
}

/// The innermost function of the user's above the first leaf of a stack.
fn first_leaf(stack: &[Frame]) -> Option<&Frame> {
    let path = std::iter::successors(stack.first(), |frame| frame.children.first());
    path.filter(|frame| frame.origin == Origin::User && frame.line.is_some()).last().or(stack.first())
}

/// A future that waits, and the innermost function of the user's above it.
type Way<'f> = (Option<&'f Frame>, &'f Frame);

/// That of each wait, in the order of `waits_on`. The depth is bounded by the walk's.
fn leaves<'f>(frames: &'f [Frame], above: Option<&'f Frame>, found: &mut Vec<Way<'f>>) {
    for frame in frames {
        let own = frame.origin == Origin::User && frame.line.is_some();
        let above = if own || above.is_none() { Some(frame) } else { above };
        found.extend((0..frame.waits).map(|_| (above, frame)));
        leaves(&frame.children, above, found);
    }
}
