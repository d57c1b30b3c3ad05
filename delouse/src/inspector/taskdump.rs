//! The fallback engine: tokio's own [`Handle::dump`](tokio::runtime::Handle::dump).
//!
//! It polls every task once more in a tracing mode, and it is known to hang programs (tokio 1.54):
//! - more than 128 runnable tasks: `steal_all` loops for ever;
//! - a worker that does not come to the barrier within 250 ms: the others wait for it without a bound;
//! - a `dump()` that is dropped half-way leaves `trace_requested` set, and every later one hangs.
//!
//! So nothing is asked while queues are long or a worker does not answer, a dump once begun is never
//! dropped, and while one has not come back no other is begun. That makes the hangs rare; it cannot
//! exclude them.

/// Where tokio has no task dump, or was built without.
#[cfg(not(all(
    feature = "taskdump",
    tokio_unstable,
    target_os = "linux",
    any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64", target_arch = "s390x")
)))]
mod engine {
    use crate::registry::Roots;
    use crate::tasks::engine::{EngineError, TaskList};

    /// See the module.
    #[derive(Default)]
    pub(crate) struct Taskdump {}

    const SETTING: &str = "this build cannot list tasks. Add the feature to Cargo.toml:\n\n    \
        [dependencies]\n    delouse = { version = \"0.2\", features = [\"taskdump\"] }\n\n\
        and the flag to .cargo/config.toml:\n\n    \
        [build]\n    rustflags = [\"--cfg\", \"tokio_unstable\"]\n\n\
        then build again. (tokio's task dump exists on Linux only: x86, x86_64, aarch64, s390x.)";

    impl Taskdump {
        pub(crate) fn list(&self, _: &Roots) -> Result<TaskList, EngineError> {
            Err(EngineError::NotBuilt(SETTING))
        }
    }
}

