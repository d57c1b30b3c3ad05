//! The wait-for graph as it is told.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::handles::{self, Roles};
use super::holders::{Account, Holders, role};
use super::ownership::{Holding, Node, PathId, Reference};
use super::resources::{Wait, Waits, Waker};
use super::{Edge, Holder, Resource, words};
use crate::debuginfo::types::TypeId;
use crate::tasks::{Examination, Frame, Origin, ResourceKind, TaskState};

/// Holders that are told of one resource.
const MAX_HOLDERS: usize = 8;
/// Shared objects between a task and a handle.
const MAX_WAY: usize = 64;
/// References that are looked through, in all, for somebody who does not wait himself.
const MAX_LOOKED_AT: usize = 1 << 20;

/// Tells who waits for whom.
pub(super) struct Teller<'t, 'e, 'p, 'i> {
    pub(super) examination: &'t Examination<'e, 'p, 'i>,
    pub(super) waits: &'t Waits,
    pub(super) holders: &'t Holders,
    frames: FxHashMap<(TypeId, u64), Option<Rc<Told>>>,
    told: FxHashMap<(u64, u16), Rc<Group>>,
    places: RefCell<FxHashMap<Leaf, Option<Arc<str>>>>,
    /// How many of [`MAX_LOOKED_AT`] are left.
    to_look_at: usize,
}

/// A stack, and which of its leaves.
type Leaf = (*const Frame, usize);

/// A frame as it is told.
struct Told {
    place: String,
    own: bool,
}

