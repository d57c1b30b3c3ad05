//! The wait-for graph.

mod by_wakers;
mod group;
mod leaf;

use std::rc::Rc;
use std::sync::Arc;

use leaf::{LeafText, LeafTexts};
use rustc_hash::FxHashMap;

use super::account::Account;
use super::holders::Holders;
use super::resources::Waits;
use super::threads::ThreadNodes;
use super::wait::{ResourceKey, Wait, Waker};
use super::{CodeLocation, Edge, Holder, location};
use crate::debuginfo::types::TypeId;
use crate::tasks::layout::handles::{self, Roles};
use crate::tasks::{Examination, LeafPlace, ResourceKind, Task, TaskState, WaitsOn};

/// The most holders of one resource that are listed; the others are counted.
const MAX_HOLDERS: usize = 8;
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
    leaves: LeafTexts,
    /// How many of [`MAX_EXAMINED`] are left.
    examinations_left: usize,
    has_several_mains: bool,
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
            leaves: LeafTexts::default(),
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
        let group = self.group(wait);
        let mut edge = self.edge_of(wait, &group);
        let own = |holder: &Holder| {
            holder.task == edge.waiter && (edge.waiter.is_some() || holder.thread == edge.thread)
        };
        if group.in_line && edge.holders.iter().any(own) {
            edge.holders = edge.holders.iter().filter(|holder| !own(holder)).cloned().collect();
        }
        edge
    }

    pub(super) fn edge(&mut self, wait: &Wait) -> Edge {
        let group = self.group(wait);
        self.edge_of(wait, &group)
    }

    fn edge_of(&self, wait: &Wait, group: &Group) -> Edge {
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
            resource: self.waits.resource(wait),
            outside: outside.map(Arc::new),
            holders: group.holders.clone(),
            more_holders: group.more,
            held_elsewhere: group.elsewhere,
            unknown_handles: self.has_unknown_handles(wait),
        }
    }

    /// What is known about the leaf of a wait.
    fn waits_on(&self, wait: &Wait) -> Option<&'t WaitsOn> {
        self.task(wait.task)?.waits_on.get(wait.leaf)
    }

    fn leaf_place(&self, wait: &Wait) -> Option<&'t LeafPlace> {
        self.examination.places.get(wait.task as usize)?.leaves.get(wait.leaf)
    }

    /// Whether the handles that could end a wait are not in the table, so that they cannot be found.
    pub(super) fn has_unknown_handles(&self, wait: &Wait) -> bool {
        let path = self.leaf_place(wait).map_or("", |leaf| leaf.path);
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

    /// The id of a task, by its place in the listing.
    pub(super) fn id(&self, task: u32) -> u64 {
        self.task(task).map_or(0, |task| task.id)
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
        self.task(task)?.thread
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
        let task = self.task(wait.task);
        let Some(task) = task.filter(|_| wait.kind != ResourceKind::Lock) else { return LeafText::default() };
        // A task waits for the futures that it drives at the blocking call that drives them.
        if let Some(call) = location::blocking_call(task) {
            return LeafText { place: location::of_call(call), leaf: None };
        }
        self.leaves.of(&task.stack, wait.leaf)
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

    /// Whether all permits that a wait wants are assigned to it: its future only has to be polled.
    pub(super) fn has_been_given(&self, wait: &Wait) -> bool {
        let leaf = self.leaf_place(wait);
        let wanted = self.waits_on(wait).and_then(|on| on.wanted).unwrap_or(1);
        let mut assigned = self.holders.of_resource(wait.resource, Roles::QUEUE);
        assigned.any(|place| leaf.is_some_and(|leaf| leaf.at == place.place) && place.permits >= wanted)
    }

    /// How the handles that were found compare with the resource's own count.
    pub(super) fn account(&self, wait: &Wait) -> Account {
        self.holders.account(wait, self.waits_on(wait).and_then(|on| on.available))
    }
}
