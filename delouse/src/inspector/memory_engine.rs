//! The default engine: reads tasks from an image of our own memory, by the types in the debug information.
//!
//! Polls nothing and needs nothing of the program: it works when every worker is blocked. The program is stopped for one
//! `fork`; where that would take longer than the budget, our own live memory is read instead and the answer
//! is marked.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::learned::Learned;
use crate::debuginfo::image::Image;
use crate::debuginfo::types::Types;
use crate::host::heap::{Baseline, Growth};
use crate::host::lock::lock;
use crate::host::memory_budget;
use crate::registry::Roots;
use crate::snapshot::{Capture, OwnThread, Snapshot, micros};
use crate::targets::program_file::ProgramFile;
use crate::targets::{self, Limits, Live};
use crate::tasks::engine::{EngineError, TaskList};
use crate::tasks::other_objects::{self, OtherObjects};
use crate::tasks::{Examination, History, Options, describe_files, running_threads};

/// How long types are kept for the next request: they take tens of megabytes.
const UNUSED: Duration = Duration::from_secs(60);
/// Of the thread that drops them, in bytes.
const STACK: usize = 256 << 10;
/// Memory that is scanned at most for tasks that are on no list: about a tenth of a second.
const SCAN: u64 = 1 << 30;

/// See the module.
pub(crate) struct MemoryEngine {
    limits: Limits,
    /// Locked by each capture. `None` before the first one, and after a minute without any.
    kept: Arc<Mutex<Option<Kept>>>,
    /// For the time that tasks have waited: 16 bytes for each, as long as the program runs.
    history: Arc<History>,
}

/// What one capture leaves for the next.
struct Kept {
    own: OwnProgram,
    /// What the first capture took of memory, most of which is types.
    grown: Growth,
    /// Of each capture, what takes a while to drop: to the thread that drops all of this when it is no longer used.
    dropper: Sender<Box<dyn Send>>,
}

/// The file with our own code, and what was learned of it so far.
struct OwnProgram {
    own: ProgramFile,
    others: OtherObjects,
    types: OwnTypes,
}

self_cell::self_cell!(
    struct OwnTypes {
        owner: Image,
        #[not_covariant]
        dependent: Learned,
    }
);

/// What to capture.
#[derive(Clone, Copy)]
struct Question<'q> {
    roots: &'q Roots,
    limits: Limits,
    history: &'q Arc<History>,
    /// Whether to return where tasks are stored.
    places: bool,
}

impl MemoryEngine {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, kept: Arc::default(), history: Arc::default() }
    }

    /// Lists the tasks, and the threads that run some of them.
    pub(super) fn list(&self, roots: &Roots) -> Result<TaskList, EngineError> {
        let ((mut listing, threads), mut capture) = self.examine(roots, false, |examination| {
            let threads = running_threads(&examination);
            (examination.listing, threads)
        })?;
        listing.notes.extend(describe_files(&mut listing.tasks, targets::open_file));
        capture.notes.extend(listing.notes);
        Ok(TaskList {
            tasks: listing.tasks,
            capture,
            threads,
            without_types: listing.without_types && listing.shortage.is_none(),
        })
    }

    /// Captures the tasks and returns what `look` returns for them, one caller at a time. May take seconds.
    pub(super) fn examine<R>(
        &self,
        roots: &Roots,
        places: bool,
        look: impl FnOnce(Examination<'_, '_, '_>) -> R,
    ) -> Result<(R, Capture), EngineError> {
        let mut kept = lock(&self.kept);
        let (mut own, grown, dropper) = match kept.take() {
            Some(Kept { own, grown, dropper }) => (own, Ok(grown), Some(dropper)),
            None => {
                let before = Baseline::now();
                (OwnProgram::open()?, Err(before), None)
            }
        };
        let (answer, image) =
            own.capture(Question { roots, limits: self.limits, history: &self.history, places }, look);
        let grown = grown.unwrap_or_else(Baseline::growth);
        if answer.is_err() {
            // It may have been learned from an image that was killed meanwhile.
            own.forget();
        }
        // Its files are closed before the answer is there, as the next question may need theirs.
        let ending = image.map(targets::ForkedImage::end);
        // Where something was not read, the next answer may have the memory for all of it.
        let dropper =
            Some(dropper).filter(|_| !own.is_short()).and_then(|known| known.or_else(|| self.dropper()));
        match dropper {
            Some(dropper) => {
                // A large child takes some milliseconds to end, for which the answer does not wait.
                drop(dropper.send(Box::new(ending)));
                *kept = Some(Kept { own, grown, dropper });
            }
            None => {
                drop((own, ending));
                grown.release_freed();
            }
        }
        answer
    }

    /// Drops what is kept for the next request.
    pub(super) fn release(&self) {
        *lock(&self.kept) = None;
    }

    /// Starts the thread that drops what is kept when that was not used for a while; `None` where there is no room for a
    /// thread, or for what is kept.
    fn dropper(&self) -> Option<Sender<Box<dyn Send>>> {
        if !memory_budget::has_room_for_thread(STACK as u64) {
            return None;
        }
        let (dropper, endings) = mpsc::channel::<Box<dyn Send>>();
        let kept = Arc::clone(&self.kept);
        let body = move || {
            loop {
                match endings.recv_timeout(UNUSED) {
                    Ok(ending) => drop(ending),
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        let mut kept = lock(&kept);
                        // It may just have been used, or released.
                        match endings.try_recv() {
                            Ok(ending) => drop(ending),
                            Err(mpsc::TryRecvError::Disconnected) => return,
                            Err(mpsc::TryRecvError::Empty) => {
                                let unused = kept.take();
                                // A request meanwhile need not wait until all is dropped.
                                drop(kept);
                                let grown = unused.map(|Kept { grown, .. }| grown);
                                return grown.unwrap_or_default().release_freed();
                            }
                        }
                    }
                }
            }
        };
        let thread = OwnThread::Types.builder().stack_size(STACK);
        targets::with_signals_blocked(|| thread.spawn(body)).ok()?;
        Some(dropper)
    }
}

