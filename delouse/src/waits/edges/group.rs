//! The holders that can end a wait: which tasks and threads have them, and in which variables.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::super::account::Account;
use super::super::holders::role;
use super::super::ownership::{Holding, Node, Ownership, PathId, Reference};
use super::super::wait::{Wait, Waker};
use super::super::{CodeLocation, Holder};
use super::{Edges, Group, MAX_HOLDERS, VariableFrame};
use crate::debuginfo::types::TypeId;
use crate::tasks::layout::handles::{self, Roles};
use crate::tasks::{Origin, TaskState};

/// The most shared objects between a task and a handle.
const MAX_WAY: usize = 64;

impl<'t> Edges<'t, '_, '_, '_> {
    pub(super) fn make_group(&mut self, wait: &Wait) -> Group {
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
    pub(super) fn holder(
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
                    let running = self.task(task).and_then(|t| t.state) == Some(TaskState::Running);
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
