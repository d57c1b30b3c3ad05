//! Looking at the program once or more often, until there is nothing left that one more look would tell.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Context;
use super::error::ApiError;
use crate::snapshot::{Capture, micros};
use crate::threads::classify::mains_rest;
use crate::waits::growing::Counts;
use crate::waits::look::Look;
use crate::waits::{self, Analysis, diagnosis};
use crate::{runtime, threads};

/// From one look to the next: longer than any poll should take.
const APART: Duration = Duration::from_millis(150);
/// Looks of one diagnosis. The last ones are for threads that compute and get no processor to do so.
const MAX_LOOKS: usize = 6;

/// Captures whose groups are kept for `?since=`.
const KEPT: usize = 16;

/// What earlier captures leave behind: the counts of the last few, by name.
pub(crate) struct Marks {
    /// All looks are told in the time since then.
    start: Instant,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    last: u64,
    counts: VecDeque<(u64, Counts)>,
}

impl Default for Marks {
    fn default() -> Self {
        Self { start: Instant::now(), kept: Mutex::default() }
    }
}

impl Marks {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the counts, in place of the oldest ones, and names them.
    pub(crate) fn keep(&self, counts: Counts) -> String {
        let mut kept = self.kept();
        kept.last += 1;
        let name = kept.last;
        kept.counts.push_back((name, counts));
        while kept.counts.len() > KEPT {
            kept.counts.pop_front();
        }
        name.to_string()
    }

    /// The counts of that name, if they are still there.
    pub(crate) fn get(&self, name: &str) -> Result<Counts, ApiError> {
        let unknown = || ApiError::UnknownCapture(name.to_owned());
        let wanted: u64 = name.parse().map_err(|_| unknown())?;
        let kept = self.kept();
        kept.counts.iter().find(|(id, _)| *id == wanted).map(|(_, counts)| counts.clone()).ok_or_else(unknown)
    }
}

/// All tasks, counted by their stacks, and nothing else.
pub(crate) fn count(context: &Context) -> Result<Counts, ApiError> {
    let roots = runtime::roots().without(&context.runtime);
    let at = context.marks.start.elapsed();
    let (counts, _) = context.engines.examine(&roots, move |seen| Counts::new(at, &seen.listing.tasks))?;
    Ok(counts)
}

/// Tasks, and who waits for whom; no threads. `mains_rest`: just before, no main future was being polled.
pub(crate) fn look(context: &Context, mains_rest: bool) -> Result<(Look, Capture), ApiError> {
    let roots = runtime::roots().without(&context.runtime);
    let at = context.marks.start.elapsed();
    let (look, mut capture) = context.engines.examine(&roots, move |seen| {
        let Analysis { graph, findings, not_judged, notes: doubts } = waits::analyse(&seen, mains_rest);
        Look { at, listing: seen.listing, threads: Vec::new(), graph, findings, not_judged, doubts }
    })?;
    capture.notes.extend(look.listing.notes.iter().chain(&look.doubts).cloned());
    Ok((look, capture))
}

/// As many looks as it takes, a few at most, and how they went.
///
/// The threads of the first are captured after its tasks, those of the others before: what all agree on was so
/// from the first to the last.
pub(crate) fn looks(context: &Context) -> Result<(Vec<Look>, Capture), ApiError> {
    let begun = Instant::now();
    let mut warm = None;
    if context.symbols.loaded() == 0 {
        // The debug information is read for the first look, which may take seconds: the next one must not be so late
        // that it misses what the first has seen.
        warm = Some(look(context, false)?.1);
        let _stacks = threads::capture::capture(false, &context.symbols);
    }
    let stacks = |capture: &mut Capture| {
        let (threads, of) = threads::capture::capture(false, &context.symbols);
        capture.notes.extend(of.notes);
        threads
    };
    let rest = mains_rest(&stacks(&mut Capture::default()));
    let (mut first, mut capture) = look(context, rest)?;
    capture.pause_us = warm.map_or(capture.pause_us, |warm| warm.pause_us.max(capture.pause_us));
    first.at = context.marks.start.elapsed();
    first.threads = stacks(&mut capture);
    let mut looks = vec![first];
    while diagnosis::is_undecided(&looks) && looks.len() < MAX_LOOKS {
        thread::sleep(APART);
        let mut notes = Capture::default();
        let threads = stacks(&mut notes);
        let (mut next, of) = look(context, mains_rest(&threads))?;
        next.threads = threads;
        looks.push(next);
        capture.pause_us = capture.pause_us.max(of.pause_us);
        capture.held_us = capture.held_us.max(of.held_us);
        capture.consistent &= of.consistent;
        capture.notes.extend(of.notes.into_iter().chain(notes.notes));
    }
    let mut seen = std::collections::HashSet::new();
    capture.notes.retain(|note| seen.insert(note.clone()));
    capture.total_us = micros(begun.elapsed());
    Ok((looks, capture))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_are_kept() {
        let marks = Marks::default();
        let names: Vec<String> = (0..=KEPT).map(|_| marks.keep(Counts::default())).collect();
        assert!(marks.get(&names[KEPT]).is_ok() && marks.get(&names[1]).is_ok());
        for gone in [names[0].as_str(), "", "-1", "nonsense", "99999999999999999999999"] {
            assert_eq!(marks.get(gone).err(), Some(ApiError::UnknownCapture(gone.to_owned())));
        }
    }
}
