//! The list of all tasks.

mod driven;

use std::sync::Arc;

use rustc_hash::FxHashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::candidates::{Candidate, Candidates};
use super::contexts::{self, ThreadContext};
use super::facts::{self, Notes};
use super::header::{Flavor, Headers, Kind, Scheduler, Stage, State};
use super::knowledge::Knowledge;
use super::plan::Plan;
use super::process::Process;
use super::roots::Root;
use super::runtimes::{Runtime, Runtimes};
use super::stack::Stacks;
use super::walk::{UNKNOWN_STATE, Walker};
use super::{
    Examination, Frame, LeafPlace, Place, Task, TaskKind, TaskState, WaitsOn, by_symbols, running, scan,
};
use crate::debuginfo::types::{TypeId, Types};
use crate::snapshot::Snapshot;
use crate::snapshot::room::{self, Shortage};

/// How to look.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// What was added to the addresses in the executable when it was loaded.
    pub(crate) bias: u64,
    /// How many bytes of memory may be scanned for tasks that are on no list: 0 for none. A gigabyte costs
    /// about a tenth of a second of an image, half of one of anything else.
    pub(crate) scan: u64,
    /// The monotonic clock at the moment of capture, in nanoseconds, where it is known.
    pub(crate) now: Option<u64>,
    /// Whether to tell where tasks lie, too.
    pub(crate) places: bool,
    /// Whether to look for the runtimes that threads have entered, and for the futures that they drive.
    pub(crate) entered: bool,
}

/// Every task that was found, and what is missing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Listing {
    /// Ordered by id.
    pub tasks: Vec<Task>,
    /// Which thread polls which task: thread id, task id.
    pub running: Vec<(i32, u64)>,
    /// How many tasks each thread's scheduler has taken from its queues: thread id, count. While it stays the
    /// same, the thread is inside one poll, or it is idle.
    #[serde(default)]
    pub rounds: Vec<(i32, u64)>,
    /// What is missing or doubtful.
    pub notes: Vec<String>,
    /// Nothing could be listed, for the debug information has no types.
    pub without_types: bool,
    /// Why debug information or tasks were not read that are there: what it would have taken of the program's memory.
    #[serde(skip)]
    pub shortage: Option<String>,
}

