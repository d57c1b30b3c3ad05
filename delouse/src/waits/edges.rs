//! The wait-for graph.

mod by_wakers;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::account::Account;
use super::holders::{Holders, role};
use super::ownership::{Holding, Node, Ownership, PathId, Reference};
use super::resources::Waits;
use super::threads::ThreadNodes;
use super::wait::{ResourceKey, Wait, Waker};
use super::{CodeLocation, Edge, Holder, Resource, location};
use crate::debuginfo::types::TypeId;
use crate::tasks::layout::handles::{self, Roles};
use crate::tasks::{Examination, Frame, Origin, ResourceKind, Task, TaskState, WaitsOn};

/// The most holders of one resource that are listed; the others are counted.
const MAX_HOLDERS: usize = 8;
/// The most shared objects between a task and a handle.
const MAX_WAY: usize = 64;
/// The most references that are examined in all, to find a holder that does not wait itself and to count holders.
const MAX_EXAMINED: usize = 1 << 20;

/// Makes the edges of the graph.
pub(super) struct Edges<'t, 'e, 'p, 'i> {
    pub(super) examination: &'t Examination<'e, 'p, 'i>,
    pub(super) waits: &'t Waits,
    pub(super) holders: &'t Holders,
    frames: FxHashMap<(TypeId, u64), Option<Rc<VariableFrame>>>,
    groups: FxHashMap<(ResourceKey, u16), Rc<Group>>,
    pub(super) threads: &'t ThreadNodes,
    leaves: RefCell<FxHashMap<LeafOf, LeafText>>,
    /// How many of [`MAX_EXAMINED`] are left.
    examinations_left: usize,
    has_several_mains: bool,
}

/// A stack, and the index of one of its waits.
type LeafOf = (*const Frame, usize);

/// A wait in a stack, as text.
#[derive(Clone, Default)]
struct LeafText {
    /// The innermost function that waits and belongs to the program, not to a library.
    place: Option<Arc<CodeLocation>>,
    /// The innermost future.
    leaf: Option<Arc<str>>,
}

/// A function that has a variable.
struct VariableFrame {
    place: Arc<CodeLocation>,
    is_user: bool,
}

/// The holders that can end a wait.
struct Group {
    holders: Arc<[Holder]>,
    /// How many further tasks are holders.
    more: usize,
    /// There are holders that were not found.
    elsewhere: bool,
    /// They are places in the queue, to which some permits are assigned.
    in_line: bool,
}

impl<'t, 'e, 'p, 'i> Edges<'t, 'e, 'p, 'i> {
    pub(super) fn new(
        examination: &'t Examination<'e, 'p, 'i>,
        waits: &'t Waits,
        holders: &'t Holders,
        threads: &'t ThreadNodes,
    ) -> Self {
        Self {
            examination,
            waits,
            holders,
            threads,
            frames: FxHashMap::default(),
            groups: FxHashMap::default(),
            leaves: RefCell::default(),
            examinations_left: MAX_EXAMINED,
            has_several_mains: examination.listing.tasks.get(1).is_some_and(|task| task.id == 0),
        }
    }

    /// One edge for each wait.
    pub(super) fn all(&mut self) -> Vec<Edge> {
        let (waits, tasks) = (self.waits, &self.examination.listing.tasks);
        let is_listed = |wait: &&Wait| {
            let task = tasks.get(wait.task as usize);
            let state = task.and_then(|task| task.state);
            let drives = task.is_some_and(|task| !task.drives.is_empty());
            match wait.kind {
                // A task that nothing has woken does not need its thread.
                ResourceKind::Thread => state == Some(TaskState::Scheduled),
                // A running task has passed what it waited for before. It waits for the lock that blocks its thread, or
                // for futures that it drives.
                _ => state != Some(TaskState::Running) || waits.blocks(wait) || drives && waits.counts(wait),
            }
        };
        waits.list.iter().filter(is_listed).map(|wait| self.edge_to_others(wait)).collect()
    }

    /// The edge of a wait, without the waiter's own place in the queue, which does not block it.
    fn edge_to_others(&mut self, wait: &Wait) -> Edge {
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
        let outside = if self.is_outside(wait) { self.waits_on(wait).cloned() } else { None };
        let (waiter, thread) = self.identity(wait.task);
        let drives = self.task(wait.task).is_some_and(|task| !task.drives.is_empty());
        let blocks = self.thread(wait.task).filter(|_| wait.blocks_thread || drives);
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

    /// What is known about the leaf of a wait.
    fn waits_on(&self, wait: &Wait) -> Option<&'t WaitsOn> {
        let examination = self.examination;
        examination.listing.tasks.get(wait.task as usize)?.waits_on.get(wait.leaf)
    }