impl OwnProgram {
    fn open() -> Result<Self, EngineError> {
        let refused = |reason: String| EngineError::Refused(format!("the file with our own code: {reason}"));
        let own = targets::own_object().map_err(|error| refused(error.to_string()))?;
        let image = Image::open(&own.opened).map_err(|error| refused(error.to_string()))?;
        let types = OwnTypes::new(image, |image| Learned::new(Types::open(image)));
        Ok(Self { own, others: OtherObjects::default(), types })
    }

    /// Whether there was no memory for some of the debug information.
    fn is_short(&self) -> bool {
        self.types.borrow_owner().shortage().is_some()
    }

    /// Forgets what was learned from captures.
    fn forget(&mut self) {
        self.types.with_dependent_mut(|_, learned| learned.forget());
    }

    /// Captures the program. The image comes along, where there was one.
    fn capture<R>(
        &mut self,
        question: Question<'_>,
        look: impl FnOnce(Examination<'_, '_, '_>) -> R,
    ) -> (Result<(R, Capture), EngineError>, Option<targets::ForkedImage>) {
        let begun = Instant::now();
        let now = targets::monotonic_nanos();
        // Threads show runtimes that were not registered, and which task each of them polls; the tasks
        // themselves are in memory.
        let forked = targets::fork_with_threads(question.limits).map(|image| (image, None));
        let forked = forked.or_else(|error| {
            let note = format!("threads could not be asked, so what they poll is not known: {error}");
            targets::fork(question.limits).map(|image| (image, Some(note)))
        });
        let (answer, image) = match forked {
            Ok((frozen, note)) => {
                frozen.keep_for_analysis();
                let answer = self.examine(&frozen, question, now, look).and_then(|(answer, mut capture)| {
                    // What "is not mapped" may be an image that was killed meanwhile.
                    frozen.intact().map_err(|error| EngineError::Refused(error.to_string()))?;
                    capture.notes.extend(note);
                    Ok((answer, capture))
                });
                (answer, Some(frozen))
            }
            Err(no_image) => {
                let live = targets::rolling().or_else(|_| Live::now());
                let live = live.map_err(|error| EngineError::Refused(error.to_string()));
                let answer = live.and_then(|live| {
                    let (answer, mut capture) = self.examine(&live, question, now, look)?;
                    capture.consistent = false;
                    let note = format!("read while the program went on, so parts may not agree: {no_image}");
                    capture.notes.insert(0, note);
                    Ok((answer, capture))
                });
                (answer, None)
            }
        };
        let took = |(answer, capture)| (answer, Capture { total_us: micros(begun.elapsed()), ..capture });
        (answer.map(took), image)
    }

    fn examine<R>(
        &mut self,
        snapshot: &dyn Snapshot,
        question: Question<'_>,
        now: Option<u64>,
        look: impl FnOnce(Examination<'_, '_, '_>) -> R,
    ) -> Result<(R, Capture), EngineError> {
        let (file, places) = (&self.own.mapped, question.places);
        let bias = self.types.borrow_owner().bias(file, snapshot.mappings()).ok_or_else(|| {
            EngineError::Refused(format!("our own file {} is not among the mappings", file.display()))
        })?;
        let history = Some(Arc::clone(question.history));
        let options = Options { bias, scan: SCAN, now, history, places, entered: true };
        let others = self.others.find(file, snapshot);
        let answer = self.types.with_dependent_mut(|_, learned| {
            learned.examine(snapshot, others, &question.roots.addresses(), &options, look)
        });
        let mut capture = snapshot.capture().clone();
        capture.notes.extend(other_objects::left_out(others).filter(|_| places));
        Ok((answer, capture))
    }
}
