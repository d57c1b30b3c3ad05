//! What the last captures have found, for `/metrics`: a scrape captures nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::host::lock::lock;
use crate::report::DiagnosisAnswer;
use crate::report::json::name;
use crate::snapshot::Capture;
use crate::tasks::Task;

/// The last captures, as numbers.
#[derive(Default)]
pub(crate) struct LastLook(Mutex<Figures>);

/// Counts by the names that answers use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Captures of tasks or threads so far, and how long the program was stopped by them, in microseconds.
    pub(crate) captures: u64,
    pub(crate) pause_us: u64,
    pub(crate) longest_pause_us: u64,
    pub(crate) tasks: Option<TaskFigures>,
    pub(crate) diagnosis: Option<DiagnosisFigures>,
}

/// Of the last capture of tasks.
#[derive(Debug, Clone)]
pub(crate) struct TaskFigures {
    pub(crate) at: SystemTime,
    /// By kind and state.
    pub(crate) counts: BTreeMap<(String, String), usize>,
}

/// Of the last diagnosis.
#[derive(Debug, Clone)]
pub(crate) struct DiagnosisFigures {
    pub(crate) at: SystemTime,
    /// By kind and certainty.
    pub(crate) findings: BTreeMap<(String, String), usize>,
    pub(crate) observations: BTreeMap<String, usize>,
}

impl LastLook {
    pub(crate) fn figures(&self) -> Figures {
        lock(&self.0).clone()
    }

    pub(crate) fn captured(&self, capture: &Capture) {
        let mut figures = lock(&self.0);
        figures.captures += 1;
        figures.pause_us += capture.pause_us;
        figures.longest_pause_us = figures.longest_pause_us.max(capture.pause_us);
    }

    /// All tasks of one capture.
    pub(crate) fn tasks(&self, tasks: &[Task]) {
        // Few kinds and states, a hundred thousand tasks.
        let mut by_value = BTreeMap::new();
        for task in tasks {
            by_value.entry((task.kind as u8, task.state)).or_insert((task.kind, 0)).1 += 1;
        }
        let named =
            by_value.into_iter().map(|((_, state), (kind, count))| ((name(&kind), name(&state)), count));
        lock(&self.0).tasks = Some(TaskFigures { at: SystemTime::now(), counts: named.collect() });
    }

    pub(crate) fn diagnosed(&self, answer: &DiagnosisAnswer) {
        let mut findings = BTreeMap::new();
        for finding in &answer.findings {
            *findings.entry((name(&finding.kind), name(&finding.severity))).or_default() += 1;
        }
        let mut observations = BTreeMap::new();
        for observation in &answer.observations {
            *observations.entry(name(&observation.kind)).or_default() += 1;
        }
        let at = SystemTime::now();
        lock(&self.0).diagnosis = Some(DiagnosisFigures { at, findings, observations });
    }
}