    /// Whether the handles that could end a wait are not in the table, so that they cannot be found.
    pub(super) fn has_unknown_handles(&self, wait: &Wait) -> bool {
        let place = self.examination.places.get(wait.task as usize);
        let path = place.and_then(|place| place.leaves.get(wait.leaf)).map_or("", |leaf| leaf.path);
        match wait.by {
            // A lock that blocks a thread is no leaf of a future; its guards are in the table.
            Waker::Handles(_) if wait.blocks_thread => false,
            Waker::Handles(roles) => !handles::are_known(path, roles),
            Waker::Task(of) => of.is_none(),
            Waker::Wakers(_) => !self.is_outside(wait),
            Waker::Outside => false,
        }
    }

    /// Whether it is shown as a wait that no task can end.
    fn is_outside(&self, wait: &Wait) -> bool {
        match wait.by {
            Waker::Outside => true,
            Waker::Wakers(_) => {
                matches!(wait.kind, ResourceKind::Unknown | ResourceKind::Notify)
                    || wait.resource == ResourceKey::Unknown
            }
            Waker::Handles(_) | Waker::Task(_) => false,
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

    /// Whether a task only represents a thread.
    pub(super) fn is_thread(&self, task: u32) -> bool {
        self.threads.thread(task).is_some()
    }

    /// A task's id. Of several main futures, those that were found on stacks are told apart by the threads that drive them.
    pub(super) fn identity(&self, task: u32) -> (Option<u64>, Option<i32>) {
        if let Some(tid) = self.threads.thread(task) {
            return (None, Some(tid));
        }
        match self.task(task).and_then(|task| task.found_in.as_ref()) {
            Some(call) if self.has_several_mains => (None, Some(call.thread)),
            _ => (Some(self.id(task)), None),
        }
    }

    /// The thread that polls a task.
    fn thread(&self, task: u32) -> Option<i32> {
        self.examination.listing.tasks.get(task as usize)?.thread
    }

    /// `function at file:line` of the innermost user function that waits.
    pub(super) fn place(&self, wait: &Wait) -> Option<Arc<CodeLocation>> {
        self.leaf(wait).place
    }

    /// `function at file:line` of a task of which no wait is known.
    pub(super) fn of_stack(&self, task: u32) -> Option<Arc<CodeLocation>> {
        location::of_task(&self.task(task)?.stack)
    }

    /// Where in the stack of its task a wait is.
    fn leaf(&self, wait: &Wait) -> LeafText {
        if let Some(thread) = self.threads.wait(wait.task).filter(|_| wait.blocks_thread)
            && (wait.kind != ResourceKind::Lock || self.threads.thread(wait.task).is_some())
        {
            let place = CodeLocation::of_frame(&thread.caller);
            return LeafText { place: Some(place.into()), leaf: None };
        }
        // For a lock that blocks a thread, the thread's own stack shows the place.
        let task = self.examination.listing.tasks.get(wait.task as usize);
        let Some(task) = task.filter(|_| wait.kind != ResourceKind::Lock) else { return LeafText::default() };
        // A task waits for the futures that it drives at the blocking call that drives them.
        if let Some(call) = location::blocking_call(task) {
            return LeafText { place: location::of_call(call), leaf: None };
        }
        // Tasks that are suspended at the same place share their stack.
        let key = (task.stack.as_ptr(), wait.leaf);
        if let Some(known) = self.leaves.borrow().get(&key) {
            return known.clone();
        }
        let mut found = Vec::new();
        leaves(&task.stack, None, &mut found);
        // A wait that belongs to no future, such as the wait for a thread, is shown at the first leaf.
        let found = found.get(wait.leaf).or(found.first()).copied();
        let (place, leaf) =
            found.map_or_else(|| (first_leaf(&task.stack), None), |(place, leaf)| (place, Some(leaf)));
        let text = LeafText {
            place: place.map(|frame| CodeLocation::of_frame(frame).into()),
            leaf: leaf.map(|leaf| leaf.function.as_str().into()),
        };
        self.leaves.borrow_mut().insert(key, text.clone());
        text
    }

    fn group(&mut self, wait: &Wait) -> Rc<Group> {
        let key = (wait.resource, self.holders.roles_of(wait).bits());
        if let Some(known) = self.groups.get(&key) {
            return known.clone();
        }
        let group = Rc::new(self.make_group(wait));
        self.groups.insert(key, group.clone());
        group
    }

    fn make_group(&mut self, wait: &Wait) -> Group {
        if wait.by == Waker::Outside || wait.is_by_wakers() {
            return Group { holders: [].into(), more: 0, elsewhere: false, in_line: false };
        }
        if let Waker::Task(of) = wait.by {
            let identity = of.map(|of| self.identity(of));
            let holder = identity.map(|(task, thread)| Holder {
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
        // A handle that was moved is found at its old place, too, where it is uncertain: the present place comes first.
        found.sort_by_key(|holding| holding.uncertain);
        let mut listed = Vec::new();
        for holding in found {
            if listed.len() >= MAX_HOLDERS {
                break;
            }
            self.holder(holding, account, &mut listed, &mut elsewhere);
        }
        let more = if listed.len() < MAX_HOLDERS { 0 } else { self.count_more(wait, &listed) };
        let threads = self.holders.threads(wait).iter().take(MAX_HOLDERS - listed.len().min(MAX_HOLDERS));
        listed.extend(threads.map(|tid| Holder {
            thread: Some(*tid),
            handle: handles::name(handles::ON_STACK).to_owned(),
            ..Holder::default()
        }));
        Group { holders: listed.into(), more, elsewhere, in_line }
    }

    /// Whether all permits that a wait wants are assigned to it: its future only has to be polled.
    pub(super) fn has_been_given(&self, wait: &Wait) -> bool {
        let leaf =
            self.examination.places.get(wait.task as usize).and_then(|place| place.leaves.get(wait.leaf));
        let on = self.task(wait.task).and_then(|task| task.waits_on.get(wait.leaf));
        let wanted = on.and_then(|on| on.wanted).unwrap_or(1);
        let mut assigned = self.holders.of_resource(wait.resource, Roles::QUEUE);
        assigned.any(|place| leaf.is_some_and(|leaf| leaf.at == place.place) && place.permits >= wanted)
    }

    /// How the handles that were found compare with the resource's own count.
    pub(super) fn account(&self, wait: &Wait) -> Account {
        let task = self.examination.listing.tasks.get(wait.task as usize);
        let on = task.and_then(|task| task.waits_on.get(wait.leaf));
        self.holders.account(wait, on.and_then(|on| on.available))
    }

    /// How many tasks are holders in addition to those `listed`. Counting stops after [`MAX_EXAMINED`] references.
    fn count_more(&mut self, wait: &Wait, listed: &[Holder]) -> usize {
        let holders = self.holders;
        let parts = &holders.ownership.parts;
        let mut seen: FxHashSet<Node> = FxHashSet::default();
        let mut queue: Vec<Node> = Vec::new();
        let listed: FxHashSet<u64> = listed.iter().filter_map(|holder| holder.task).collect();
        let mut more = 0;
        for holding in holders.of_wait(wait) {
            queue.push(parts.whole(holding.owner));
            while let Some(node) = queue.pop() {
                if self.examinations_left == 0 {
                    return more;
                }
                self.examinations_left -= 1;
                if !seen.insert(node) {
                    continue;
                }
                match node {
                    Node::Task(task) => more += usize::from(!listed.contains(&self.id(task))),
                    Node::Object(object) => {
                        queue.extend(holders.owners_of(object).map(|other| parts.whole(other.owner)));
                    }
                    Node::Part(_) | Node::Statics => {}
                }
            }
        }
        more
    }

    /// Adds the tasks that own a handle to `listed`, directly or through shared objects, nearest first.
    fn holder(
        &mut self,
        holding: &Holding,
        account: Account,
        listed: &mut Vec<Holder>,
        elsewhere: &mut bool,
    ) {
        let certain =
            account == Account::Exact && (!holding.uncertain || self.holders.is_closed(holding.resource));
        let parts = &self.holders.ownership.parts;
        let owner = parts.whole(holding.owner);
        let mut seen = FxHashSet::from_iter([owner]);
        let way = self.way(holding.path, holding.unpolled);
        // An `Arc` that contains only the handle counts as the handle.
        let is_whole = way.is_empty();
        let mut queue = VecDeque::from([(owner, way, certain, holding.path, false)]);
        while let Some((node, rest, certain, path, shared)) = queue.pop_front() {
            match node {
                // `whole` has replaced parts by their tasks.
                Node::Part(_) => {}
                Node::Task(task) => {
                    let (place, _) = self.step(path);
                    let running = self.examination.listing.tasks.get(task as usize).and_then(|t| t.state)
                        == Some(TaskState::Running);
                    let (id, thread) = self.identity(task);
                    let is_on_stack = matches!(holding.handle, handles::ON_STACK | handles::ON_WAITING_STACK);
                    let on_stack = self.thread(task).filter(|_| is_on_stack);
                    let holder = Holder {
                        task: id,
                        thread: thread.or(on_stack),
                        variable: rest,
                        place,
                        handle: handles::name(holding.handle).to_owned(),
                        certain: certain && !running,
                        shared,
                    };
                    add(listed, holder);
                    if listed.len() >= MAX_HOLDERS {
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

    /// Some of the references to the shared object that contains a handle. If hundreds of tasks wait for a `Notify`
    /// that each of them refers to, a task that does not wait comes first: it is the one that will notify the others.
    fn references(&mut self, object: u32, holding: &Holding) -> Vec<&'t Reference> {
        let (waits, holders) = (self.waits, self.holders);
        let all = holders.owners_of(object);
        if !role(holding).has(Roles::ACCESS) {
            return all.take(4 * MAX_HOLDERS).collect();
        }
        let is_waiting = |reference: &&Reference| {
            let task = holders.ownership.parts.task_of(reference.owner);
            task.is_some_and(|task| waits.of_task(task).iter().any(|wait| wait.resource == holding.resource))
        };
        let all: Vec<&Reference> = all.take(self.examinations_left.max(4 * MAX_HOLDERS)).collect();
        self.examinations_left = self.examinations_left.saturating_sub(all.len());
        let (waiting, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_waiting);
        others.into_iter().chain(waiting).take(4 * MAX_HOLDERS).collect()
    }

    /// The path to a handle as text; it begins with the variable that has the future that is not polled, if any.
    fn way(&mut self, path: PathId, unpolled: Option<PathId>) -> String {
        let (_, inner) = self.step(path);
        let Some(outer) = unpolled else { return inner };
        let rest = inner.strip_prefix("(awaited)").unwrap_or(&inner);
        join(&self.step(outer).1, rest.strip_prefix('.').unwrap_or(rest))
    }

    /// The function where a path begins, and the path from there as text.
    fn step(&mut self, path: PathId) -> (Option<Arc<CodeLocation>>, String) {
        let examination = self.examination;
        let frames = &mut self.frames;
        let mut owner = |of: TypeId, state: u64| {
            let frame = frames.entry((of, state)).or_insert_with(|| {
                let frame = examination.frame(of, state)?;
                Some(Rc::new(VariableFrame {
                    is_user: frame.origin == Origin::User,
                    place: CodeLocation::of_frame(&frame).into(),
                }))
            });
            frame.clone()
        };
        let paths = &self.holders.ownership.paths;
        let labels = &examination.layouts.labels;
        let is_own = |of, state| owner(of, state).is_some_and(|owner| owner.is_user);
        let (frame, variable) = paths.text(labels, path, is_own);
        (frame.and_then(|(of, state)| owner(of, state)).map(|owner| owner.place.clone()), variable)
    }
}

/// How many strong pointers to a shared object there are.
fn holders_of(ownership: &Ownership, object: u32) -> u64 {
    ownership.objects.get(object as usize).map_or(0, |object| object.strong)
}

/// Adds a holder, unless it is listed. Of two variables of one function, one is taken for a stale copy of the other,
/// unless counters confirm both.
fn add(listed: &mut Vec<Holder>, holder: Holder) {
    let same = |known: &&mut Holder| {
        (known.task, known.thread) == (holder.task, holder.thread)
            && (&known.place, &known.handle) == (&holder.place, &holder.handle)
            && (known.variable == holder.variable || !known.certain || !holder.certain)
    };
    match listed.iter_mut().find(same) {
        Some(known) if holder.certain || is_unnamed(known) => *known = holder,
        Some(_) => {}
        None => listed.push(holder),
    }
}

/// Whether a variable has a number only: it is a temporary, which may have been moved to a variable with a name.
fn is_unnamed(holder: &Holder) -> bool {
    holder.variable.starts_with(|c: char| c.is_ascii_digit())
}

fn join(first: &str, second: &str) -> String {
    match (first, second) {
        ("", way) | (way, "") => way.to_owned(),
        (first, second) if second.starts_with('[') => format!("{first}{second}"),
        (first, second) => format!("{first}.{second}"),
    }
}

/// The innermost user function above the first leaf of a stack.
fn first_leaf(stack: &[Frame]) -> Option<&Frame> {
    let path = std::iter::successors(stack.first(), |frame| frame.children.first());
    path.filter(|frame| frame.origin == Origin::User && frame.line.is_some()).last().or(stack.first())
}

/// The innermost user function above a future that waits, and the future.
type LeafFrames<'f> = (Option<&'f Frame>, &'f Frame);

/// The frames of each wait, in the order of `waits_on`. The walk that made the stack has bounded its depth.
fn leaves<'f>(frames: &'f [Frame], above: Option<&'f Frame>, found: &mut Vec<LeafFrames<'f>>) {
    for frame in frames {
        let own = frame.origin == Origin::User && frame.line.is_some();
        let above = if own || above.is_none() { Some(frame) } else { above };
        found.extend((0..frame.waits).map(|_| (above, frame)));
        leaves(&frame.children, above, found);
    }
}
