//! Tasks, threads and findings of this process, for the server and for dumps, with the caches that they share.

use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::engines::Engines;
use super::inspect::{Inspect, InspectError, Inspected};
use super::reading::Reading;
use super::sampling::Diagnosed;
use super::{polling_threads, sampling, threads};
use crate::debuginfo::elf::{self, ElfError, ElfInfo};
use crate::debuginfo::symbols::Symbols;
use crate::host::heap::Growth;
use crate::host::unoptimized::{self, Stopwatch};
use crate::host::{memory_budget, open_files};
use crate::registry;
use crate::registry::Roots;
use crate::report::{Filter, TasksAnswer, ThreadsAnswer};
use crate::snapshot::{Capture, OwnThread, Thread};
use crate::targets::core_dump::CoreImage;
use crate::targets::{self, Limits};
use crate::tasks::Examination;
use crate::tasks::engine::{EngineError, EngineName, TaskList};
use crate::threads::ThreadStack;
use crate::threads::classify::mains_rest;
use crate::waits::diagnosis::{Earlier, diagnose};
use crate::waits::growing::Counts;
use crate::waits::sample::Sample;

/// The stack size in bytes of the thread that reads lines: symbols nest deeply.
const STACK: usize = 16 << 20;

/// Of that many tasks, an analysis takes longer than reading types and lines.
const MANY: usize = 20_000;

/// Captures and analyses this process.
pub(crate) struct Inspector {
    engines: Engines,
    symbols: Symbols,
    reading: Reading,
    /// The server's runtime, whose tasks are not listed.
    own: Option<Handle>,
    /// The times of samples are measured from here.
    start: Instant,
}

impl Inspector {
    /// An inspector with empty caches, which does not list tasks of `own`.
    pub(crate) fn new(limits: Limits, own: Option<Handle>) -> Self {
        Self {
            engines: Engines::new(limits),
            symbols: Symbols::new(),
            reading: Reading::default(),
            own,
            start: Instant::now(),
        }
    }

    fn roots(&self) -> Roots {
        let roots = registry::roots();
        match &self.own {
            Some(own) => roots.without(own),
            None => roots,
        }
    }

    /// All tasks. Uses `engine`, or the default engine if that is `None`.
    pub(crate) fn tasks(&self, engine: Option<EngineName>) -> Result<(EngineName, TaskList), EngineError> {
        let took = Stopwatch::start();
        let (engine, mut list) = self.engines.list(engine, &self.roots())?;
        self.reading.has_types();
        list.capture.notes.extend(took.note());
        Ok((engine, list))
    }

    /// The stacks of all threads. If `consistent`, all threads are stopped, so that the stacks are of the same moment.
    pub(crate) fn threads(&self, consistent: bool) -> (Vec<ThreadStack>, Capture) {
        polling_threads::learn();
        let took = Stopwatch::start();
        let (threads, mut capture) = self.capture_threads(consistent);
        capture.notes.extend(took.note());
        (threads, capture)
    }

    /// The same with names of functions only, without reading debug information.
    pub(crate) fn threads_by_name(&self) -> (Vec<ThreadStack>, Capture) {
        threads::capture(false, &Symbols::names_only())
    }

    fn capture_threads(&self, consistent: bool) -> (Vec<ThreadStack>, Capture) {
        let captured = threads::capture(consistent, &self.symbols);
        self.reading.has_lines();
        captured
    }

    /// The stacks of threads that were captured together with tasks; empty if they cannot be read.
    pub(crate) fn stacks_of(&self, threads: Vec<Thread>) -> Vec<ThreadStack> {
        threads::stacks_of(threads, &self.symbols)
    }

    /// Describes the file that contains delouse's own code: a shared library or the executable, even if that was replaced
    /// or removed since it started.
    pub(crate) fn elf(&self) -> Result<ElfInfo, ElfError> {
        let own = targets::own_object()?;
        let (name, replaced) = own.name();
        let mut info = elf::inspect_as(&own.opened, name, replaced)?;
        if unoptimized::IS_UNOPTIMIZED {
            let remedy = unoptimized::REMEDY;
            info.problems
                .push(format!("first answers take long: delouse is compiled without optimisation: {remedy}"));
        }
        Ok(info)
    }

    /// Names and lines of addresses.
    pub(crate) fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The number of tasks with each stack.
    pub(crate) fn counts(&self) -> Result<Counts, EngineError> {
        let at = self.start.elapsed();
        let (counts, _) =
            self.engines.examine(&self.roots(), move |seen| Counts::new(at, &seen.listing.tasks))?;
        Ok(counts)
    }

    /// A sample without threads: tasks, and what they wait for. `mains_rest`: directly before, no main future was being
    /// polled.
    pub(crate) fn sample(&self, mains_rest: bool) -> Result<(Sample, Capture), EngineError> {
        let took = Stopwatch::start();
        let (sample, mut capture) = self.take_sample(mains_rest, false)?;
        capture.notes.extend(took.note());
        Ok((sample, capture))
    }

    fn take_sample(&self, mains_rest: bool, wants_sockets: bool) -> Result<(Sample, Capture), EngineError> {
        let at = self.start.elapsed();
        let (sample, mut capture) = self.engines.examine(&self.roots(), move |seen| {
            sampling::sample_of(seen, at, mains_rest, &targets::own_connections, wants_sockets)
        })?;
        self.reading.has_types();
        capture.notes.extend(sampling::notes_of(&sample));
        Ok((sample, capture))
    }

