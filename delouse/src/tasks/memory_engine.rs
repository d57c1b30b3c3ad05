//! The default engine: reads tasks from an image of our own memory, by the types in the debug information.
//!
//! Polls nothing, asks nobody: it works when every worker is blocked. The program stands still for one
//! `fork`; where that would take longer than the budget, our own live memory is read instead and the answer
//! is marked.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::engine::{Engine, EngineError, EngineName, TaskList};
use super::other_objects::{self, OtherObjects};
use super::roots::Roots;
use super::{Examination, Knowledge, Options, examine_with, files, running};
use crate::debuginfo::image::Image;
use crate::debuginfo::types::Types;
use crate::snapshot::heap::{Before, Grown};
use crate::snapshot::own_object::OwnObject;
use crate::snapshot::room;
use crate::snapshot::{self, Capture, Limits, Live, Snapshot, micros};

/// How long types are kept for the next request: they take tens of megabytes.
const UNUSED: Duration = Duration::from_secs(60);
/// Of the thread that keeps them, in bytes.
const STACK: usize = 2 << 20;
/// Memory that is scanned at most for tasks that are on no list: about a tenth of a second.
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
    /// Whether it is wanted where tasks lie.
    places: bool,
    look: Box<dyn Look>,
}

/// What somebody wants to know of a capture.
trait Look: Send {
    /// Looks. Nothing of the examination may be kept.
    fn look(&mut self, examination: Examination<'_, '_, '_>);

    /// Hands over what was seen, or why nothing was.
    fn reply(self: Box<Self>, capture: Result<Capture, EngineError>);
}

type Answer<R> = Result<(R, Capture), EngineError>;

/// A function that looks, and who waits for what it says.
struct Asked<F, R> {
    look: Option<F>,
    seen: Option<R>,
    reply: mpsc::SyncSender<Answer<R>>,
}

impl<F, R> Look for Asked<F, R>
where
    F: FnOnce(Examination<'_, '_, '_>) -> R + Send,
    R: Send,
{
    fn look(&mut self, examination: Examination<'_, '_, '_>) {
        self.seen = self.look.take().map(|look| look(examination));
    }

    fn reply(mut self: Box<Self>, capture: Result<Capture, EngineError>) {
        let seen = self.seen.take().ok_or_else(|| EngineError::Refused("nothing was captured".to_owned()));
        // Whoever asked may have gone.
        let _gone = self.reply.send(capture.and_then(|capture| Ok((seen?, capture))));
    }
}

impl MemoryEngine {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, reader: Mutex::new(None) }
    }

    /// Captures the tasks and lets `look` see them, on the thread that keeps the types. May take seconds.
    pub(super) fn examine<R, F>(&self, roots: &Roots, look: F) -> Answer<R>
    where
        F: FnOnce(Examination<'_, '_, '_>) -> R + Send + 'static,
        R: Send + 'static,
    {
        self.ask(roots, true, look)
    }

    fn ask<R, F>(&self, roots: &Roots, places: bool, look: F) -> Answer<R>
    where
        F: FnOnce(Examination<'_, '_, '_>) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (reply, answer) = mpsc::sync_channel(1);
        let look = Box::new(Asked { look: Some(look), seen: None, reply });
        self.send(Job { roots: roots.clone(), limits: self.limits, places, look })?;
        answer.recv().unwrap_or_else(|_| {
            Err(EngineError::Refused(
                "the thread that reads tasks ended; ask again. The program is not affected".to_owned(),
            ))
        })
    }

    /// Has the types forgotten that are kept for the next request.
    pub(super) fn release(&self) {
        // The thread that keeps them ends when no other job can come.
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
        if room::is_narrow() || room::thread(STACK as u64).is_err() {
            // Here and now, and forgotten when it is done.
            drop(reader);
            let _just_made = sender.send(job);
            drop(sender);
            read(jobs).unwrap_or_default().give_back();
            return Ok(());
        }
        thread::Builder::new()
            .name("delouse-types".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                if let Some(grown) = read(jobs) {
                    grown.give_back();
                }
            })
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
        let look = |examination: Examination<'_, '_, '_>| {
            let threads = running::threads(&examination);
            (examination.listing, threads)
        };
        let ((mut listing, threads), mut capture) = self.ask(roots, false, look)?;
        listing.notes.extend(files::describe(&mut listing.tasks));
        capture.notes.extend(listing.notes);
        Ok(TaskList {
            tasks: listing.tasks,
            capture,
            threads,
            without_types: listing.without_types && listing.shortage.is_none(),
        })
    }
}

