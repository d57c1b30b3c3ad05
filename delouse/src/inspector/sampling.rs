//! Samples of a program: what one contains, and how many a diagnosis takes. The same for every target.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::report::not_covered;
use crate::snapshot::{Capture, micros};
use crate::tasks::Examination;
use crate::waits::sample::Sample;
use crate::waits::{self, Analysis, diagnosis};

/// Time between samples: longer than any poll should take.
const INTERVAL: Duration = Duration::from_millis(150);
/// The most samples of one diagnosis. Two are usually enough; more are needed if threads that compute get no processor.
pub(super) const MAX_SAMPLES: usize = 6;

/// The sample of one capture, without threads and without what only the kernel knows. `mains_rest`: at that moment, no main
/// future was being polled.
pub(super) fn sample_of(seen: Examination<'_, '_, '_>, at: Duration, mains_rest: bool) -> Sample {
    let Analysis { graph, findings, not_judged, inputs, not_covered } = waits::analyse(&seen, mains_rest);
    Sample {
        at,
        listing: seen.listing,
        threads: Vec::new(),
        graph,
        findings,
        not_judged,
        half_closed: Vec::new(),
        blocked_children: Vec::new(),
        inputs,
        not_covered,
    }
}

/// The notes that a sample adds to those of its capture.
pub(super) fn notes_of(sample: &Sample) -> impl Iterator<Item = String> {
    sample.listing.notes.iter().cloned().chain(sample.not_covered.iter().map(not_covered))
}

/// Takes further samples until another one would not change the diagnosis, at most [`MAX_SAMPLES`]. `next` takes one.
/// Returns all of them, and one description of all captures, which began at `begun`.
pub(super) fn until_decided<E>(
    (first, mut capture): (Sample, Capture),
    begun: Instant,
    mut next: impl FnMut() -> Result<(Sample, Capture), E>,
) -> Result<(Vec<Sample>, Capture), E> {
    let mut samples = vec![first];
    while diagnosis::is_undecided(&samples) && samples.len() < MAX_SAMPLES {
        thread::sleep(INTERVAL);
        let (sample, of) = next()?;
        samples.push(sample);
        capture.pause_us = capture.pause_us.max(of.pause_us);
        capture.held_us = capture.held_us.max(of.held_us);
        capture.consistent &= of.consistent;
        capture.notes.extend(of.notes);
    }
    let mut seen = HashSet::new();
    capture.notes.retain(|note| seen.insert(note.clone()));
    capture.total_us = micros(begun.elapsed());
    Ok((samples, capture))
}
