//! What watching has found and what it has cost so far, for `/history` and `/metrics`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::watcher::Event;
use crate::finding_event::{Callback, FindingEvent};
use crate::host::lock::lock;
use crate::report::history::unix_ms;
use crate::report::{HistoryAnswer, HistoryEvent, WatchReport};

/// The events that are kept.
const KEPT: usize = 64;

/// The record of one program.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    watch: Option<WatchReport>,
    /// The oldest first.
    events: VecDeque<HistoryEvent>,
    dropped: u64,
    callbacks: Vec<Callback>,
}

/// What one look was.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) begun: SystemTime,
    pub(super) took: Duration,
    /// The longest stop of the program, and at most how many there were.
    pub(super) pause_us: u64,
    pub(super) pauses: u64,
    /// Why it gave no diagnosis.
    pub(super) failure: Option<String>,
    /// The time from its begin to that of the next one.
    pub(super) pace: Duration,
}

impl Journal {
    /// Adds functions that get the events from now on.
    pub(crate) fn add_callbacks(&self, callbacks: &[Callback]) {
        lock(&self.0).callbacks.extend_from_slice(callbacks);
    }

    pub(super) fn begin(&self, interval: Duration, directory: Option<String>) {
        let interval_ms = millis(interval);
        lock(&self.0).watch =
            Some(WatchReport { interval_ms, pace_ms: interval_ms, directory, ..WatchReport::default() });
    }

    pub(super) fn end(&self) {
        lock(&self.0).watch = None;
    }

    pub(super) fn looked(&self, look: Look) {
        let mut state = lock(&self.0);
        let Some(watch) = &mut state.watch else { return };
        watch.looks += 1;
        watch.failed += u64::from(look.failure.is_some());
        watch.last_ms = Some(unix_ms(look.begun));
        watch.took_ms += millis(look.took);
        watch.pause_us += look.pause_us * look.pauses;
        watch.longest_pause_us = watch.longest_pause_us.max(look.pause_us);
        watch.pace_ms = millis(look.pace);
        watch.suspended = look.failure;
    }

    /// Adds what a look has to report. `findings`: how many there are now of each kind.
    pub(super) fn add(&self, events: &[Event], findings: BTreeMap<String, usize>) {
        let mut state = lock(&self.0);
        let look = state.watch.as_mut().map_or(0, |watch| {
            watch.findings = findings;
            watch.looks
        });
        let at_ms = unix_ms(SystemTime::now());
        for event in events {
            state.events.push_back(HistoryEvent {
                at_ms,
                look,
                change: event.change,
                finding: event.finding.clone(),
                text: event.text.clone(),
                report: event.report.as_ref().map(|path| path.display().to_string()),
            });
        }
        while state.events.len() > KEPT {
            state.events.pop_front();
            state.dropped += 1;
        }
    }

    /// Calls the functions of the program, without the lock.
    pub(super) fn call(&self, events: &[FindingEvent]) {
        if events.is_empty() {
            return;
        }
        let callbacks = lock(&self.0).callbacks.clone();
        for Callback(callback) in &callbacks {
            for event in events {
                let call = std::panic::AssertUnwindSafe(|| callback(event));
                // The panic's message is on stderr; the watch continues.
                let _panicked = std::panic::catch_unwind(call);
            }
        }
    }

    /// How the program is watched; `None` if it is not.
    pub(crate) fn figures(&self) -> Option<WatchReport> {
        lock(&self.0).watch.clone()
    }

    /// The answer of `/history`.
    pub(crate) fn answer(&self) -> HistoryAnswer {
        let state = lock(&self.0);
        let events = state.events.iter().rev().cloned().collect();
        HistoryAnswer::new(state.watch.clone(), events, state.dropped, unix_ms(SystemTime::now()))
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}
