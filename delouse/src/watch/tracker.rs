//! Which findings of a look are new, have changed, or are gone.

use super::identity::Identity;
use crate::finding_change::FindingChange;
use crate::report::{DiagnosisAnswer, FindingReport};
use crate::waits::Severity;

/// The looks that must agree that a finding is gone.
const MISSED: u8 = 2;

/// The findings of the last look, and those that were reported.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    before: Vec<Identity>,
    reported: Vec<Known>,
}

/// A change that is worth a report.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) change: FindingChange,
    pub(super) finding: FindingReport,
    /// The finding with its tasks.
    pub(super) text: String,
    /// Further findings of the same kind at the same lines.
    pub(super) alike: usize,
}

/// Findings with the same cause.
#[derive(Debug)]
struct Known {
    identity: Identity,
    /// The worst of them.
    finding: FindingReport,
    text: String,
    alike: usize,
    is_certain: bool,
    /// How many tasks they are about.
    count: usize,
    /// How many looks in succession have not seen it.
    missed: u8,
}

impl Known {
    fn of((identity, finding, text): &(Identity, &FindingReport, &str)) -> Self {
        Self {
            identity: identity.clone(),
            finding: (*finding).clone(),
            text: (*text).to_owned(),
            alike: 0,
            is_certain: finding.severity == Severity::Certain,
            count: finding.count,
            missed: 0,
        }
    }

    fn join(&mut self, other: &Self) {
        self.identity.join(&other.identity);
        self.alike += 1;
        self.is_certain |= other.is_certain;
        self.count += other.count;
    }

    /// Whether it says more than what was reported: a suspicion is certain now, or it is about at least twice as many
    /// tasks.
    fn is_worse(&self, reported: &Self) -> bool {
        (self.is_certain && !reported.is_certain)
            || (self.count > reported.count && self.count >= reported.count.saturating_mul(2))
    }

    fn found(&self, change: FindingChange) -> Found {
        Found { change, finding: self.finding.clone(), text: self.text.clone(), alike: self.alike }
    }
}

impl Tracker {
    /// The findings that were reported and are not gone, one for each cause.
    pub(super) fn present(&self) -> impl Iterator<Item = &FindingReport> {
        self.reported.iter().map(|known| &known.finding)
    }

