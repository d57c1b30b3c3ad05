//! Captures and analyses a program other than this one: a running process, or a core file.

mod error;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::learned::Learned;
use super::sampling::{self, Diagnosed};
use super::target::{Target, TargetError};
use crate::debuginfo::address::LoadBias;
use crate::debuginfo::elf::{self, ElfError, ElfInfo};
use crate::debuginfo::image::Image;
use crate::debuginfo::symbols::Symbols;
use crate::debuginfo::types::Types;

use crate::report::{DiagnosisAnswer, Filter, TasksAnswer, ThreadsAnswer, WaitsAnswer};
use crate::snapshot::{Capture, Snapshot, Thread, micros};
use crate::targets::program_file::ProgramFile;
use crate::tasks::engine::{EngineName, TaskList};
use crate::tasks::other_objects::{self, OtherObjects};
use crate::tasks::process::Program;
use crate::tasks::{
    Examination, History, Listing, Options, current_task_offset, describe_files, threads_of_one_moment,
};
use crate::threads::classify::mains_rest;
use crate::threads::{ThreadRole, ThreadStack, polled, stacks};
use crate::waits::diagnosis::{Diagnosis, Earlier, diagnose};
use crate::waits::growing::Counts;
use crate::waits::sample::Sample;
use crate::waits::{NotCovered, Observation, Observed};

pub(crate) use error::ForeignError;

/// At most this much memory is scanned for tasks that are on no list, in bytes.
const SCAN: u64 = 4 << 30;

/// What a diagnosis of a core file cannot know.
const ONE_SAMPLE: &str = "a core file is a single sample: blocked workers, starved tasks, busy loops and growth need several, \
     and were not looked for (delouse threads shows what each thread was doing)";

/// A target with what was learned of it so far.
pub(crate) struct Foreign<'i> {
    target: &'i Target,
    /// The executable, or the library that contains tokio if the executable does not.
    file: ProgramFile,
    image: &'i Image,
    learned: Learned<'i>,
    others: OtherObjects,
    symbols: Symbols,
    past: Past,
    /// Whether tasks were read before, so that their types are known.
    is_warm: bool,
}

/// What later captures of a target compare with. It stays when the types are dropped and read again.
#[derive(Clone)]
pub(super) struct Past {
    history: Arc<History>,
    /// The times of samples are measured from here.
    start: Instant,
}

impl Past {
    pub(super) fn begins_now() -> Self {
        Self { history: Arc::default(), start: Instant::now() }
    }
}

/// One capture.
struct Moment {
    snapshot: Arc<dyn Snapshot>,
    bias: LoadBias,
    /// When it was taken.
    at: Duration,
    begun: Instant,
    /// The target's clock then.
    now: Option<u64>,
}