/// Those who can end a wait.
struct Group {
    holders: Arc<[Holder]>,
    /// There are more, outside of all tasks.
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
            places: RefCell::default(),
            to_look_at: MAX_LOOKED_AT,
        }
    }

    /// One edge for each wait for something that the program itself gives.
    pub(super) fn edges(&mut self) -> Vec<Edge> {
        let (waits, tasks) = (self.waits, &self.examination.listing.tasks);
        let is_told = |wait: &&Wait| {
            let state = tasks.get(wait.task as usize).and_then(|task| task.state);
            // A task that nobody has woken has no use for its thread.
            let awake = match wait.kind {
                ResourceKind::Thread => state == Some(TaskState::Scheduled),
                _ => state != Some(TaskState::Running) || waits.counts(wait),
            };
            wait.by != Waker::Outside && awake
        };
        waits.list.iter().filter(is_told).map(|wait| self.others(wait)).collect()
    }

    /// A wait, and who else can end it: nobody waits for his own place in the queue.
    fn others(&mut self, wait: &Wait) -> Edge {
        let mut edge = self.edge(wait);
        let own = |holder: &Holder| holder.task == edge.waiter;
        if self.group(wait).in_line && edge.holders.iter().any(own) {
            edge.holders = edge.holders.iter().filter(|holder| !own(holder)).cloned().collect();
        }
        edge
    }

    pub(super) fn edge(&mut self, wait: &Wait) -> Edge {
        let group = self.group(wait);
        Edge {
            waiter: Some(self.id(wait.task)),
            thread: self.thread(wait.task).filter(|_| wait.kind == ResourceKind::Lock),
            place: self.place(wait),
            resource: self.resource(wait),
            holders: group.holders.clone(),
            held_elsewhere: group.elsewhere,
        }
    }

    pub(super) fn resource(&self, wait: &Wait) -> Arc<Resource> {
        self.waits.resource(wait)
    }

    /// The id of a task, by its place in the listing.
    pub(super) fn id(&self, task: u32) -> u64 {
        self.examination.listing.tasks.get(task as usize).map_or(0, |task| task.id)
    }

    /// The thread that polls a task.
    fn thread(&self, task: u32) -> Option<i32> {
        self.examination.listing.tasks.get(task as usize)?.thread
    }

    /// `function at file:line` of the innermost function of the user's that waits.
    pub(super) fn place(&self, wait: &Wait) -> Option<Arc<str>> {
        // Where a thread is blocked, its own stack tells.
        let task = self.examination.listing.tasks.get(wait.task as usize)?;
        if wait.kind == ResourceKind::Lock {
            return None;
        }
        // Tasks that stand at the same place share their stack.
        let key = (task.stack.as_ptr(), wait.leaf);
        if let Some(known) = self.places.borrow().get(&key) {
            return known.clone();
        }
        let mut ways = Vec::new();
        leaves(&task.stack, None, &mut ways);
        // A wait that no future has, as the one for a thread, is told at the first leaf.
        let way = ways.get(wait.leaf).or(ways.first()).copied().flatten();
        let way = way.or_else(|| first_leaf(&task.stack));
        let place: Option<Arc<str>> = way.map(|frame| words::frame_at(frame).into());
        self.places.borrow_mut().insert(key, place.clone());
        place
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
        if let Waker::Task(of) = wait.by {
            let holder = of.map(|of| Holder {
                task: Some(self.id(of)),
                handle: "task".to_owned(),
                certain: true,
                ..Holder::default()
            });
            return Group {
                elsewhere: holder.is_none(),
                holders: holder.into_iter().collect(),
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
        let threads = self.holders.threads(wait).iter().take(MAX_HOLDERS - told.len().min(MAX_HOLDERS));
        told.extend(threads.map(|tid| Holder {
            thread: Some(*tid),
            handle: handles::name(handles::ON_STACK).to_owned(),
            ..Holder::default()
        }));
        Group { holders: told.into(), elsewhere, in_line }
    }

    /// Whether the handles that were found are those that there are.
    pub(super) fn account(&self, wait: &Wait) -> Account {
        let task = self.examination.listing.tasks.get(wait.task as usize);
        let on = task.and_then(|task| task.waits_on.get(wait.leaf));
        self.holders.account(wait, on.and_then(|on| on.available))
    }

    /// The tasks that own a handle, directly or through shared objects, nearest first.
    fn holder(&mut self, holding: &Holding, account: Account, told: &mut Vec<Holder>, elsewhere: &mut bool) {
        let certain =
            account == Account::Exact && (!holding.uncertain || self.holders.is_closed(holding.resource));
        let parts = &self.holders.ownership.parts;
        let owner = parts.whole(holding.owner);
        let mut seen = FxHashSet::from_iter([owner]);
        let way = self.way(holding.path, holding.unpolled);
        let mut queue = VecDeque::from([(owner, way, certain, holding.path)]);
        while let Some((node, rest, certain, path)) = queue.pop_front() {
            match node {
                // Whole tasks are told.
                Node::Part(_) => {}
                Node::Task(task) => {
                    let (place, _) = self.step(path);
                    let running = self.examination.listing.tasks.get(task as usize).and_then(|t| t.state)
                        == Some(TaskState::Running);
                    let holder = Holder {
                        task: Some(self.id(task)),
                        thread: self.thread(task).filter(|_| holding.handle == handles::ON_STACK),
                        variable: rest,
                        place,
                        handle: handles::name(holding.handle).to_owned(),
                        certain: certain && !running,
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
                    for reference in self.references(object, holding) {
                        let owner = parts.whole(reference.owner);
                        if seen.insert(owner) {
                            let variable = self.way(reference.path, reference.unpolled);
                            let way = join(&variable, &rest);
                            let certain = certain && !reference.uncertain;
                            queue.push_back((owner, way, certain, reference.path));
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

/// The innermost function of the user's above each wait, in the order of `waits_on`. The depth is bounded by the walk's.
fn leaves<'f>(frames: &'f [Frame], above: Option<&'f Frame>, found: &mut Vec<Option<&'f Frame>>) {
    for frame in frames {
        let own = frame.origin == Origin::User && frame.line.is_some();
        let above = if own || above.is_none() { Some(frame) } else { above };
        found.extend((0..frame.waits).map(|_| above));
        leaves(&frame.children, above, found);
    }
}
