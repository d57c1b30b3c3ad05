//! The list of all tasks.

mod async_stack;
mod driven;
mod early;
mod found;

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::blocking_calls::OwnFrames;
use super::contexts::ThreadContext;
use super::examination::Examination;
use super::facts::{self, Notes};
use super::header::{Flavor, Headers, Kind, Scheduler};
use super::history::Recent;
use super::knowledge::Knowledge;
use super::layout::Interest;
use super::listing::{Listing, Options, sort_by_id};
use super::place::TaskPlace;
use super::process::Process;
use super::root::Root;
use super::runtimes::{Runtime, Runtimes};
use super::stack::Stacks;
use super::thread_waits::ThreadWait;
use super::walk::Walker;
use super::{
    BlockingCall, Frame, Task, TaskKind, TaskState, Waiting, blocking_pools, by_symbols, running, scan,
};
use crate::debuginfo::types::{TypeId, Types};
use crate::host::memory_budget::{self, Shortage};
use crate::snapshot::{Address, Snapshot};
use async_stack::{AsyncStack, Polled};

/// Lists every task of every runtime in `snapshot`, with its stack and what it waits for, and calls `look` with the
/// tasks, the memory and the types.
///
/// Polls nothing and runs nothing. Costs about a microsecond a task and some milliseconds for each unit of
/// debug information that is touched for the first time by `types`.
pub(crate) fn examine<R>(
    snapshot: &dyn Snapshot,
    types: &Arc<Types<'_>>,
    roots: &[Root],
    options: &Options,
    look: impl FnOnce(Examination<'_, '_, '_>) -> R,
) -> R {
    examine_with(snapshot, &Knowledge::new(Arc::clone(types), options.bias), roots, options, look)
}

/// The same for several captures of one program.
pub(crate) fn examine_with<R>(
    snapshot: &dyn Snapshot,
    knowledge: &Knowledge<'_>,
    roots: &[Root],
    options: &Options,
    look: impl FnOnce(Examination<'_, '_, '_>) -> R,
) -> R {
    let process = Process::new(snapshot, knowledge.program.clone());
    let Some(kinds) = &knowledge.kinds else {
        return look(without_types(&process, knowledge, roots, options));
    };
    let mut notes = knowledge.notes.clone();
    let headers = Headers::new(&process, kinds);
    let vtables = knowledge.vtables(&process);
    let expected = knowledge.tasks.get();
    let mut lister = Lister::new(&process, &headers, knowledge, options);
    // There may be no memory for that many, and there may be fewer tasks now.
    let _as_it_goes = lister.tasks.try_reserve(expected);
    let read = |header, kind: &Kind| lister.read_early(header, kind);
    let candidates = scan::headers(&process, &headers, vtables, options.scan, &mut notes, expected, read);
    lister.notes = notes;
    let mut runtimes = Runtimes::new(&process, &headers, &candidates);
    let contexts = lister.learn_runtimes(&mut runtimes, roots, &candidates);
    lister.add_found(&runtimes, roots, &candidates);
    let running: Vec<(i32, u64)> =
        contexts.iter().filter_map(|context| Some((context.tid, context.task?))).collect();
    let rounds = contexts.iter().filter_map(|context| Some((context.tid, context.rounds?))).collect();
    let entered = blocking_pools::entered(&process, &runtimes, &contexts);
    let pools = blocking_pools::of_runtimes(&runtimes, &contexts, &entered, &mut lister.tasks);
    let mains = lister.futures(roots);
    if options.entered {
        lister.driven(&mains, &running);
    }
    let Lister {
        mut tasks,
        mut places,
        stacks,
        mut notes,
        shortage,
        own_frames,
        thread_waits,
        without_future,
        ..
    } = lister;
    let shortage = note_shortages(&process, shortage, tasks.len(), &mut notes);
    sort_by_id(&mut tasks, &mut places);
    // Some candidates are stale in each capture.
    knowledge.tasks.set(tasks.len() + tasks.len() / 16);
    let mut listing = Listing {
        tasks,
        running,
        rounds,
        pools,
        entered,
        own_frames,
        thread_waits,
        without_future,
        notes: notes.into_vec(),
        without_types: false,
        shortage,
    };
    running::join(&mut listing);
    let frame = |of, state| stacks.coroutine(of, state);
    let (runtime_threads, idle_workers) = resting(&contexts, &listing, candidates.are_all());
    let main = |root: &Root| match root {
        Root::Future { address, .. } => Some(*address),
        _ => None,
    };
    look(Examination {
        process: &process,
        layouts: &knowledge.layouts,
        listing,
        places,
        runtime_threads,
        idle_workers,
        mains: roots.iter().filter_map(main).collect(),
        frame: &frame,
    })
}

/// The tasks of a program without types.
fn without_types<'e, 'p, 'i>(
    process: &'e Process<'p, 'i>,
    knowledge: &'e Knowledge<'i>,
    roots: &[Root],
    options: &Options,
) -> Examination<'e, 'p, 'i> {
    let mut advice = Notes::default();
    let tasks = by_symbols::list(process, knowledge, roots, options, &mut advice);
    let shortage = shortage_of_types(process);
    let mut notes = if tasks.is_empty() && shortage.is_none() { knowledge.notes.clone() } else { advice };
    driven::note_all(process, knowledge, &mut notes);
    let places = vec![TaskPlace::default(); tasks.len()];
    let notes = notes.into_vec();
    let listing = Listing { tasks, notes, without_types: true, shortage, ..Listing::default() };
    Examination {
        process,
        layouts: &knowledge.layouts,
        listing,
        places,
        runtime_threads: Vec::new(),
        idle_workers: Vec::new(),
        mains: Vec::new(),
        frame: &|_, _| None,
    }
}