/// Calls `ask` with an inspector of `target`. `executable`: the path of its executable, if it is not the one that the target
/// names.
///
/// # Errors
/// If the executable cannot be read, and those of `ask`.
pub(crate) fn inspect<R, E: From<ForeignError>>(
    target: &Target,
    executable: Option<&Path>,
    ask: impl FnOnce(&mut Foreign<'_>) -> Result<R, E>,
) -> Result<R, E> {
    let executable = program_file(target, executable).map_err(ForeignError::from)?;
    let image = open(&executable)?;
    let mut program = Foreign::new(target, executable, &image, Past::begins_now());
    let Some(library) = program.library_with_tokio()? else { return ask(&mut program) };
    let image = open(&library)?;
    ask(&mut Foreign::new(target, library, &image, Past::begins_now()))
}

/// Describes the executable of a target: how it was built, and how good the answers are for it.
pub(crate) fn elf(file: &ProgramFile) -> Result<ElfInfo, ElfError> {
    let (name, replaced) = file.name();
    elf::inspect_as(&file.opened, name, replaced)
}

/// The executable of a target: `given`, or the one that the target names.
pub(crate) fn program_file(target: &Target, given: Option<&Path>) -> Result<ProgramFile, TargetError> {
    match given {
        Some(path) => Ok(ProgramFile::given(path)),
        None => target.executable(),
    }
}

pub(super) fn open(file: &ProgramFile) -> Result<Image, ForeignError> {
    let path = || file.name().0.to_owned();
    Image::open(&file.opened).map_err(|error| ForeignError::Executable { path: path(), error })
}

impl<'i> Foreign<'i> {
    /// `image` is that of `file`.
    pub(super) fn new(target: &'i Target, file: ProgramFile, image: &'i Image, past: Past) -> Self {
        Self {
            target,
            file,
            image,
            learned: Learned::new(Types::open(image)),
            others: OtherObjects::default(),
            symbols: Symbols::new(),
            past,
            is_warm: false,
        }
    }

    /// The first library of the target that contains tokio, if the executable does not.
    pub(super) fn library_with_tokio(&self) -> Result<Option<ProgramFile>, ForeignError> {
        if other_objects::have_tokio(self.learned.types()) {
            return Ok(None);
        }
        let snapshot = self.target.capture_without_pause()?;
        let mut others = OtherObjects::default();
        let found = others.find(&self.file.mapped, &*snapshot).first();
        Ok(found.map(|path| ProgramFile::mapped_at(path)))
    }

    /// Checks that the target has tasks of tokio, and symbols to find them by.
    ///
    /// # Errors
    /// What it lacks.
    pub(crate) fn check_tokio(&self) -> Result<(), ForeignError> {
        let types = self.learned.types();
        if other_objects::have_tokio(types) {
            return Ok(());
        }
        let name = self.file.name().0.to_owned();
        let made_by = elf(&self.file).map(|info| info.comments).unwrap_or_default();
        let is_rust = made_by.iter().any(|compiler| compiler.contains("rustc"))
            || !types.symbols_with("rust_").is_empty();
        Err(match () {
            () if !is_rust => ForeignError::NotRust(name),
            () if !types.has_symbols() => ForeignError::Stripped(name),
            () => ForeignError::NoTokio(name),
        })
    }

    /// All tasks of one capture.
    pub(crate) fn tasks(&mut self, filter: &Filter, full: bool) -> Result<TasksAnswer, ForeignError> {
        let moment = self.capture()?;
        let ((mut listing, threads), mut capture) = self.examine(&moment, false, |examination| {
            let threads = threads_of_one_moment(&examination);
            (examination.listing, threads)
        })?;
        if let Some(files) = self.target.files() {
            listing.notes.extend(describe_files(&mut listing.tasks, |fd| files.describe(fd)));
        }
        capture.notes.extend(listing.notes);
        let without_types = listing.without_types && listing.shortage.is_none();
        if without_types && listing.tasks.is_empty() {
            return Err(self.no_types());
        }
        let list = TaskList { tasks: listing.tasks, capture, threads, without_types };
        let stacks_of = |threads| self.stacks_of(&moment, threads);
        Ok(TasksAnswer::new((EngineName::Memory, list), stacks_of, filter, full))
    }

    /// The same without the text.
    pub(crate) fn listing(&mut self) -> Result<Listing, ForeignError> {
        let moment = self.capture()?;
        Ok(self.examine(&moment, false, |examination| examination.listing)?.0)
    }

    /// The stacks of all threads of one capture.
    pub(crate) fn threads(&mut self, full: bool) -> Result<ThreadsAnswer, ForeignError> {
        let moment = self.capture_now()?;
        let mut capture = moment.snapshot.capture().clone();
        let threads = self.threads_of(&moment, &mut capture);
        self.target.check_readable(&*moment.snapshot)?;
        capture.total_us = micros(moment.begun.elapsed());
        Ok(ThreadsAnswer::new((threads, capture), full))
    }

    /// What each task waits for, of one capture.
    pub(crate) fn waits(&mut self) -> Result<WaitsAnswer, ForeignError> {
        Ok(WaitsAnswer::new(self.sample_of_waits()?).0)
    }

    /// A sample of one capture, without threads.
    pub(super) fn sample_of_waits(&mut self) -> Result<(Sample, Capture), ForeignError> {
        let moment = self.capture()?;
        let (sample, mut capture) = self.examine_waits(&moment, false, false)?;
        capture.notes.extend(sampling::notes_of(&sample));
        if sample.listing.without_types && sample.listing.shortage.is_none() {
            return Err(self.no_types());
        }
        Ok((sample, capture))
    }

    /// The number of tasks with each stack.
    pub(super) fn counts(&mut self) -> Result<Counts, ForeignError> {
        let moment = self.capture()?;
        let counts = |seen: Examination<'_, '_, '_>| Counts::new(moment.at, &seen.listing.tasks);
        Ok(self.examine(&moment, true, counts)?.0)
    }

    /// What is wrong. Takes as many samples of a running process as the findings need, one of a core file. `growth`: also
    /// measures what grows during this time.
    pub(crate) fn diagnosis(&mut self, growth: Option<Duration>) -> Result<DiagnosisAnswer, ForeignError> {
        let earlier = match growth {
            // A core file does not grow.
            Some(time) if self.target.is_running() => {
                let counts = self.counts()?;
                thread::sleep(time);
                Some(counts)
            }
            _ => None,
        };
        Ok(self.diagnose(Earlier { requested: earlier.as_ref(), kept: None })?.answer())
    }

    /// The same with the samples, and without measuring growth.
    pub(super) fn diagnose(&mut self, earlier: Earlier<'_>) -> Result<Diagnosed, ForeignError> {
        let begun = Instant::now();
        let first = self.sample(false)?;
        let (samples, mut capture) = if self.target.is_running() {
            let wants_sockets = !first.0.half_closed.is_empty();
            sampling::until_decided(first, begun, || self.sample(wants_sockets))?
        } else {
            (vec![first.0], first.1)
        };
        if !self.target.is_running() {
            capture.notes.push(ONE_SAMPLE.to_owned());
        }
        let files = self.target.open_files();
        let mut found = diagnose(&samples, files.as_ref(), earlier);
        if let Some(last) = samples.last() {
            add_unread_mains(last, &mut found);
            if found.findings.is_empty() && last.listing.without_types && last.listing.shortage.is_none() {
                return Err(self.no_types());
            }
        }
        Ok(Diagnosed { samples, capture, found })
    }

    fn no_types(&self) -> ForeignError {
        ForeignError::NoTypes(self.file.name().0.to_owned())
    }

    /// A sample without threads.
    fn examine_waits(
        &mut self,
        moment: &Moment,
        mains_rest: bool,
        wants_sockets: bool,
    ) -> Result<(Sample, Capture), ForeignError> {
        let files = self.target.files();
        let kernel = |fds: &[i32]| files.as_ref().map(|files| files.own_connections(fds)).unwrap_or_default();
        let (mut sample, capture) = self.examine(moment, true, |examination| {
            sampling::sample_of(examination, moment.at, mains_rest, &kernel, wants_sockets)
        })?;
        let lacking = Some(capture.lacking).filter(|lacking| *lacking > 0);
        sample.not_covered.extend(lacking.map(|lacking| NotCovered::Memory { lacking }));
        Ok((sample, capture))
    }

    /// One sample, with the threads of the same moment.
    fn sample(&mut self, wants_sockets: bool) -> Result<(Sample, Capture), ForeignError> {
        let moment = self.capture()?;
        let mut of_threads = Capture::default();
        let threads = self.threads_of(&moment, &mut of_threads);
        let rest = mains_rest(&threads);
        let (mut sample, mut capture) = self.examine_waits(&moment, rest, wants_sockets)?;
        capture.notes.extend(of_threads.notes);
        capture.notes.extend(sampling::notes_of(&sample));
        sample.threads = threads;
        if let Some(files) = self.target.files() {
            sampling::ask_the_kernel(&mut sample, |fd| files.describe(fd), |most| files.closed_by_peer(most));
        }
        Ok((sample, capture))
    }

    /// Captures the target. Before the first capture of a program that runs on meanwhile, reads its debug information, which
    /// would otherwise make seconds pass between the reading of one task and that of the next.
    fn capture(&mut self) -> Result<Moment, ForeignError> {
        let moment = self.capture_now()?;
        if self.is_warm || !self.target.is_running() || moment.snapshot.capture().consistent {
            return Ok(moment);
        }
        self.examine(&moment, true, |_| ())?;
        // Its helper must not trace threads any more.
        drop(moment);
        self.is_warm = true;
        self.capture_now()
    }

    fn capture_now(&self) -> Result<Moment, ForeignError> {
        let (begun, at, now) = (Instant::now(), self.past.start.elapsed(), self.target.now());
        let snapshot = self.target.capture()?;
        let bias = bias(self.image, &self.file, &*snapshot)
            .ok_or_else(|| ForeignError::OtherProgram(self.file.name().0.to_owned()))?;
        Ok(Moment { snapshot, bias, at, begun, now })
    }

    fn examine<R>(
        &mut self,
        moment: &Moment,
        places: bool,
        look: impl FnOnce(Examination<'_, '_, '_>) -> R,
    ) -> Result<(R, Capture), ForeignError> {
        let Moment { snapshot, bias, begun, now, .. } = moment;
        let history = Some(Arc::clone(&self.past.history));
        let options = Options { bias: *bias, scan: SCAN, now: *now, history, places, entered: true };
        let others = self.others.find(&self.file.mapped, &**snapshot);
        let answer = self.learned.examine(&**snapshot, others, &[], &options, look);
        // Memory of a process or image that has ended looks like memory without tasks.
        self.target.check_readable(&**snapshot)?;
        let mut capture = snapshot.capture().clone();
        capture.notes.extend(other_objects::left_out(others).filter(|_| places));
        capture.total_us = micros(begun.elapsed());
        Ok((answer, capture))
    }

    /// The stacks of all threads, each with the task that it polls. Adds to the notes of `capture`.
    fn threads_of(&self, moment: &Moment, capture: &mut Capture) -> Vec<ThreadStack> {
        let snapshot = &*moment.snapshot;
        let (mut threads, notes) = stacks::stacks(snapshot, &self.symbols);
        let program = Program { types: Arc::clone(self.learned.types()), bias: moment.bias };
        if let Some(offset) = current_task_offset(&program, snapshot.arch()) {
            for (stack, thread) in threads.iter_mut().zip(snapshot.threads()) {
                stack.runs_task = polled::task_frames(&stack.frames)
                    .and_then(|_| polled::task_at(thread, snapshot, offset));
            }
        }
        capture.notes.extend(notes);
        if let Some(shortage) = self.symbols.settle() {
            capture.notes.push(format!("lines, inlined functions and some names are missing: {shortage}"));
        }
        threads
    }

    /// The stacks of some threads of a capture.
    fn stacks_of(&self, moment: &Moment, threads: Vec<Thread>) -> Vec<ThreadStack> {
        if threads.is_empty() {
            return Vec::new();
        }
        stacks::stacks_of(&*moment.snapshot, &threads, &self.symbols).0
    }
}

/// Adds that nothing is known of main futures that were not found: their threads wait in `block_on`, and a note names each.
fn add_unread_mains(last: &Sample, found: &mut Diagnosis) {
    let drives = |thread: &ThreadStack| {
        let mains = last.listing.tasks.iter().take_while(|task| task.id == 0);
        mains.filter_map(|main| main.found_in.as_ref()).any(|call| call.thread == thread.tid)
    };
    let is_unread = |thread: &&ThreadStack| thread.role == ThreadRole::TokioBlockOn && !drives(thread);
    let count = last.threads.iter().filter(is_unread).count();
    if count == 0 {
        return;
    }
    match found.observations.iter_mut().find(|one| one.fact == Observed::NotJudged) {
        Some(known) => {
            known.count += count;
            known.tasks.insert(0, 0);
        }
        None => found.observations.push(Observation {
            tasks: vec![0],
            count,
            waiting: None,
            fact: Observed::NotJudged,
        }),
    }
}

/// The bias of a program in a snapshot. The program may have run from another path than that of `file`: then it is found by
/// its build-id.
fn bias(image: &Image, file: &ProgramFile, snapshot: &dyn Snapshot) -> Option<LoadBias> {
    let mappings = snapshot.mappings();
    let known = [&file.mapped, &file.opened].into_iter().find_map(|path| image.bias(path, mappings));
    let same_build = || {
        let code = mappings.iter().filter(|mapping| mapping.execute);
        let mut paths: Vec<&Path> = code.filter_map(|mapping| mapping.path.as_deref()).collect();
        paths.dedup();
        let biases = paths.into_iter().filter_map(|path| image.bias(path, mappings));
        biases.into_iter().find(|bias| image.is_at(*bias, snapshot) == Some(true))
    };
    known.filter(|bias| image.is_at(*bias, snapshot) != Some(false)).or_else(same_build)
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64", feature = "dump"))]
mod tests {
    use super::*;
    use crate::targets;
    use crate::targets::Limits;

    #[test]
    fn the_program_is_found_by_any_path() {
        let snapshot = targets::fork(Limits { force: true, ..Limits::default() }).unwrap();
        let ran = std::env::current_exe().unwrap();
        let of = |path: &Path| bias(&Image::open(path).unwrap(), &ProgramFile::given(path), &snapshot);
        let expected = of(&ran).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let [copy, link, renamed] = ["app", "link", "renamed"].map(|name| elsewhere.path().join(name));
        std::fs::copy(&ran, &copy).unwrap();
        std::fs::copy(&ran, &renamed).unwrap();
        std::os::unix::fs::symlink(&ran, &link).unwrap();
        for path in [&copy, &link, &renamed] {
            assert_eq!(of(path), Some(expected), "{}", path.display());
        }
        assert_eq!(of(Path::new("/bin/sh")), None);
        // Another build with the same file name.
        let namesake = elsewhere.path().join(ran.file_name().unwrap());
        std::fs::copy("/bin/sh", &namesake).unwrap();
        assert_eq!(of(&namesake), None);
    }
}
