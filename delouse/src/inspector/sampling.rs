//! Samples of a program: what one contains, and how many a diagnosis takes. The same for every target.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::report::{DiagnosisAnswer, not_covered};
use crate::snapshot::{Capture, HalfClosed, OpenFile, micros};
use crate::targets;
use crate::tasks::{Direction, Examination, WaitsOn, describe_files};
use crate::waits::diagnosis::Diagnosis;
use crate::waits::sample::Sample;
use crate::waits::{self, Kernel, diagnosis};

/// Time between samples: longer than any poll should take.
const INTERVAL: Duration = Duration::from_millis(150);
/// The most samples of one diagnosis. Two are usually enough; more are needed if threads that compute get no processor.
pub(super) const MAX_SAMPLES: usize = 6;

/// The most sockets whose state is read: about a microsecond each.
const MAX_SOCKETS: usize = 1 << 16;

/// A diagnosis, with what it was made from.
pub(crate) struct Diagnosed {
    pub(crate) samples: Vec<Sample>,
    /// One description of the captures of all samples.
    pub(crate) capture: Capture,
    pub(crate) found: Diagnosis,
}

impl Diagnosed {
    /// The answer that is not kept for later ones.
    pub(crate) fn answer(mut self) -> DiagnosisAnswer {
        let last = self.samples.pop().unwrap_or_default();
        DiagnosisAnswer::new(self.found, &last, self.capture, None)
    }
}

/// The sample of one capture, without threads and without what only the kernel knows. `mains_rest`: at that moment, no main
/// future was being polled. `kernel` describes connections. `wants_sockets`: an earlier sample had connections that the other end
/// has closed, whose variables are to be found.
pub(super) fn sample_of(
    mut seen: Examination<'_, '_, '_>,
    at: Duration,
    mains_rest: bool,
    kernel: &Kernel<'_>,
    wants_sockets: bool,
) -> Sample {
    let sample = waits::analyse(&mut seen, mains_rest, kernel);
    let closed_sockets = if wants_sockets { waits::closed_sockets(&seen) } else { Vec::new() };
    Sample { at, closed_sockets, listing: seen.listing, ..sample }
}

/// The notes that a sample adds to those of its capture.
pub(super) fn notes_of(sample: &Sample) -> impl Iterator<Item = String> {
    sample.listing.notes.iter().cloned().chain(sample.not_covered.iter().map(not_covered))
}

/// Adds what only the kernel knows: which tasks send to an end that does not read, which connections the other end has
/// closed, whether busy tasks have read them to the end, and which child processes wait for a reader. Only a diagnosis needs that. `open_file` describes a descriptor of
/// the program; `closed_by_peer` lists its connections that the other end has closed, of at most so many.
pub(super) fn ask_the_kernel(
    sample: &mut Sample,
    open_file: impl Fn(i32) -> Option<OpenFile>,
    closed_by_peer: impl FnOnce(usize) -> Vec<HalfClosed>,
) {
    let sends = |waits: &WaitsOn| waits.io.as_ref().is_some_and(|io| io.direction == Some(Direction::Write));
    let waits = sample.listing.tasks.iter().flat_map(|task| &task.waits_on);
    let sending: HashSet<i32> = waits.filter(|waits| sends(waits)).filter_map(|waits| waits.fd).collect();
    let of_sender = |fd| if sending.contains(&fd) { open_file(fd) } else { None };
    if !sending.is_empty() {
        // Of the others, nothing is wanted here.
        let _left_out = describe_files(&mut sample.listing.tasks, of_sender);
    }
    let files =
        sample.inputs.iter_mut().flat_map(|of| &mut of.inputs).filter(|input| input.ended == Some(true));
    for input in files {
        input.unread = input.fd.and_then(&open_file).and_then(|file| file.receive_queue);
    }
    let children = sample.listing.tasks.iter().flat_map(|task| &task.waits_on).filter_map(|waits| waits.pid);
    sample.blocked_children = children.filter(|pid| targets::writes_to_a_full_pipe(*pid)).collect();
    sample.half_closed = closed_by_peer(MAX_SOCKETS);
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