/// Why not all types were read.
fn shortage_of_types(process: &Process<'_, '_>) -> Option<String> {
    process.types.image().shortage().map(|shortage| shortage.to_string())
}

/// Adds notes about what was not read, and returns why: types, or more than the `read` tasks, for which there was no memory.
fn note_shortages(
    process: &Process<'_, '_>,
    of_tasks: Option<Shortage>,
    read: usize,
    notes: &mut Notes,
) -> Option<String> {
    if let Some(shortage) = &of_tasks {
        notes.add(format!("only {read} tasks were read: {shortage}"));
    }
    let of_types = shortage_of_types(process);
    if let Some(missing) = process.types.missing().filter(|_| of_types.is_none()) {
        notes.add(format!("some types are missing, so some stacks may be short: {missing}"));
    }
    if let Some(shortage) = &of_types {
        notes.add(format!(
            "some types were not read, so stacks and what tasks hold are not complete: {shortage}"
        ));
    }
    of_types.or_else(|| of_tasks.map(|shortage| shortage.to_string()))
}

/// The threads of runtimes that poll no task, and the workers among them. `all`: all tasks were found; otherwise a worker may
/// be polling one of the others.
fn resting(contexts: &[ThreadContext], listing: &Listing, all: bool) -> (Vec<i32>, Vec<i32>) {
    // To tokio, a worker is a task of the blocking pool; it is not listed here.
    let polls = |context: &ThreadContext| {
        context.task.is_some_and(|id| listing.tasks.binary_search_by_key(&id, |task| task.id).is_ok())
    };
    let idle = || contexts.iter().filter(|context| context.handle.is_some() && !polls(context));
    let workers = idle().filter(|context| all && context.task.is_some());
    (idle().map(|context| context.tid).collect(), workers.map(|context| context.tid).collect())
}