/// Lists every task of every runtime in `snapshot`, with its stack and what it waits for, and shows them to
/// `look` together with what they were read with.
///
/// Polls nothing and runs nothing. Costs about a microsecond a task and some milliseconds for each unit of
/// debug information that is touched for the first time by `types`.
pub(crate) fn examine<R>(
    snapshot: &dyn Snapshot,
    types: &Types<'_>,
    roots: &[Root],
    options: &Options,
    look: impl FnOnce(Examination<'_, '_, '_>) -> R,
) -> R {
    examine_with(snapshot, &Knowledge::new(types, options.bias), roots, options, look)
}

/// The same for who looks at one program again and again.
pub(crate) fn examine_with<R>(
    snapshot: &dyn Snapshot,
    knowledge: &Knowledge<'_, '_>,
    roots: &[Root],
    options: &Options,
    look: impl FnOnce(Examination<'_, '_, '_>) -> R,
) -> R {
    let notes = knowledge.notes.clone();
    let process = Process::new(snapshot, knowledge.program);
    let is_short = || process.types.image().shortage().map(|shortage| shortage.to_string());
    let Some(kinds) = &knowledge.kinds else {
        let mut advice = Notes::default();
        let tasks = by_symbols::list(&process, knowledge, roots, options, &mut advice);
        let mut notes = if tasks.is_empty() && is_short().is_none() { notes } else { advice };
        driven::note_all(&process, knowledge, &mut notes);
        let notes = notes.into_vec();
        let places = vec![Place::default(); tasks.len()];
        let listing =
            Listing { tasks, notes, without_types: true, shortage: is_short(), ..Listing::default() };
        return look(Examination {
            process: &process,
            listing,
            places,
            runtime_threads: Vec::new(),
            idle_workers: Vec::new(),
            mains: Vec::new(),
            frame: &|_, _| None,
        });
    };
    let mut notes = notes;
    let headers = Headers::new(&process, kinds);
    let vtables = knowledge.vtables(&process);
    let expected = knowledge.tasks.get();
    let mut lister = Lister {
        process: &process,
        headers: &headers,
        knowledge,
        walker: Walker::new(&process, &knowledge.plans, &knowledge.trails),
        stacks: Stacks::new(&knowledge.plans, &knowledge.stacks),
        options,
        tasks: Vec::new(),
        places: Vec::new(),
        early: Early::default(),
        shortage: None,
        notes: Notes::default(),
    };
    // There may be no room for as many, and fewer tasks now.
    let _as_it_goes = lister.tasks.try_reserve(expected);
    let read = |header, kind: &Kind| lister.read_early(header, kind);
    let candidates = scan::headers(&process, &headers, vtables, options.scan, &mut notes, expected, read);
    lister.notes = notes;
    let mut runtimes = Runtimes::new(&process, &headers, &candidates);
    let contexts = lister.find(&mut runtimes, roots, &candidates);
    let running: Vec<(i32, u64)> =
        contexts.iter().filter_map(|context| Some((context.tid, context.task?))).collect();
    let rounds = contexts.iter().filter_map(|context| Some((context.tid, context.rounds?))).collect();
    let mains = lister.futures(roots);
    if options.entered {
        lister.driven(&mains, &running);
    }
    let Lister { mut tasks, mut places, stacks, mut notes, shortage, .. } = lister;
    if let Some(shortage) = shortage {
        notes.add(format!("only {} tasks were read: {shortage}", tasks.len()));
    }
    let unread = is_short();
    if let Some(missing) = process.types.missing().filter(|_| unread.is_none()) {
        notes.add(format!("some types are missing, so some stacks may be short: {missing}"));
    }
    if let Some(shortage) = &unread {
        notes.add(format!(
            "some types were not read, so stacks and what tasks hold are not complete: {shortage}"
        ));
    }
    let shortage = unread.or_else(|| shortage.map(|shortage| shortage.to_string()));
    sort_by_id(&mut tasks, &mut places);
    // Some are remains each time.
    knowledge.tasks.set(tasks.len() + tasks.len() / 16);
    let mut listing =
        Listing { tasks, running, rounds, notes: notes.into_vec(), without_types: false, shortage };
    running::join(&mut listing);
    let frame = |of, state| stacks.coroutine(of, state);
    // A worker is a task of the blocking pool to tokio, which is on no list of ours.
    let polls = |context: &ThreadContext| {
        context.task.is_some_and(|id| listing.tasks.binary_search_by_key(&id, |task| task.id).is_ok())
    };
    let idle = contexts.iter().filter(|context| context.handle.is_some() && !polls(context));
    let runtime_threads: Vec<i32> = idle.clone().map(|context| context.tid).collect();
    // Where not all tasks were found, it may be polling one of the others.
    let is_worker = |context: &&ThreadContext| context.task.is_some() && candidates.are_all();
    let idle_workers: Vec<i32> = idle.filter(is_worker).map(|context| context.tid).collect();
    let main = |root: &Root| match root {
        Root::Future { address, .. } => Some(*address),
        _ => None,
    };
    look(Examination {
        process: &process,
        listing,
        places,
        runtime_threads,
        idle_workers,
        mains: roots.iter().filter_map(main).collect(),
        frame: &frame,
    })
}

/// The list alone, made twice: the second time, ways are followed that the first one walked, and lead to the same.
#[cfg(test)]
pub(crate) fn list(snapshot: &dyn Snapshot, types: &Types<'_>, roots: &[Root], options: &Options) -> Listing {
    let knowledge = Knowledge::new(types, options.bias);
    let list = || examine_with(snapshot, &knowledge, roots, options, |examination| examination.listing);
    let (walked, followed) = (list(), list());
    let text = |listing: &Listing| format!("{listing:#?}");
    assert_eq!(text(&walked), text(&followed));
    followed
}

struct Lister<'l, 'p, 'i> {
    process: &'l Process<'p, 'i>,
    headers: &'l Headers<'l, 'p, 'i>,
    knowledge: &'l Knowledge<'p, 'i>,
    walker: Walker<'l, 'p, 'i>,
    stacks: Stacks<'l, 'p, 'i>,
    options: &'l Options,
    tasks: Vec<Task>,
    /// In the same order, where they are wanted.
    places: Vec<Place>,
    early: Early,
    /// Why no more tasks are read.
    shortage: Option<Shortage>,
    notes: Notes,
}

/// The first of the tasks: those that were read before it was known whether a list leads to them. What is left of freed
/// tasks is among them.
#[derive(Default)]
struct Early {
    /// Which of them are tasks.
    stay: Vec<bool>,
    /// Those whose stacks are not shown to their end.
    cut: Vec<(usize, &'static str)>,
}

impl<'l, 'p, 'i> Lister<'l, 'p, 'i> {
    /// Finds runtimes and tasks by every way there is, and adds the tasks.
    fn find(
        &mut self,
        runtimes: &mut Runtimes<'_, 'l, 'p, 'i>,
        roots: &[Root],
        candidates: &Candidates,
    ) -> Vec<ThreadContext> {
        let vtables = self.knowledge.vtables(self.process);
        // The vtables of a few tasks tell the types of all schedulers.
        for vtable in vtables.iter().take(64) {
            if let Some(kind) = self.headers.kind(*vtable) {
                runtimes.learn(&kind);
            }
        }
        let mut own = None;
        for root in roots {
            match root {
                Root::Handle { address } => runtimes.add_handle(*address, &mut self.notes),
                // A handle: which scheduler, and the `Arc` of it.
                Root::Own { address } => own = self.process.memory.word(address.wrapping_add(8)),
                Root::Future { .. } => {}
            }
        }
        let learn = || contexts::Routes::learn(self.process);
        let routes = self.knowledge.contexts.get_or_init(learn).as_ref();
        let contexts = contexts::thread_contexts(self.process, routes, &mut self.notes);
        let entered = contexts.iter().filter(|_| self.options.entered);
        for handle in entered.filter_map(|context| context.handle) {
            runtimes.add_handle(handle, &mut self.notes);
        }
        for Candidate { header, kind, .. } in candidates.iter().filter(|c| c.list().is_none()) {
            if let Scheduler::Shared(_, flavor) = kind.scheduler
                && self.is_sound(*header, kind)
                && let Some(place) = header.checked_add(kind.scheduler_at)
            {
                runtimes.learn(kind);
                runtimes.add(flavor, place, &mut self.notes);
            }
        }
        // In the order of their addresses: what is next to each other is read at once.
        for candidate in candidates.iter() {
            let Some(list) = candidate.list().filter(|list| Some(*list) != own) else { continue };
            let runtime = runtimes.found.get(&list);
            match candidate.read {
                Some(at) => self.keep(at, runtime),
                None => self.task(candidate.header, &candidate.kind, runtime),
            }
        }
        let mut others: Vec<(u64, u64)> = runtimes.others.iter().map(|(h, s)| (*h, *s)).collect();
        others.sort_unstable();
        for (header, shared) in others {
            if Some(shared) != own
                && let Some(kind) = self.headers.kind_of(header)
            {
                self.task(header, &kind, runtimes.found.get(&shared));
            }
        }
        for Candidate { header, kind, .. } in candidates.iter().filter(|c| c.list().is_none()) {
            if self.belongs(*header, kind) {
                let shared = self.process.memory.word(header.wrapping_add(kind.scheduler_at));
                if shared.is_some() && shared == own {
                    continue;
                }
                let runtime = shared.and_then(|shared| runtimes.found.get(&shared));
                self.task(*header, kind, runtime);
            }
        }
        self.drop_remains();
        contexts
    }

    /// Reads what looks like a task on a list, before that is known, and gives its number.
    ///
    /// Lists are walked when the scan is over. To come back for the tasks then would be to read all of them twice, and the
    /// scan is another process's work, which need not be waited for.
    fn read_early(&mut self, header: u64, kind: &Kind) -> Option<usize> {
        let is_listed = matches!(kind.scheduler, Scheduler::Shared(..))
            && self.headers.owner(header).is_some_and(|owner| owner != 0)
            && self.headers.stage(header, kind) == Some(Stage::Future);
        let (task, place, cut) = if is_listed && !self.is_short() { self.read(header, kind) } else { None }?;
        let at = self.tasks.len();
        self.early.stay.push(false);
        self.early.cut.extend(cut.map(|cut| (at, cut)));
        self.add(task, place);
        Some(at)
    }

    /// Keeps a task that was read early: it is on the list of `runtime`.
    fn keep(&mut self, at: usize, runtime: Option<&Runtime>) {
        if let (Some(task), Some(stays)) = (self.tasks.get_mut(at), self.early.stay.get_mut(at)) {
            runs_in(task, runtime);
            *stays = true;
        }
    }

    /// Drops what was read early and is no task.
    fn drop_remains(&mut self) {
        let Early { stay, cut } = std::mem::take(&mut self.early);
        let stays = |at: usize| stay.get(at).copied().unwrap_or(true);
        for (_, cut) in cut.into_iter().filter(|(at, _)| stays(*at)) {
            self.note_cut(cut);
        }
        let mut of_task = 0..;
        self.tasks.retain(|_| of_task.next().is_none_or(stays));
        let mut of_place = 0..;
        self.places.retain(|_| of_place.next().is_none_or(stays));
    }

    /// Whether what a scan found is a task at all.
    fn is_sound(&self, header: u64, kind: &Kind) -> bool {
        self.headers.stage(header, kind).is_some() && self.headers.id_of(header, kind).is_some()
    }

    /// Whether a task that is on no list is none of the remains that freed memory is full of.
    fn belongs(&self, header: u64, kind: &Kind) -> bool {
        let Some(state) = self.headers.state(header) else { return false };
        let complete = state.meaning() == TaskState::Complete;
        self.is_sound(header, kind)
            && match kind.scheduler {
                Scheduler::Blocking => !complete,
                // The output is stored before the state says complete (tokio's `runtime/task/harness.rs`).
                Scheduler::Shared(..) => {
                    complete
                        && self.headers.stage(header, kind) != Some(Stage::Future)
                        && self.headers.owner(header).is_some_and(|owner| owner != 0)
                }
                Scheduler::Other => false,
            }
    }

    fn task(&mut self, header: u64, kind: &Kind, runtime: Option<&Runtime>) {
        if !self.is_short()
            && let Some((mut task, place, cut)) = self.read(header, kind)
        {
            runs_in(&mut task, runtime);
            cut.into_iter().for_each(|cut| self.note_cut(cut));
            self.add(task, place);
        }
    }

    /// A task, where it lies, and why its stack is not shown to its end.
    fn read(&mut self, header: u64, kind: &Kind) -> Option<(Task, Place, Option<&'static str>)> {
        let id = self.headers.id_of(header, kind)?;
        let state = self.headers.state(header)?;
        let at = self.headers.future(header, kind);
        if kind.scheduler != Scheduler::Blocking
            && at.is_some()
            && kind.stage.is_doubtful(self.process, kind.future, header)
        {
            self.notes.missing(&facts::STAGE);
        }
        let AsyncStack { stack, waits_on, leaves, cut } = if kind.scheduler == Scheduler::Blocking {
            let plan = self.knowledge.plans.plan(kind.future);
            let frame = plan.and_then(|plan| self.stacks.blocking(&plan))?;
            // A closure waits for nothing that we can see.
            AsyncStack { stack: Arc::from([frame]), ..AsyncStack::default() }
        } else {
            at.and_then(|at| self.future(kind.future, at, header, Polled::of(state))).unwrap_or_default()
        };
        let task = Task {
            id,
            kind: match kind.scheduler {
                Scheduler::Blocking => TaskKind::Blocking,
                Scheduler::Shared(_, Flavor::LocalSet) => TaskKind::Local,
                _ => TaskKind::Task,
            },
            runtime: None,
            state: Some(state.meaning()),
            thread: None,
            spawned_at: self.headers.spawned_at(header, kind),
            stack,
            waits_on,
            trace: None,
            drives: Vec::new(),
            found_in: None,
        };
        let future = at.map(|at| (kind.future, at));
        let one_at_a_time = match kind.scheduler {
            Scheduler::Shared(_, Flavor::CurrentThread | Flavor::LocalSet) => {
                self.process.memory.word(header.wrapping_add(kind.scheduler_at))
            }
            _ => None,
        };
        let driven = Vec::new();
        let place =
            Place { header: Some(header), state: Some(state.0), one_at_a_time, future, driven, leaves };
        Some((task, place, cut))
    }

    /// Whether there is no memory for more tasks.
    fn is_short(&mut self) -> bool {
        /// Tasks between two looks at what is left.
        const OFTEN: usize = 256;
        if self.shortage.is_none() && self.tasks.len() % OFTEN == OFTEN - 1 {
            self.shortage = room::check().err();
        }
        self.shortage.is_some()
    }

    fn add(&mut self, task: Task, place: Place) {
        self.tasks.push(task);
        if self.options.places {
            self.places.push(place);
        }
    }

    /// Adds the futures that were registered as roots of their own; gives their numbers among the tasks, and their
    /// addresses.
    fn futures(&mut self, roots: &[Root]) -> Vec<(usize, u64)> {
        let mut mains = Vec::new();
        for root in roots {
            let Root::Future { address, poll } = root else { continue };
            let Some(of) = self.process.polled(*poll) else {
                self.notes.add("the type of a main future is not known".to_owned());
                continue;
            };
            let AsyncStack { stack, waits_on, leaves, cut } =
                self.future(of, *address, 0, Polled::Maybe).unwrap_or_default();
            cut.into_iter().for_each(|cut| self.note_cut(cut));
            let task = Task {
                id: 0,
                kind: TaskKind::Main,
                runtime: None,
                state: None,
                thread: None,
                spawned_at: None,
                stack,
                waits_on,
                trace: None,
                drives: Vec::new(),
                found_in: None,
            };
            let future = Some((of, *address));
            mains.push((self.tasks.len(), *address));
            self.add(task, Place { future, leaves, ..Place::default() });
        }
        mains
    }

    /// The stack of the future of type `of` at `address`, of the task with that header, or a main future (0).
    fn future(&mut self, of: TypeId, address: u64, header: u64, polled: Polled) -> Option<AsyncStack> {
        let plan = self.knowledge.plans.plan(of)?;
        if plan.is_unrecognised() {
            return Some(self.unrecognised(&plan, address, polled));
        }
        let state = self.headers.state(header).filter(|_| header != 0);
        self.walker.of_task(header, state.is_some_and(|state| state.meaning() == TaskState::Idle));
        let mut walked = self.walker.walk(&plan, address, polled == Polled::Now);
        // One that is polled may be in the middle of anything, and that is how it looks.
        if polled == Polled::Maybe && walked.cut == Some(UNKNOWN_STATE) {
            walked = self.walker.walk(&plan, address, true);
        }
        for (index, header) in &walked.joins {
            if let Some(waits) = walked.waits.get_mut(*index) {
                waits.task = self.headers.id(*header);
            }
        }
        if let Some(now) = self.options.now {
            for waits in &mut walked.waits {
                waits.in_ms =
                    waits.deadline.map(|deadline| (deadline as i64).wrapping_sub(now as i64) / 1_000_000);
            }
        }
        let (known, nodes) = (walked.stack.take(), walked.nodes.as_slice());
        let is_opaque = known.is_none() && nodes.is_empty();
        // What is taken is exactly as large as it has to be; the room stays for the next walk.
        let leaves = if self.options.places { walked.leaves.as_slice().into() } else { Vec::new() };
        let (waits_on, cut) = (walked.waits.as_slice().into(), walked.cut);
        let stack = match known {
            Some(stack) => stack,
            None if is_opaque => Arc::from([Frame { waits: 0, ..self.stacks.opaque(&plan) }]),
            None => {
                let stack = self.stacks.stack(walked);
                self.walker.keep(&stack);
                stack
            }
        };
        Some(AsyncStack { stack, waits_on, leaves, cut })
    }

    /// The stack of a future in which nothing is recognised: while it is not polled, it waits for something.
    fn unrecognised(&self, plan: &Plan, at: u64, polled: Polled) -> AsyncStack {
        let frame = self.stacks.opaque(plan);
        if polled == Polled::Now {
            return AsyncStack { stack: Arc::from([Frame { waits: 0, ..frame }]), ..AsyncStack::default() };
        }
        let leaf = LeafPlace { at, ..LeafPlace::default() };
        AsyncStack {
            stack: Arc::from([frame]),
            waits_on: vec![WaitsOn::default()],
            leaves: if self.options.places { vec![leaf] } else { Vec::new() },
            cut: None,
        }
    }

    fn note_cut(&mut self, cut: &str) {
        self.notes.add(format!("a stack is not shown to its end: {cut}"));
    }
}

/// Whether a future is being polled at the moment of the capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Polled {
    No,
    Now,
    /// Nothing tells: a main future has no state.
    Maybe,
}

impl Polled {
    fn of(state: State) -> Self {
        if state.meaning() == TaskState::Running { Self::Now } else { Self::No }
    }
}

/// A stack, what its leaves wait for, where they lie, and why it is not shown to its end.
#[derive(Default)]
struct AsyncStack {
    stack: Arc<[Frame]>,
    waits_on: Vec<WaitsOn>,
    leaves: Vec<LeafPlace>,
    cut: Option<&'static str>,
}

/// Says who runs a task.
fn runs_in(task: &mut Task, runtime: Option<&Runtime>) {
    let Some(runtime) = runtime else { return };
    task.runtime = Some(runtime.name.clone());
    if runtime.is_local && task.kind == TaskKind::Task {
        task.kind = TaskKind::Local;
    }
}

/// Sorts tasks, and their places with them where there are any. Of two with the same id the first stays: the other is
/// what is left of it elsewhere in memory. Few bytes are moved: tasks are large.
fn sort_by_id(tasks: &mut Vec<Task>, places: &mut Vec<Place>) {
    let mut order = order(tasks);
    if order.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other && *one != 0)) {
        let mut seen = FxHashSet::default();
        let stays: Vec<bool> = tasks.iter().map(|task| task.id == 0 || seen.insert(task.id)).collect();
        let mut of_task = stays.iter();
        tasks.retain(|_| of_task.next().is_none_or(|stays| *stays));
        let mut of_place = stays.iter();
        places.retain(|_| of_place.next().is_none_or(|stays| *stays));
        order = self::order(tasks);
    }
    for at in 0..order.len() {
        // What belongs here may have been moved to where something else was put in its place.
        let mut from = order[at].1;
        while from < at {
            from = order[from].1;
        }
        order[at].1 = from;
        tasks.swap(at, from);
        if !places.is_empty() {
            places.swap(at, from);
        }
    }
}

/// Ids, in their order, and where the tasks are that have them.
fn order(tasks: &[Task]) -> Vec<(u64, usize)> {
    let mut order: Vec<(u64, usize)> = tasks.iter().map(|task| task.id).zip(0..).collect();
    order.sort_unstable();
    order
}