    /// Takes samples until another one would not change the diagnosis, at most [`sampling::MAX_SAMPLES`].
    ///
    /// The threads of the first sample are captured after its tasks, those of later samples before. A state that all
    /// samples have in common therefore lasted from the first to the last.
    pub(crate) fn samples(&self) -> Result<(Vec<Sample>, Capture), EngineError> {
        let took = Stopwatch::start();
        let (samples, mut capture) = self.take_samples()?;
        capture.notes.extend(took.note());
        Ok((samples, capture))
    }

    /// Reads types and lines, each on a thread of its own if there is memory for a second one. Of many tasks, returns the sample
    /// as well, because an analysis of these takes longer than that.
    fn read_all(&self) -> Result<(Option<Sample>, Capture), EngineError> {
        let lines = || self.capture_threads(false).0;
        thread::scope(|scope| {
            let has_memory = memory_budget::has_room_for_thread(STACK as u64);
            let spawn = || OwnThread::Types.builder().stack_size(STACK).spawn_scoped(scope, lines).ok();
            let begun = if has_memory { targets::with_signals_blocked(spawn) } else { None };
            let threads = || begun.and_then(|begun| begun.join().ok()).unwrap_or_else(lines);
            let at = self.start.elapsed();
            let sample_of = |seen: Examination<'_, '_, '_>, rest| {
                sampling::sample_of(seen, at, rest, &targets::own_connections, false)
            };
            let (sample, mut capture) = self.engines.examine(&self.roots(), |seen| {
                if seen.listing.tasks.len() >= MANY {
                    return Some(sample_of(seen, mains_rest(&threads())));
                }
                let _warm = sample_of(seen, false);
                threads();
                None
            })?;
            self.reading.has_types();
            capture.notes.extend(sample.iter().flat_map(sampling::notes_of));
            Ok((sample, capture))
        })
    }

    /// The first sample of a diagnosis, without threads.
    fn first_sample(&self) -> Result<(Sample, Capture), EngineError> {
        // Reading the debug information may take seconds. Do this before the first sample, so that the second follows it
        // closely.
        let warm = if self.symbols.loaded() == 0 { Some(self.read_all()?) } else { None };
        let pause_us = match warm {
            Some((Some(sample), capture)) => return Ok((sample, capture)),
            Some((None, capture)) => capture.pause_us,
            None => 0,
        };
        let rest = mains_rest(&self.capture_threads(false).0);
        let (first, mut capture) = self.take_sample(rest, false)?;
        capture.pause_us = capture.pause_us.max(pause_us);
        Ok((first, capture))
    }

    fn take_samples(&self) -> Result<(Vec<Sample>, Capture), EngineError> {
        let begun = Instant::now();
        let stacks = |capture: &mut Capture| {
            let (threads, of) = self.capture_threads(false);
            capture.notes.extend(of.notes);
            threads
        };
        let (mut first, mut capture) = self.first_sample()?;
        sampling::ask_the_kernel(&mut first, targets::open_file, targets::closed_by_peer);
        first.at = self.start.elapsed();
        first.threads = stacks(&mut capture);
        let wants_sockets = !first.half_closed.is_empty();
        sampling::until_decided((first, capture), begun, || {
            let mut notes = Capture::default();
            let threads = stacks(&mut notes);
            let (mut next, mut of) = self.take_sample(mains_rest(&threads), wants_sockets)?;
            sampling::ask_the_kernel(&mut next, targets::open_file, targets::closed_by_peer);
            next.threads = threads;
            of.notes.extend(notes.notes);
            Ok((next, of))
        })
    }

    /// Drops all caches. Returns the growth that they caused, to be released.
    pub(crate) fn release(&self) -> Growth {
        self.engines.release();
        self.symbols.trim(Duration::ZERO)
    }
}

impl Inspect for Inspector {
    fn reading(&self) -> Option<String> {
        self.reading.describe()
    }

    fn inspected(&self) -> Inspected {
        Inspected::ThisProcess
    }

    fn tasks_answer(
        &self,
        engine: Option<EngineName>,
        filter: &Filter,
        full: bool,
    ) -> Result<TasksAnswer, InspectError> {
        let list = self.tasks(engine)?;
        Ok(TasksAnswer::new(list, |threads| self.stacks_of(threads), filter, full))
    }

    fn threads_answer(&self, consistent: bool, full: bool) -> Result<ThreadsAnswer, InspectError> {
        Ok(ThreadsAnswer::new(self.threads(consistent), full))
    }

    fn sample_of_waits(&self) -> Result<(Sample, Capture), InspectError> {
        Ok(self.sample(false)?)
    }

    fn diagnose(&self, earlier: Earlier<'_>) -> Result<Diagnosed, InspectError> {
        let (samples, mut capture) = self.samples()?;
        let files = open_files::open_files();
        if let Err(error) = &files {
            capture.notes.push(format!("open files could not be counted: {error}"));
        }
        let found = diagnose(&samples, files.as_ref().ok(), earlier);
        Ok(Diagnosed { samples, capture, found })
    }

    fn counts(&self) -> Result<Counts, InspectError> {
        Ok(Self::counts(self)?)
    }

    fn elf(&self) -> Result<ElfInfo, InspectError> {
        Ok(Self::elf(self)?)
    }

    fn core_image(&self, limits: Limits) -> Result<Box<dyn CoreImage>, InspectError> {
        Ok(Box::new(targets::freeze_fork_thaw(limits)?))
    }

    fn is_unused(&self, time: Duration) -> bool {
        self.symbols.is_unused(time)
    }

    fn drop_unused(&self, time: Duration) -> Growth {
        self.symbols.trim(time)
    }

    fn release(&self) -> Growth {
        Self::release(self)
    }
}