/// The list alone, made twice: the second time, the walks are replayed, and must have the same results.
#[cfg(test)]
pub(crate) fn list(
    snapshot: &dyn Snapshot,
    types: &Arc<Types<'_>>,
    roots: &[Root],
    options: &Options,
) -> Listing {
    let knowledge = Knowledge::new(Arc::clone(types), options.bias);
    let list = || examine_with(snapshot, &knowledge, roots, options, |examination| examination.listing);
    let (walked, replayed) = (list(), list());
    let text = |listing: &Listing| format!("{listing:#?}");
    assert_eq!(text(&walked), text(&replayed));
    replayed
}

struct Lister<'l, 'p, 'i> {
    process: &'l Process<'p, 'i>,
    headers: &'l Headers<'l, 'p, 'i>,
    knowledge: &'l Knowledge<'i>,
    walker: Walker<'l, 'p, 'i>,
    stacks: Stacks<'l, 'i>,
    options: &'l Options,
    tasks: Vec<Task>,
    /// Places of the tasks in the same order, if they are wanted.
    places: Vec<TaskPlace>,
    early: Early,
    /// Functions of complete tasks, by the types of their futures.
    completed: FxHashMap<TypeId, Option<Arc<Frame>>>,
    /// For the time that tasks have waited, if that is wanted.
    recent: Option<Recent<'l>>,
    /// Why no more tasks are read.
    shortage: Option<Shortage>,
    /// See [`Listing::own_frames`].
    own_frames: Vec<(i32, OwnFrames)>,
    thread_waits: Vec<ThreadWait>,
    /// See [`Listing::without_future`].
    without_future: Vec<i32>,
    notes: Notes,
}

/// The first tasks, which were read before it was known whether they are on a list. Stale copies of freed tasks are
/// among them.
#[derive(Default)]
struct Early {
    /// Which of them are tasks.
    stay: Vec<bool>,
    /// The tasks whose stacks are not shown to their end.
    cut: Vec<(usize, &'static str)>,
}

impl<'l, 'p, 'i> Lister<'l, 'p, 'i> {
    fn new(
        process: &'l Process<'p, 'i>,
        headers: &'l Headers<'l, 'p, 'i>,
        knowledge: &'l Knowledge<'i>,
        options: &'l Options,
    ) -> Self {
        Self {
            process,
            headers,
            knowledge,
            walker: Walker::new(process, &knowledge.layouts, &knowledge.walks),
            stacks: Stacks::new(&knowledge.layouts, &knowledge.stacks),
            options,
            tasks: Vec::new(),
            places: Vec::new(),
            early: Early::default(),
            completed: FxHashMap::default(),
            recent: options.history.as_deref().zip(options.now).map(|(history, now)| history.begin(now)),
            shortage: None,
            own_frames: Vec::new(),
            thread_waits: Vec::new(),
            without_future: Vec::new(),
            notes: Notes::default(),
        }
    }

    fn task(&mut self, header: Address, kind: &Kind, runtime: Option<&Runtime>) {
        if !self.is_short()
            && let Some((mut task, place, cut)) = self.read(header, kind)
        {
            runs_in(&mut task, runtime);
            cut.into_iter().for_each(|cut| self.note_cut(cut));
            self.add(task, place);
        }
    }

