//! An inspector that keeps what it has read of another program for later requests.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use super::foreign::{self, Foreign, ForeignError, Past};
use super::inspect::{Inspect, InspectError, Inspected};
use super::sampling::Diagnosed;
use super::target::Target;
use crate::debuginfo::elf::ElfInfo;
use crate::debuginfo::image::Image;
use crate::host::heap::{Baseline, Growth};
use crate::host::lock::lock;
use crate::report::{Filter, TasksAnswer, ThreadsAnswer};
use crate::snapshot::Capture;
use crate::targets::Limits;
use crate::targets::core_dump::CoreImage;
use crate::targets::program_file::ProgramFile;
use crate::tasks::engine::{EngineError, EngineName};
use crate::waits::diagnosis::Earlier;
use crate::waits::growing::Counts;
use crate::waits::sample::Sample;

/// Inspects a program other than this one, request after request.
pub(crate) struct ForeignInspector {
    target: Arc<Target>,
    executable: Option<PathBuf>,
    past: Past,
    /// `None` while no request has used it for some time: types and symbols take much memory.
    opened: Mutex<Option<Kept>>,
}

/// The program, and what reading it took.
struct Kept {
    program: Opened,
    /// Since it was opened.
    grown: Growth,
    used: Instant,
}

/// What [`Foreign`] borrows from.
struct Files {
    target: Arc<Target>,
    image: Image,
}

self_cell::self_cell!(
    struct Opened {
        owner: Files,
        #[not_covariant]
        dependent: Foreign,
    }
);

impl ForeignInspector {
    /// Opens the program of `target`. `executable`: the path of its executable, if it is not the one that the target names.
    ///
    /// # Errors
    /// If the process or the file cannot be read.
    pub(crate) fn open(target: Target, executable: Option<PathBuf>) -> Result<Self, ForeignError> {
        let past = Past::begins_now();
        let inspector = Self { target: Arc::new(target), executable, past, opened: Mutex::default() };
        inspector.ask(|_| Ok(()))?;
        Ok(inspector)
    }

    /// Calls `ask` with the program, which is opened again if necessary.
    fn ask<R>(
        &self,
        ask: impl FnOnce(&mut Foreign<'_>) -> Result<R, ForeignError>,
    ) -> Result<R, ForeignError> {
        let mut opened = lock(&self.opened);
        // A panic leaves nothing, because nothing is put back.
        let (mut program, grown) = match opened.take() {
            Some(Kept { program, grown, .. }) => (program, Ok(grown)),
            None => {
                let before = Baseline::now();
                (self.open_program()?, Err(before))
            }
        };
        let answer = program.with_dependent_mut(|_, program| ask(program));
        let grown = grown.unwrap_or_else(Baseline::growth);
        *opened = Some(Kept { program, grown, used: Instant::now() });
        answer
    }

    /// The same about tasks: fails if it is no program with tokio.
    fn ask_of_tasks<R>(
        &self,
        ask: impl FnOnce(&mut Foreign<'_>) -> Result<R, ForeignError>,
    ) -> Result<R, InspectError> {
        Ok(self.ask(|program| program.check_tokio().and_then(|()| ask(program)))?)
    }

    /// Fails if it is no program with tokio.
    pub(crate) fn check_tokio(&self) -> Result<(), ForeignError> {
        self.ask(|program| program.check_tokio())
    }

    fn open_program(&self) -> Result<Opened, ForeignError> {
        let executable = foreign::program_file(&self.target, self.executable.as_deref())?;
        let program = self.open_file(executable)?;
        match program.with_dependent(|_, program| program.library_with_tokio())? {
            Some(library) => self.open_file(library),
            None => Ok(program),
        }
    }

    fn open_file(&self, file: ProgramFile) -> Result<Opened, ForeignError> {
        let files = Files { image: foreign::open(&file)?, target: Arc::clone(&self.target) };
        Ok(Opened::new(files, |files| Foreign::new(&files.target, file, &files.image, self.past.clone())))
    }
}

impl Inspect for ForeignInspector {
    fn inspected(&self) -> Inspected {
        match &*self.target {
            Target::Process { pid, .. } => Inspected::Process(*pid),
            Target::Core { path, .. } => Inspected::Core(path.clone()),
        }
    }

    fn tasks_answer(
        &self,
        engine: Option<EngineName>,
        filter: &Filter,
        full: bool,
    ) -> Result<TasksAnswer, InspectError> {
        if engine == Some(EngineName::Taskdump) {
            let why = "tokio's own task dump runs inside of the program, which this server reads from outside: leave out \
                       engine=taskdump";
            return Err(EngineError::NotBuilt(why).into());
        }
        self.ask_of_tasks(|program| program.tasks(filter, full))
    }

    /// Threads are always captured at the same moment, if the process may be stopped.
    fn threads_answer(&self, _consistent: bool, full: bool) -> Result<ThreadsAnswer, InspectError> {
        Ok(self.ask(|program| program.threads(full))?)
    }

    fn sample_of_waits(&self) -> Result<(Sample, Capture), InspectError> {
        self.ask_of_tasks(|program| program.sample_of_waits())
    }

    fn diagnose(&self, earlier: Earlier<'_>) -> Result<Diagnosed, InspectError> {
        self.ask_of_tasks(|program| program.diagnose(earlier))
    }

    fn counts(&self) -> Result<Counts, InspectError> {
        self.ask_of_tasks(|program| program.counts())
    }

    fn elf(&self) -> Result<ElfInfo, InspectError> {
        // Its executable can only be opened while it runs, if the file was deleted or replaced.
        self.target.check_running().map_err(ForeignError::from)?;
        let file = foreign::program_file(&self.target, self.executable.as_deref());
        Ok(foreign::elf(&file.map_err(ForeignError::from)?)?)
    }

    fn core_image(&self, limits: Limits) -> Result<Box<dyn CoreImage>, InspectError> {
        match self.target.capture_for_core(limits.force).map_err(ForeignError::from)? {
            Some(image) => Ok(Box::new(image)),
            None => Err(EngineError::Refused("this is a core file already".to_owned()).into()),
        }
    }

    fn is_unused(&self, time: Duration) -> bool {
        match self.opened.try_lock() {
            Ok(opened) => opened.as_ref().is_some_and(|kept| kept.used.elapsed() >= time),
            Err(TryLockError::Poisoned(_)) => true,
            Err(TryLockError::WouldBlock) => false,
        }
    }

    fn drop_unused(&self, time: Duration) -> Growth {
        let unused = lock(&self.opened).take_if(|kept| kept.used.elapsed() >= time);
        unused.map_or_else(Growth::default, |Kept { program, grown, .. }| {
            drop(program);
            grown
        })
    }

    fn release(&self) -> Growth {
        self.drop_unused(Duration::ZERO)
    }
}