    /// Compares a look with the one before, and with what was reported.
    pub(super) fn look(&mut self, answer: &DiagnosisAnswer) -> Vec<Found> {
        let texts = answer.texts_of_findings();
        let seen: Vec<_> = (answer.findings.iter().zip(texts))
            .map(|(finding, text)| (Identity::of(finding), finding, text))
            .collect();
        let is_confirmed =
            |seen: &&(Identity, _, _)| self.before.iter().any(|before| before.is_same_instance(&seen.0));
        let mut causes: Vec<Known> = Vec::new();
        for finding in seen.iter().filter(is_confirmed) {
            let next = Known::of(finding);
            match causes.iter_mut().find(|cause| cause.identity.is_same_cause(&next.identity)) {
                Some(cause) => cause.join(&next),
                None => causes.push(next),
            }
        }
        let mut found = Vec::new();
        for cause in causes {
            match self.reported.iter_mut().find(|known| known.identity.is_same_cause(&cause.identity)) {
                None => {
                    found.push(cause.found(FindingChange::New));
                    self.reported.push(cause);
                }
                Some(known) if cause.is_worse(known) => {
                    found.push(cause.found(FindingChange::Changed));
                    *known = cause;
                }
                // What is compared next time are its tasks of now; what is worse is measured by the report.
                Some(known) => known.identity = cause.identity,
            }
        }
        // What could not be read may still be there.
        if answer.not_covered.is_empty() {
            let is_seen = |known: &Known| seen.iter().any(|seen| seen.0.is_same_cause(&known.identity));
            for known in &mut self.reported {
                known.missed = if is_seen(known) { 0 } else { known.missed + 1 };
            }
            let gone = self.reported.extract_if(.., |known| known.missed >= MISSED);
            found.extend(gone.map(|known| known.found(FindingChange::Gone)));
        }
        self.before = seen.into_iter().map(|(identity, ..)| identity).collect();
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::Capture;
    use crate::tasks::ResourceKind;
    use crate::waits::diagnosis::Diagnosis;
    use crate::waits::{CodeLocation, Evidence, Finding, FindingKind, Party, Resource, TaskWait, fixtures};

    /// Tasks that wait for each other's locks at `line`.
    fn deadlock(tasks: &[u64], line: u32, severity: Severity) -> Finding {
        let wait = |task: &u64| {
            let place = CodeLocation {
                function: "app::transfer".to_owned(),
                file: Some("src/main.rs".to_owned()),
                line: Some(line),
                ..CodeLocation::default()
            };
            let resource = Resource {
                id: format!("mutex-{task}"),
                kind: ResourceKind::Mutex,
                address: Some(format!("{:#x}", task * 64)),
            };
            Evidence::Waits(TaskWait {
                task: *task,
                thread: None,
                place: Some(Arc::new(place)),
                resource: Arc::new(resource),
                future: None,
                holders: vec![Party::default()],
                more_holders: 0,
                all_known: true,
                behind_writer: false,
                blocks: false,
            })
        };
        Finding {
            kind: FindingKind::Deadlock,
            severity,
            tasks: tasks.to_vec(),
            evidence: tasks.iter().map(wait).collect(),
        }
    }

    fn answer(findings: Vec<Finding>) -> DiagnosisAnswer {
        let found = Diagnosis { findings, ..Diagnosis::default() };
        let sample = fixtures::sample(0, Vec::new(), Vec::new());
        DiagnosisAnswer::new(found, &sample, Capture::default(), None)
    }

    fn changes(tracker: &mut Tracker, findings: Vec<Finding>) -> Vec<(FindingChange, usize, usize)> {
        let found = tracker.look(&answer(findings));
        found.iter().map(|found| (found.change, found.finding.count, found.alike)).collect()
    }

    const CERTAIN: Severity = Severity::Certain;

    #[test]
    fn a_finding_is_reported_once_when_two_looks_agree_and_once_when_gone() {
        let mut tracker = Tracker::default();
        let two = || vec![deadlock(&[1, 2], 7, CERTAIN)];
        assert_eq!(changes(&mut tracker, two()), []);
        assert_eq!(changes(&mut tracker, two()), [(FindingChange::New, 2, 0)]);
        for _ in 0..3 {
            assert_eq!(changes(&mut tracker, two()), []);
        }
        assert_eq!(changes(&mut tracker, vec![]), [], "one look may miss it");
        assert_eq!(changes(&mut tracker, two()), []);
        assert_eq!(changes(&mut tracker, vec![]), []);
        assert_eq!(changes(&mut tracker, vec![]), [(FindingChange::Gone, 2, 0)]);
        assert_eq!(changes(&mut tracker, vec![]), []);
    }

    #[test]
    fn other_tasks_at_the_same_lines_do_not_confirm_and_are_not_reported_again() {
        let mut tracker = Tracker::default();
        let of = |first: u64| deadlock(&[first, first + 1], 7, CERTAIN);
        for first in [1, 3, 5, 7] {
            assert_eq!(changes(&mut tracker, vec![of(first)]), [], "each is over by the next look");
        }
        assert_eq!(changes(&mut tracker, vec![of(7)]), [(FindingChange::New, 2, 0)]);
        assert_eq!(changes(&mut tracker, vec![of(7), of(9)]), []);
        assert_eq!(
            changes(&mut tracker, vec![of(7), of(9)]),
            [(FindingChange::Changed, 2, 1)],
            "twice as many"
        );
        let many = || (7..=11).step_by(2).map(of).collect();
        for _ in 0..2 {
            assert_eq!(changes(&mut tracker, many()), [], "a few more");
        }
    }

    #[test]
    fn two_causes_are_two_reports_and_a_suspicion_that_is_proven_is_another() {
        let mut tracker = Tracker::default();
        let of = |severity| vec![deadlock(&[1, 2], 7, severity), deadlock(&[3, 4], 9, CERTAIN)];
        assert_eq!(changes(&mut tracker, of(Severity::Suspected)), []);
        let both = [(FindingChange::New, 2, 0), (FindingChange::New, 2, 0)];
        assert_eq!(changes(&mut tracker, of(Severity::Suspected)), both);
        assert_eq!(changes(&mut tracker, of(CERTAIN)), [(FindingChange::Changed, 2, 0)]);
        assert_eq!(changes(&mut tracker, of(Severity::Suspected)), []);
        assert_eq!(changes(&mut tracker, of(CERTAIN)), [], "it was reported as certain");
    }

    #[test]
    fn what_was_not_read_is_not_gone() {
        let mut tracker = Tracker::default();
        for _ in 0..2 {
            tracker.look(&answer(vec![deadlock(&[1, 2], 7, CERTAIN)]));
        }
        let mut partial = answer(Vec::new());
        partial.not_covered.push("all of it".to_owned());
        for _ in 0..4 {
            assert!(tracker.look(&partial).is_empty());
        }
    }
}