    /// A task, where it is stored, and why its stack is not shown to its end.
    fn read(&mut self, header: Address, kind: &Kind) -> Option<(Task, TaskPlace, Option<&'static str>)> {
        let id = self.headers.id_of(header, kind)?;
        let state = self.headers.state(header)?;
        let at = self.headers.future(header, kind);
        if kind.scheduler != Scheduler::Blocking
            && at.is_some()
            && kind.stage.is_doubtful(self.process, kind.future, header)
        {
            self.notes.missing(&facts::STAGE);
        }
        let AsyncStack { stack, waits_on, leaves, cut, fingerprint, .. } =
            if kind.scheduler == Scheduler::Blocking {
                let layout = self.knowledge.layouts.of(Interest::Futures, kind.future)?;
                let frame = self.stacks.blocking(layout)?;
                // What a closure waits for is not known.
                AsyncStack { stack: Arc::from([frame]), ..AsyncStack::default() }
            } else {
                at.and_then(|at| self.future(kind.future, at, Some(header), Polled::of(state)))
                    .unwrap_or_default()
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
            waiting: self.waiting(id, fingerprint.filter(|_| state.meaning() == TaskState::Idle)),
            spawned_at: self.headers.spawned_at(header, kind),
            stack,
            waits_on,
            completed: (state.meaning() == TaskState::Complete)
                .then(|| self.completed(kind.future))
                .flatten(),
            trace: None,
            drives: Vec::new(),
            found_in: None,
        };
        let future = at.map(|at| (kind.future, at));
        let one_at_a_time = match kind.scheduler {
            Scheduler::Shared(_, Flavor::CurrentThread | Flavor::LocalSet) => {
                self.process.memory.address(header.wrapping_add(kind.scheduler_at))
            }
            _ => None,
        };
        let driven = Vec::new();
        let place =
            TaskPlace { header: Some(header), state: Some(state.0), one_at_a_time, future, driven, leaves };
        Some((task, place, cut))
    }

    /// The function whose future was of type `of`.
    fn completed(&mut self, of: TypeId) -> Option<Arc<Frame>> {
        let known = self.completed.entry(of);
        known.or_insert_with(|| self.stacks.declaration(of).map(Arc::new)).clone()
    }

    /// Whether there is no memory for more tasks.
    fn is_short(&mut self) -> bool {
        /// The number of tasks between two checks of the memory that is left.
        const OFTEN: usize = 256;
        if self.shortage.is_none() && self.tasks.len() % OFTEN == OFTEN - 1 {
            self.shortage = memory_budget::check_growth().err();
        }
        self.shortage.is_some()
    }

    fn add(&mut self, task: Task, place: TaskPlace) {
        self.tasks.push(task);
        if self.options.places {
            self.places.push(place);
        }
    }

    /// Adds the futures that were registered as roots; returns their indexes among the tasks, and their addresses.
    fn futures(&mut self, roots: &[Root]) -> Vec<(usize, Address)> {
        let mut mains = Vec::new();
        for root in roots {
            let Root::Future { address, poll } = root else { continue };
            match self.process.polled(*poll) {
                Some(of) => mains.push((self.add_main(of, *address, None), *address)),
                None => self.notes.add("the type of a main future is not known".to_owned()),
            }
        }
        mains
    }

    /// Adds a main future, and returns its index. `found_in`: the call in which a future that is not registered was
    /// found.
    fn add_main(&mut self, of: TypeId, address: Address, found_in: Option<BlockingCall>) -> usize {
        let AsyncStack { stack, waits_on, leaves, cut, fingerprint, is_polled } =
            self.future(of, address, None, Polled::Maybe).unwrap_or_default();
        cut.into_iter().for_each(|cut| self.note_cut(cut));
        let task = Task {
            kind: TaskKind::Main,
            state: is_polled.then_some(TaskState::Running),
            waiting: self.waiting(address.get(), fingerprint),
            stack,
            waits_on,
            found_in,
            ..Task::default()
        };
        self.add(task, TaskPlace { future: Some((of, address)), leaves, ..TaskPlace::default() });
        let number = self.tasks.len() - 1;
        if is_polled {
            self.waits_for_nothing(number);
        }
        number
    }

    /// How long a task has looked like this.
    fn waiting(&mut self, task: u64, fingerprint: Option<u32>) -> Option<Waiting> {
        self.recent.as_mut()?.waiting(task, fingerprint?)
    }

    fn note_cut(&mut self, cut: &str) {
        self.notes.add(format!("a stack is not shown to its end: {cut}"));
    }
}

/// Sets the runtime of a task.
fn runs_in(task: &mut Task, runtime: Option<&Runtime>) {
    let Some(runtime) = runtime else { return };
    task.runtime = Some(runtime.name.clone());
    if runtime.is_local && task.kind == TaskKind::Task {
        task.kind = TaskKind::Local;
    }
}
