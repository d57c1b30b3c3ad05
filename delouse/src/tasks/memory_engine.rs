//! The default engine: reads tasks from an image of our own memory, by the types in the debug information.
//!
//! Polls nothing, asks nobody: it works when every worker is blocked. The program stands still for one
//! `fork`; where that would take longer than the budget, our own live memory is read instead and the answer
//! is marked.

use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::engine::{Engine, EngineError, EngineName, TaskList};
use super::roots::Roots;
use super::{Knowledge, Options, list_with};
use crate::debuginfo::image::Image;
use crate::debuginfo::types::Types;
use crate::snapshot::{self, Limits, Live, Snapshot};

/// How long types are kept for the next request: they take tens of megabytes.
const UNUSED: Duration = Duration::from_secs(60);
/// Memory that is scanned at most for tasks that are on no list; half a second.
const SCAN: u64 = 1 << 30;

/// See the module.
pub(crate) struct MemoryEngine {
    limits: Limits,
    /// The thread that keeps the types, where one runs. Types are made of `Rc`: they never leave it.
    reader: Mutex<Option<mpsc::Sender<Job>>>,
}

struct Job {
    roots: Roots,
    limits: Limits,
    reply: mpsc::SyncSender<Result<TaskList, EngineError>>,
}

impl MemoryEngine {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, reader: Mutex::new(None) }
    }

    /// Hands the job to the thread that keeps the types; starts one where none is left.
    fn send(&self, job: Job) -> Result<(), EngineError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match reader.as_ref() {
            None => job,
            Some(running) => match running.send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(job)) => job,
            },
        };
        let (sender, jobs) = mpsc::channel();
        thread::Builder::new()
            .name("delouse-types".to_owned())
            .spawn(move || read(&jobs))
            .map_err(|error| EngineError::Refused(format!("no thread to read types: {error}")))?;
        let _just_started = sender.send(job);
        *reader = Some(sender);
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> EngineName {
        EngineName::Memory
    }

    fn list(&self, roots: &Roots) -> Result<TaskList, EngineError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Job { roots: roots.clone(), limits: self.limits, reply })?;
        answer.recv().unwrap_or_else(|_| {
            Err(EngineError::Refused("reading tasks panicked; the program is not affected".to_owned()))
        })
    }
}

/// The thread that keeps the types, until nobody has asked for a while.
fn read(jobs: &mpsc::Receiver<Job>) {
    let Ok(first) = jobs.recv() else { return };
    // The link leads to the file that runs, even where another one has taken its place by now.
    let image = match Image::open("/proc/self/exe".as_ref()) {
        Ok(image) => image,
        Err(error) => {
            let reason = format!("our own executable: {error}");
            return drop(first.reply.send(Err(EngineError::Refused(reason))));
        }
    };
    let types = Types::open(&image);
    let mut reader = Reader { image: &image, types: &types, knowledge: None };
    let mut next = Ok(first);
    while let Ok(job) = next {
        let listed = reader.capture(&job);
        if listed.is_err() {
            // It may have been learned from an image that was killed meanwhile.
            reader.knowledge = None;
        }
        // Whoever asked may have gone.
        let _gone = job.reply.send(listed);
        next = jobs.recv_timeout(UNUSED);
    }
}

/// Our own executable, and what was learned of it so far.
struct Reader<'p, 'i> {
    image: &'i Image,
    types: &'p Types<'i>,
    knowledge: Option<Knowledge<'p, 'i>>,
}

impl Reader<'_, '_> {
    fn capture(&mut self, job: &Job) -> Result<TaskList, EngineError> {
        let begun = Instant::now();
        let roots = job.roots.addresses();
        let now = snapshot::monotonic_nanos();
        // Threads tell of runtimes that nobody registered, and which task each of them polls; the tasks
        // themselves are in memory.
        let forked = snapshot::fork_with_threads(job.limits).map(|image| (image, None)).or_else(|error| {
            let note = format!("threads could not be asked, so what they poll is not known: {error}");
            snapshot::fork(job.limits).map(|image| (image, Some(note)))
        });
        let mut list = match forked {
            Ok((frozen, note)) => {
                let mut list = self.list_in(&frozen, &roots, now)?;
                // What "is not mapped" may be an image that was killed meanwhile.
                frozen.intact().map_err(|error| EngineError::Refused(error.to_string()))?;
                list.capture.notes.extend(note);
                list
            }
            Err(no_image) => {
                let live = snapshot::rolling().or_else(|_| Live::now());
                let live = live.map_err(|error| EngineError::Refused(error.to_string()))?;
                let mut list = self.list_in(&live, &roots, now)?;
                list.capture.consistent = false;
                let note = format!("read while the program went on, so parts may not agree: {no_image}");
                list.capture.notes.insert(0, note);
                list
            }
        };
        list.capture.total_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(list)
    }

    fn list_in(
        &mut self,
        snapshot: &dyn Snapshot,
        roots: &[super::Root],
        now: Option<u64>,
    ) -> Result<TaskList, EngineError> {
        let executable = std::fs::read_link("/proc/self/exe").unwrap_or_else(|_| PathBuf::new());
        let bias = self.image.bias(&executable, snapshot.mappings()).ok_or_else(|| {
            EngineError::Refused(format!(
                "our own executable {} is not among the mappings",
                executable.display()
            ))
        })?;
        let knowledge = match self.knowledge.take() {
            Some(known) if known.bias() == bias => known,
            _ => Knowledge::new(self.types, bias),
        };
        let knowledge = self.knowledge.insert(knowledge);
        let listing = list_with(snapshot, knowledge, roots, &Options { bias, scan: SCAN, now });
        let mut capture = snapshot.capture().clone();
        capture.notes.extend(listing.notes);
        Ok(TaskList { tasks: listing.tasks, capture, without_types: listing.without_types })
    }
}