#[cfg(all(
    feature = "taskdump",
    tokio_unstable,
    target_os = "linux",
    any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64", target_arch = "s390x")
))]
mod engine {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, mpsc};
    use std::task::Poll;
    use std::time::{Duration, Instant};

    use tokio::runtime::{Dump, Handle, RuntimeFlavor, RuntimeMetrics};

    use crate::host::memory_budget;
    use crate::registry::Roots;
    use crate::snapshot::{Capture, OwnThread, micros};
    use crate::tasks::engine::{EngineError, TaskList};
    use crate::tasks::{Frame, Origin, Task, TaskKind};

    /// How long the thread of a current_thread runtime may take to poll a new task.
    const PING: Duration = Duration::from_millis(250);
    /// How long a worker may take to show that it runs. A slower one may well miss the dump's
    /// barrier, which waits 250 ms.
    const WORKER_PING: Duration = Duration::from_millis(50);
    /// How long a dump may take. Its own barrier gives up after 250 ms; 100,000 tasks take half a second.
    const DEADLINE: Duration = Duration::from_millis(1200);
    /// `steal_all` hangs above 128 runnable tasks.
    const MAX_QUEUED: usize = 64;
    /// Frames of one path through a task. A recursion can be as deep as its thread's stack allows; code that writes
    /// or reads the answer recurses as well (jq up to version 1.6 gives up at 256 levels: two for each frame).
    const MAX_FRAMES: usize = 100;
    /// Of these, the outermost ones; the innermost ones, which tell what the task waits for, are the rest.
    const OUTERMOST: usize = 50;

    /// See the module.
    #[derive(Default)]
    pub(crate) struct Taskdump {
        pending: Arc<Pending>,
    }

    /// Dumps that were begun and have not come back.
    #[derive(Default)]
    struct Pending(AtomicU64);

    impl Taskdump {
        pub(crate) fn list(&self, roots: &Roots) -> Result<TaskList, EngineError> {
            let begun = Instant::now();
            // It reads symbols by a crate that maps the whole executable.
            memory_budget::check_symbolizer().map_err(|shortage| {
                EngineError::Refused(format!("tokio's task dump is not asked: {shortage}"))
            })?;
            let mut list = TaskList::default();
            let mut notes = vec![
                "tokio's task dump cannot see inside main's future, LocalSet children, or a task that runs right \
                 now; futures of other crates than tokio have an empty trace"
                    .to_owned(),
            ];
            let mut refusal = Some(EngineError::Refused(
                "no runtime is known: use #[delouse::main], or delouse::register(&handle)".to_owned(),
            ));
            for (number, handle) in roots.runtimes().enumerate() {
                let runtime: Arc<str> = handle.name().map_or_else(|| number.to_string().into(), Arc::from);
                let dump = if begun.elapsed() < DEADLINE {
                    self.dump(handle, &mut list.capture)
                } else {
                    refuse("the others took too long")
                };
                match dump {
                    Ok(tasks) => {
                        refusal = None;
                        list.tasks
                            .extend(tasks.into_iter().map(|t| Task { runtime: Some(runtime.clone()), ..t }));
                    }
                    Err(error) => {
                        notes.push(format!("the tasks of runtime {runtime} are left out: {error}"));
                        if number == 0 {
                            refusal = Some(error);
                        }
                    }
                }
            }
            // Some of the tasks beat none of them.
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            list.tasks.extend(roots.mains().iter().map(|main| Task {
                kind: TaskKind::Main,
                stack: Arc::from([Frame { function: as_written(main.type_name), ..Frame::default() }]),
                ..Task::default()
            }));
            list.tasks.sort_by_key(|t| t.id);
            list.capture =
                Capture { total_us: micros(begun.elapsed()), consistent: false, notes, ..list.capture };
            Ok(list)
        }
    }

    impl Taskdump {
        fn dump(&self, handle: &Handle, capture: &mut Capture) -> Result<Vec<Task>, EngineError> {
            if self.pending.0.load(Ordering::Acquire) > 0 {
                return refuse(
                    "tokio's task dump was asked before and has not come back: the runtime may stand \
                     still because of it. Try /stacktrace/rust",
                );
            }
            let metrics = handle.metrics();
            check_queues(&metrics)?;
            let (reply, answer) = mpsc::sync_channel(1);
            let asked = Instant::now();
            match handle.runtime_flavor() {
                RuntimeFlavor::CurrentThread => self.ask_inside(handle, reply)?,
                _ => {
                    check_workers(&metrics)?;
                    self.ask_outside(handle, reply)?;
                }
            }
            match answer.recv_timeout(DEADLINE) {
                // Reading symbols takes longer than the dump: it is done here, not in the deadline's time.
                Ok((dump, own)) => {
                    capture.pause_us += micros(asked.elapsed());
                    capture.held_us = capture.pause_us;
                    Ok(tasks(&dump, own))
                }
                Err(mpsc::RecvTimeoutError::Timeout) => refuse(&format!(
                    "tokio's task dump did not come back within {DEADLINE:?}; it is not asked again until \
                     it does. Try /stacktrace/rust"
                )),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    refuse("tokio's task dump panicked (tokio issue 8391), or its runtime is shutting down")
                }
            }
        }

        /// A multi-threaded runtime answers from any thread, in its own time: so in a thread of its own.
        fn ask_outside(&self, handle: &Handle, reply: Reply) -> Result<(), EngineError> {
            let (handle, pending) = (handle.clone(), self.pending.begin());
            let thread = OwnThread::Dump.builder();
            let spawned = thread.spawn(move || {
                let _pending = pending;
                let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
                let _gone = reply.send((runtime.block_on(handle.dump()), None));
            });
            spawned.map(drop).or_else(|error| refuse(&format!("no thread for tokio's task dump: {error}")))
        }

        /// A current_thread runtime answers only to one of its own tasks. That task is also the ping: when
        /// it was not polled in time, it is withdrawn.
        fn ask_inside(&self, handle: &Handle, reply: Reply) -> Result<(), EngineError> {
            let (polled, first_poll) = mpsc::sync_channel(1);
            let (inner, pending) = (handle.clone(), Arc::clone(&self.pending));
            let task = handle.spawn(async move {
                let _late = polled.send(());
                let _pending = pending.begin();
                let mut dump = Box::pin(inner.dump());
                // A panic in here must not shut down a runtime with `unhandled_panic = "shutdown_runtime"`.
                let dump = std::future::poll_fn(|context| {
                    match catch_unwind(AssertUnwindSafe(|| dump.as_mut().poll(context))) {
                        Ok(poll) => poll.map(Some),
                        Err(_) => Poll::Ready(None),
                    }
                });
                if let Some(dump) = dump.await {
                    let _gone = reply.send((dump, Some(tokio::task::id())));
                }
            });
            if first_poll.recv_timeout(PING).is_ok() {
                return Ok(());
            }
            task.abort();
            refuse(&format!(
                "the current_thread runtime did not answer within {PING:?}: its thread is blocked, or busy \
                 in one poll. Try /stacktrace/rust"
            ))
        }
    }

    /// The dump, and the id of the task that asked for it: that one is ours.
    type Reply = mpsc::SyncSender<(Dump, Option<tokio::task::Id>)>;

    impl Pending {
        fn begin(self: &Arc<Self>) -> PendingGuard {
            self.0.fetch_add(1, Ordering::AcqRel);
            PendingGuard(Arc::clone(self))
        }
    }

    struct PendingGuard(Arc<Pending>);

    impl Drop for PendingGuard {
        fn drop(&mut self) {
            self.0.0.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn refuse<T>(reason: &str) -> Result<T, EngineError> {
        Err(EngineError::Refused(reason.to_owned()))
    }

    fn check_queues(metrics: &RuntimeMetrics) -> Result<(), EngineError> {
        let local: usize = (0..metrics.num_workers()).map(|w| metrics.worker_local_queue_depth(w)).sum();
        let queued = local + metrics.global_queue_depth();
        if queued > MAX_QUEUED {
            return refuse(&format!(
                "{queued} tasks wait for a worker: above 128, tokio's task dump hangs the runtime, so it is \
                 not asked above {MAX_QUEUED}. Try again, or /stacktrace/rust"
            ));
        }
        Ok(())
    }

    /// A worker answers the ping by being parked, or by having polled since.
    ///
    /// `worker_park_unpark_count` is even while the worker is awake; `worker_poll_count` is brought up to
    /// date when the worker parks and at its maintenance, every 61 polls (tokio's `event_interval`).
    fn check_workers(metrics: &RuntimeMetrics) -> Result<(), EngineError> {
        let sign = |w| (metrics.worker_park_unpark_count(w), metrics.worker_poll_count(w));
        let awake = |w: &usize| metrics.worker_park_unpark_count(*w).is_multiple_of(2);
        let first: Vec<_> =
            (0..metrics.num_workers()).filter(awake).map(|worker| (worker, sign(worker))).collect();
        let mut silent = first;
        let begun = Instant::now();
        while !silent.is_empty() {
            if begun.elapsed() > WORKER_PING {
                return refuse(&format!(
                    "{} of {} workers did not answer within {WORKER_PING:?}: blocked, or busy in one poll. \
                     tokio's task dump would stop the others, so it is not asked. Try /stacktrace/rust",
                    silent.len(),
                    metrics.num_workers()
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
            silent.retain(|(worker, before)| sign(*worker) == *before);
        }
        Ok(())
    }

    fn tasks(dump: &Dump, own: Option<tokio::task::Id>) -> Vec<Task> {
        let shown = dump.tasks().iter().filter(|task| Some(task.id()) != own);
        shown
            .map(|task| {
                let mut stack = Vec::new();
                for backtrace in task.trace().resolve_backtraces() {
                    let frames: Vec<_> = backtrace.frames().collect();
                    let symbols =
                        frames.iter().rev().flat_map(|f| f.symbols().collect::<Vec<_>>().into_iter().rev());
                    merge(&mut stack, bounded(symbols.map(frame).collect()));
                }
                let trace = Some(task.trace().to_string()).filter(|text| !text.is_empty());
                Task { id: id_number(task.id()), stack: stack.into(), trace, ..Task::default() }
            })
            .collect()
    }

    /// `Id` shows its number in no other way.
    fn id_number(id: tokio::task::Id) -> u64 {
        id.to_string().parse().unwrap_or_default()
    }

    fn frame(symbol: &tokio::runtime::dump::BacktraceSymbol) -> Frame {
        let file = symbol.filename().map(|f| f.to_string_lossy().into_owned());
        Frame {
            function: as_written(symbol.name_demangled().unwrap_or("?")),
            origin: file.as_deref().map_or(Origin::User, Origin::of_file),
            file,
            line: symbol.lineno(),
            ..Frame::default()
        }
    }

    /// The name of a function as its author wrote it: without the hash that legacy mangling ends in (`::h` and
    /// sixteen hexadecimal digits), and without the closures that async functions are compiled to.
    fn as_written(name: &str) -> String {
        let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let name = name.rsplit_once("::h").filter(|(_, hash)| is_hash(hash)).map_or(name, |(name, _)| name);
        name.replace("::{{closure}}", "")
    }

    /// Leaves out the middle of a path that is too long.
    fn bounded(mut path: Vec<Frame>) -> Vec<Frame> {
        if path.len() > MAX_FRAMES {
            let left_out = path.len() - MAX_FRAMES;
            let gap = Frame { function: format!("… {left_out} more frames"), ..Frame::default() };
            path.splice(OUTERMOST..OUTERMOST + left_out, [gap]);
        }
        path
    }

    /// Adds one path from the root to a leaf to a forest that shares what paths have in common.
    fn merge(mut level: &mut Vec<Frame>, path: Vec<Frame>) {
        for frame in path {
            let same =
                |f: &Frame| f.function == frame.function && f.file == frame.file && f.line == frame.line;
            let at = level.iter().position(same).unwrap_or_else(|| {
                level.push(frame);
                level.len() - 1
            });
            level = &mut level[at].children;
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn named(function: &str) -> Frame {
            Frame { function: function.to_owned(), ..Frame::default() }
        }

        #[test]
        fn a_deep_path_keeps_its_ends() {
            let deep: Vec<_> = (0..100_000).map(|n| named(&n.to_string())).collect();
            let path = bounded(deep);
            assert_eq!(path.len(), MAX_FRAMES + 1);
            assert_eq!(path[OUTERMOST - 1], named("49"));
            assert_eq!(path[OUTERMOST], named("… 99900 more frames"));
            assert_eq!(path.last(), Some(&named("99999")));
            let short: Vec<_> = (0..MAX_FRAMES).map(|n| named(&n.to_string())).collect();
            assert_eq!(bounded(short.clone()), short);
        }

        #[test]
        fn paths_share_what_they_have_in_common() {
            let mut forest = Vec::new();
            for path in ["abc", "abd", "x"] {
                merge(&mut forest, path.chars().map(|c| named(&c.to_string())).collect());
            }
            assert_eq!(forest.len(), 2);
            assert_eq!(forest[0].children[0].children, [named("c"), named("d")]);
        }

        #[test]
        fn names_are_as_written() {
            for (name, written) in [
                ("app::serve::{{closure}}::h0123456789abcdef", "app::serve"),
                ("app::main::{{closure}}::{{closure}}", "app::main"),
                ("app::house::hall", "app::house::hall"),
            ] {
                assert_eq!(as_written(name), written);
            }
        }

        /// A runtime that does not answer hides only its own tasks.
        #[test]
        fn some_tasks_beat_none() {
            let builder = |mut builder: tokio::runtime::Builder| builder.enable_all().build().unwrap();
            let idle = builder(tokio::runtime::Builder::new_current_thread());
            let alive = builder(tokio::runtime::Builder::new_multi_thread());
            alive.spawn(std::future::pending::<()>());
            let mut roots = Roots::new();
            roots.add_runtime(idle.handle());
            assert!(Taskdump::default().list(&roots).is_err(), "no thread drives it");
            roots.add_runtime(alive.handle());
            let list = loop {
                // Refused as a whole only while the machine is too busy for the other one's workers as well.
                if let Ok(list) = Taskdump::default().list(&roots) {
                    break list;
                }
            };
            assert_eq!(list.tasks.len(), 1);
            let notes = list.capture.notes.join("\n");
            assert!(notes.contains("runtime 0 are left out: the current_thread runtime did not"), "{notes}");
            // Not waited for: tokio's own dump may have frozen it.
            alive.shutdown_background();
        }
    }
}

pub(crate) use engine::Taskdump;