/// The thread that keeps the types, until nobody has asked for a while. Gives what the first answer took, most of which
/// is types: it is free by then.
fn read(jobs: mpsc::Receiver<Job>) -> Option<Grown> {
    let first = jobs.recv().ok()?;
    let before = Before::now();
    let opened = OwnObject::find().map_err(|error| error.to_string());
    let opened =
        opened.and_then(|own| Ok((Image::open(&own.opened).map_err(|error| error.to_string())?, own)));
    let (image, own) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let reason = format!("the file with our own code: {error}");
            first.look.reply(Err(EngineError::Refused(reason)));
            return None;
        }
    };
    let types = Types::open(&image);
    let others = OtherObjects::default();
    let mut reader = Reader { own, others, image: &image, types: &types, knowledge: None };
    let (mut next, mut grown) = (Ok(first), None);
    while let Ok(mut job) = next {
        let (captured, image) = reader.capture(&mut job);
        grown.get_or_insert_with(|| before.grown());
        if captured.is_err() {
            // It may have been learned from an image that was killed meanwhile.
            reader.knowledge = None;
        }
        job.look.reply(captured);
        // A large child takes some milliseconds to end, which whoever asked need not wait for.
        drop(image);
        if reader.image.shortage().is_some() {
            // The next answer may have the memory for all of it.
            break;
        }
        next = jobs.recv_timeout(UNUSED);
    }
    // Before all that was read is given back, which takes a while: who asks meanwhile gets a new thread.
    drop(jobs);
    grown
}

/// The file with our own code, and what was learned of it so far.
struct Reader<'p, 'i> {
    own: OwnObject,
    others: OtherObjects,
    image: &'i Image,
    types: &'p Types<'i>,
    knowledge: Option<Knowledge<'p, 'i>>,
}

impl Reader<'_, '_> {
    /// Looks at the program for `job`. What was looked at comes along, where that was an image.
    fn capture(&mut self, job: &mut Job) -> (Result<Capture, EngineError>, Option<snapshot::Image>) {
        let begun = Instant::now();
        let roots = job.roots.addresses();
        let now = snapshot::monotonic_nanos();
        // Threads tell of runtimes that nobody registered, and which task each of them polls; the tasks
        // themselves are in memory.
        let forked = snapshot::fork_with_threads(job.limits).map(|image| (image, None)).or_else(|error| {
            let note = format!("threads could not be asked, so what they poll is not known: {error}");
            snapshot::fork(job.limits).map(|image| (image, Some(note)))
        });
        let (places, look) = (job.places, job.look.as_mut());
        let (captured, image) = match forked {
            Ok((frozen, note)) => {
                let captured = self.look_at(&frozen, &roots, (now, places), look).and_then(|mut capture| {
                    // What "is not mapped" may be an image that was killed meanwhile.
                    frozen.intact().map_err(|error| EngineError::Refused(error.to_string()))?;
                    capture.notes.extend(note);
                    Ok(capture)
                });
                (captured, Some(frozen))
            }
            Err(no_image) => {
                let live = snapshot::rolling().or_else(|_| Live::now());
                let live = live.map_err(|error| EngineError::Refused(error.to_string()));
                let captured = live.and_then(|live| self.look_at(&live, &roots, (now, places), look));
                let captured = captured.map(|mut capture| {
                    capture.consistent = false;
                    let note = format!("read while the program went on, so parts may not agree: {no_image}");
                    capture.notes.insert(0, note);
                    capture
                });
                (captured, None)
            }
        };
        let captured = captured.map(|capture| Capture { total_us: micros(begun.elapsed()), ..capture });
        (captured, image)
    }

    fn look_at(
        &mut self,
        snapshot: &dyn Snapshot,
        roots: &[super::Root],
        (now, places): (Option<u64>, bool),
        look: &mut dyn Look,
    ) -> Result<Capture, EngineError> {
        let file = &self.own.mapped;
        let bias = self.image.bias(file, snapshot.mappings()).ok_or_else(|| {
            EngineError::Refused(format!("our own file {} is not among the mappings", file.display()))
        })?;
        let knowledge = match self.knowledge.take() {
            Some(known) if known.bias() == bias => known,
            _ => Knowledge::new(self.types, bias),
        };
        let knowledge = self.knowledge.insert(knowledge);
        let options = Options { bias, scan: SCAN, now, places, entered: true };
        let others = self.others.find(file, snapshot);
        examine_with(snapshot, knowledge, roots, &options, |mut seen| {
            if !places {
                others
                    .iter()
                    .for_each(|path| other_objects::add(path, snapshot, &options, &mut seen.listing));
            }
            look.look(seen);
        });
        let mut capture = snapshot.capture().clone();
        capture.notes.extend(other_objects::left_out(others).filter(|_| places));
        Ok(capture)
    }
}
