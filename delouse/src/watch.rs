//! Looks at the program from time to time, and reports each finding once.
//!
//! A thread of its own schedules the looks. Each look runs on another one, as a request does, so that nothing is left of it.
//! Looks stay within the pause budget, take at most half of the time, and are left out while memory is short.

mod folder;
mod identity;
mod journal;
mod pace;
mod tracker;
mod watcher;

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

pub(crate) use journal::Journal;
pub(crate) use pace::until_next;
pub(crate) use watcher::Watcher;

use crate::finding_event::FindingEvent;
use crate::host::lock::lock;
use crate::host::memory_budget::ActiveRequest;
use crate::inspector::inspect::{Inspect, InspectError};
use crate::log;
use crate::own_threads::{capture_permit, spawn};
use crate::report::DiagnosisAnswer;
use crate::settings::WatchSettings;
use crate::snapshot::OwnThread;
use crate::stderr_dump::print;
use crate::targets;
use crate::waits::diagnosis::Earlier;
use journal::Look;

/// Watches until dropped.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Stop>);

#[derive(Debug, Default)]
struct Stop {
    is_requested: Mutex<bool>,
    requested: Condvar,
}

impl Stop {
    /// Waits for this time. Returns whether the watch is to end.
    fn wait(&self, time: Duration) -> bool {
        let guard = lock(&self.is_requested);
        let waited = self.requested.wait_timeout_while(guard, time, |is_requested| !*is_requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Watch {
    /// Starts to watch. `None` if the settings do not ask for it.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(
        inspector: Arc<dyn Inspect>,
        settings: &WatchSettings,
        journal: Arc<Journal>,
    ) -> io::Result<Option<Self>> {
        let Some(interval) = settings.interval else { return Ok(None) };
        let interval = interval.max(pace::SHORTEST);
        let stop = Arc::new(Stop::default());
        let shared = Arc::clone(&stop);
        let name = format!("process {}", std::process::id());
        let watcher = Watcher::new(name, settings.directory.as_deref());
        let directory = settings.directory.as_ref().map(|path| path.display().to_string());
        journal.begin(interval, directory);
        let theirs = Arc::clone(&journal);
        let body = move || {
            targets::yield_to_program();
            watch(&inspector, interval, watcher, &theirs, &shared);
            theirs.end();
        };
        let thread = OwnThread::Watch.builder();
        let spawned = targets::with_signals_blocked(|| thread.spawn(body));
        spawned.inspect_err(|_| journal.end())?;
        Ok(Some(Self(stop)))
    }
}

impl Drop for Watch {
    /// Does not wait for a look in progress, so that it does not delay the end of the program.
    fn drop(&mut self) {
        *lock(&self.0.is_requested) = true;
        self.0.requested.notify_all();
    }
}

fn watch(
    inspector: &Arc<dyn Inspect>,
    interval: Duration,
    mut watcher: Watcher,
    journal: &Journal,
    stop: &Stop,
) {
    let mut failure: Option<String> = None;
    let mut wait = interval;
    let mut is_first = true;
    while !stop.wait(wait) {
        let (begun, at) = (Instant::now(), SystemTime::now());
        let result = look(inspector);
        let took = begun.elapsed();
        let (pause_us, pauses) =
            result.as_ref().map_or((0, 0), |answer| (answer.capture.pause_us, answer.scope.samples as u64));
        // The first look reads the debug information, which later ones need not.
        let counted = if std::mem::take(&mut is_first) { Duration::ZERO } else { took };
        let pace = until_next(interval, counted, Duration::from_micros(pause_us * pauses));
        let why = result.as_ref().err().cloned();
        journal.looked(Look { begun: at, took, pause_us, pauses, failure: why.clone(), pace });
        if let Some(why) = why.as_ref().filter(|why| Some(*why) != failure.as_ref()) {
            log::say_once(&format!("watch: no diagnosis, until this ends: {why}"));
        }
        failure = why;
        if let Ok(answer) = result {
            let events = watcher.look(answer);
            if !events.is_empty() {
                journal.add(&events, watcher.present());
                let _no_reader = print(&watcher.block(&events));
                journal.call(&events.iter().map(FindingEvent::from).collect::<Vec<_>>());
            }
        }
        wait = pace.saturating_sub(begun.elapsed());
    }
}

/// Makes one diagnosis, on a thread of its own. The error says why there is none.
fn look(inspector: &Arc<dyn Inspect>) -> Result<DiagnosisAnswer, String> {
    let request = ActiveRequest::begin();
    let files = match capture_permit() {
        Ok(files) => files,
        Err(error) => {
            // What is kept for the next look may be what is missing.
            inspector.release().release_freed();
            return Err(error.to_string());
        }
    };
    let (done, outcome) = mpsc::sync_channel(1);
    let inspector = Arc::clone(inspector);
    let body = move || {
        let result = diagnosis(&*inspector).map_err(|error| error.to_string());
        drop(files);
        if request.should_release() {
            inspector.release().release_freed();
        }
        let _gone = done.send(result);
    };
    spawn(OwnThread::Look, body).map_err(|error| error.to_string())?;
    outcome.recv().unwrap_or_else(|_| Err("the look's thread has panicked".to_owned()))
}

/// What is wrong with a program now.
pub(crate) fn diagnosis(inspector: &dyn Inspect) -> Result<DiagnosisAnswer, InspectError> {
    Ok(inspector.diagnose(Earlier::default())?.answer())
}
