//! A task that is polled without pause, because what it takes from has ended.
//!
//! A busy task is no fault: it may have much to do. It is a fault if the task takes from something that gives an answer
//! at once for ever (a channel without senders, a socket whose other end has closed its side), if nothing else that it
//! takes from gives it anything, and if its thread is seen taking from what has ended, again and again.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::observation::{Observation, Observed};
use super::sample::{LONG, Sample, TaskInputs, interval, millis};
use super::{CodeLocation, Doubt, Evidence, Finding, FindingKind, Severity, location};
use crate::tasks::inputs::{Input, Source};
use crate::tasks::{Examination, ResourceKind, Task, TaskKind, TaskState};
use crate::threads::classify::plain;
use crate::threads::{Activity, StackFrame, ThreadRole, ThreadStack};

/// If more tasks are being polled or wait for a worker, the program has much to do.
const MAX_TASKS: usize = 32;
/// The threads must use at least one in this many of the time, where it is not known how long they waited for a processor.
const SHARE: u128 = 5;

/// What the tasks take from that are being polled or will be at once: only these may be polled without pause.
pub(super) fn inputs(examination: &Examination<'_, '_, '_>, mains_rest: bool) -> Vec<TaskInputs> {
    let tasks = examination.listing.tasks.iter().zip(&examination.places);
    let is_busy = |task: &Task| match task.kind {
        TaskKind::Main => !mains_rest,
        TaskKind::Blocking => false,
        _ => matches!(task.state, Some(TaskState::Running | TaskState::Scheduled)) || has_yielded(task),
    };
    let busy: Vec<_> = tasks.filter(|(task, _)| is_busy(task)).take(MAX_TASKS + 1).collect();
    if busy.len() > MAX_TASKS {
        return Vec::new();
    }
    let of =
        busy.into_iter().map(|(task, place)| TaskInputs { task: task.id, inputs: examination.inputs(place) });
    of.collect()
}

/// Whether a task will be polled again as soon as its worker has asked for events (`runtime/context/`, `defer`). A task that only
/// yields is in this state most of the time.
fn has_yielded(task: &Task) -> bool {
    task.state == Some(TaskState::Idle) && task.waits_on.iter().any(|on| on.kind == ResourceKind::Yield)
}

/// Whether another sample could show a busy loop.
pub(crate) fn is_undecided(samples: &[Sample]) -> bool {
    let has_ended = |of: &&TaskInputs| of.inputs.iter().any(|input| input.ended == Some(true));
    if let [only] = samples {
        // A task whose budget is used up looks idle for a moment, until tokio wakes it.
        let computes = |thread: &ThreadStack| {
            polls(thread)
                && thread.activity == Activity::Running
                && thread.frames.iter().any(|frame| frame.own)
        };
        return only.inputs.iter().any(|of| has_ended(&of))
            || only.threads.iter().any(computes)
            || only.listing.tasks.iter().any(has_yielded);
    }
    let known: Vec<u64> = check(samples).iter().flat_map(|finding| finding.tasks.clone()).collect();
    let mut seen = samples.iter().flat_map(|sample| &sample.inputs).filter(has_ended);
    seen.any(|of| !known.contains(&of.task))
}

/// The findings: one for each task.
pub(crate) fn check(samples: &[Sample]) -> Vec<Finding> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Vec::new() };
    let span = interval(samples);
    if span < LONG || wanted(first, last).as_micros() * SHARE < span.as_micros() {
        return Vec::new();
    }
    let tasks: BTreeSet<u64> = samples.iter().flat_map(|sample| &sample.inputs).map(|of| of.task).collect();
    tasks.into_iter().filter_map(|task| finding(samples, task)).collect()
}

/// Processor time that the threads of runtimes have used from one sample to another.
fn used(first: &Sample, last: &Sample) -> Duration {
    grown(first, last, |thread| thread.cpu_us)
}

/// The same, and the time in which they could have used one: on a busy machine they do not get all that they want.
fn wanted(first: &Sample, last: &Sample) -> Duration {
    used(first, last) + grown(first, last, |thread| thread.queued_us)
}

/// By how much a time of the threads of runtimes has grown from one sample to another.
fn grown(first: &Sample, last: &Sample, time: impl Fn(&ThreadStack) -> Option<u64>) -> Duration {
    Duration::from_micros(growths(first, last, time).sum())
}

/// The same, of each of these threads.
fn growths<'s>(
    first: &'s Sample,
    last: &'s Sample,
    time: impl Fn(&ThreadStack) -> Option<u64> + 's,
) -> impl Iterator<Item = u64> + 's {
    let of = move |thread: &ThreadStack| {
        let then = time(first.thread(thread.tid)?)?;
        Some(time(thread)?.saturating_sub(then)).filter(|_| polls(thread))
    };
    last.threads.iter().filter_map(of)
}

/// Whether a thread of a runtime had a processor, or waited for one, nearly all the time from one sample to another.
fn a_thread_never_slept(first: &Sample, last: &Sample) -> bool {
    let over = last.at.saturating_sub(first.at).as_micros();
    let time = |thread: &ThreadStack| Some(thread.cpu_us? + thread.queued_us?);
    growths(first, last, time).any(|time| u128::from(time) * 10 >= over * 9)
}

fn polls(thread: &ThreadStack) -> bool {
    matches!(thread.role, ThreadRole::TokioWorker | ThreadRole::TokioBlockOn)
}

/// The inputs of a task; `None` if it was not busy in that sample. Several main futures have the same id.
fn inputs_of(sample: &Sample, task: u64) -> Option<&[Input]> {
    let mut of = sample.inputs.iter().filter(|of| of.task == task);
    let only = of.next()?;
    of.next().is_none().then_some(only.inputs.as_slice())
}

fn finding(samples: &[Sample], task: u64) -> Option<Finding> {
    let all: Vec<&[Input]> = samples.iter().filter_map(|sample| inputs_of(sample, task)).collect();
    if all.len() < 2 || all.len() * 2 < samples.len() {
        return None;
    }
    let (earliest, latest) = (all.first()?, all.last()?);
    let same = |inputs: &[Input], wanted: &Input| inputs.iter().find(|input| is_same(input, wanted)).cloned();
    let ended: Vec<&Input> = latest
        .iter()
        .filter(|input| all.iter().all(|of| same(of, input).is_some_and(|then| is_at_its_end(&then))))
        .collect();
    let rest = latest.iter().filter(|input| !ended.contains(input));
    let is_quiet = |input: &Input| {
        input.progress.is_some() && same(earliest, input).is_some_and(|then| then.progress == input.progress)
    };
    if ended.is_empty() || !rest.clone().all(is_quiet) {
        return None;
    }
    let seen = Seen::of(samples, &ended);
    let hits = seen.taken.len();
    if seen.elsewhere || hits == 0 || hits * 4 < samples.len() {
        return None;
    }
    let named: BTreeSet<usize> = seen.taken.into_iter().collect();
    let (first, last) = (samples.first()?, samples.last()?);
    let mut evidence = vec![Evidence::PolledWithoutPause {
        task,
        place: seen.place.map(std::sync::Arc::new),
        samples: samples.len(),
        lasted_ms: millis(interval(samples)),
        used_ms: millis(used(first, last)),
    }];
    let of = named.iter().filter_map(|number| ended.get(*number));
    evidence.extend(of.map(|input| Evidence::Ended {
        source: input.source,
        variable: input.variable.clone(),
        place: input.function.as_ref().map(|frame| CodeLocation::of_frame(frame).into()),
    }));
    evidence.push(Evidence::Doubt { why: Doubt::MayDoMore });
    Some(Finding { kind: FindingKind::BusyLoop, severity: Severity::Suspected, tasks: vec![task], evidence })
}

/// A task that was busy in each of several samples while the threads of runtimes computed, if no finding is about it: first
/// one that takes from something that has ended.
pub(super) fn observe(samples: &[Sample], known: &HashSet<u64>) -> Option<Observation> {
    let (first, last) = (samples.first()?, samples.last()?);
    let (over, used) = (interval(samples), used(first, last));
    let computes = used.as_micros() * 2 >= over.as_micros() || a_thread_never_slept(first, last);
    if over < LONG || wanted(first, last).as_micros() * 2 < over.as_micros() {
        return None;
    }
    let tasks: BTreeSet<u64> = samples.iter().flat_map(|sample| &sample.inputs).map(|of| of.task).collect();
    let candidates = tasks.into_iter().filter(|task| !known.contains(task)).filter_map(|task| {
        let all: Vec<&[Input]> = samples.iter().filter_map(|sample| inputs_of(sample, task)).collect();
        let ended = |inputs: &&[Input]| inputs.iter().any(|input| input.ended == Some(true));
        let ended = all.len() > 1 && all.len() * 2 >= samples.len() && all.iter().all(ended);
        let variable = all.last()?.iter().find(|input| input.ended == Some(true) && ended);
        (ended || computes && all.len() == samples.len())
            .then(|| (task, variable.map(|input| input.variable.clone())))
    });
    let (task, ended) = candidates.max_by_key(|(task, ended)| (ended.is_some(), std::cmp::Reverse(*task)))?;
    let stack = last.listing.tasks.iter().find(|of| of.id == task).map(|task| &task.stack);
    let place = stack.and_then(|stack| location::of_task(stack));
    let fact = Observed::Busy { place, ended, used_ms: millis(used), over_ms: millis(over) };
    Some(Observation { tasks: vec![task], count: 1, waiting: None, fact })
}

fn is_same(one: &Input, other: &Input) -> bool {
    let function = |input: &Input| input.function.as_ref().map(|frame| frame.function.clone());
    (one.source, &one.variable, function(one)) == (other.source, &other.variable, function(other))
}

/// Whether polling it returns at once, with nothing. A descriptor whose other end has closed its side may have bytes left.
fn is_at_its_end(input: &Input) -> bool {
    // Linux counts the end itself as a byte.
    input.ended == Some(true)
        && (input.source != Source::File || input.unread.is_some_and(|bytes| bytes <= 1))
}

/// What the stacks of threads show of a task.
#[derive(Default)]
struct Seen {
    /// For each sample in which a thread takes from an input that has ended: the number of that input.
    taken: Vec<usize>,
    /// A thread was in another function of the program, which the task had called.
    elsewhere: bool,
    /// The line.
    place: Option<CodeLocation>,
}

impl Seen {
    fn of(samples: &[Sample], ended: &[&Input]) -> Self {
        let mut seen = Self::default();
        for sample in samples {
            let busy =
                sample.threads.iter().filter(|thread| polls(thread) && thread.activity == Activity::Running);
            // Of several threads in the same function, each may be the one.
            let views: Vec<View> = busy.filter_map(|thread| View::of(thread, ended)).collect();
            if let Some((number, place)) =
                views.iter().find_map(|view| Some((view.takes?, view.place.clone())))
            {
                seen.taken.push(number);
                seen.place = place.or(seen.place);
            } else {
                seen.elsewhere |= !views.is_empty() && views.iter().all(|view| view.elsewhere);
            }
        }
        seen
    }
}

/// What a thread does in a function that has one of the inputs.
struct View {
    /// The number of the input that it takes from.
    takes: Option<usize>,
    elsewhere: bool,
    place: Option<CodeLocation>,
}

impl View {
    /// `None` if the thread is in no function that has one of the inputs.
    fn of(thread: &ThreadStack, ended: &[&Input]) -> Option<Self> {
        let functions: HashSet<String> =
            ended.iter().filter_map(|input| Some(bare(&input.function.as_ref()?.function))).collect();
        let is_its =
            |frame: &StackFrame| frame.function.as_ref().is_some_and(|of| functions.contains(&bare(of)));
        let own = thread.frames.iter().position(|frame| frame.own)?;
        thread.frames.iter().filter(|frame| frame.own).find(|frame| is_its(frame))?;
        if !thread.frames.get(own).is_some_and(is_its) {
            return Some(Self { takes: None, elsewhere: true, place: None });
        }
        let inner = thread.frames.get(..own).unwrap_or_default();
        let paths: Vec<String> =
            inner.iter().filter_map(|frame| Some(plain(frame.function.as_deref()?))).collect();
        let is_in = |input: &Input| {
            input.polled_in.iter().any(|module| paths.iter().any(|path| path.starts_with(module)))
        };
        let takes = ended.iter().position(|input| is_in(input));
        Some(Self { takes, elsewhere: false, place: location::own_line(thread).map(|(place, _)| place) })
    }
}

/// The last name of a function, without closures and `async` blocks: stacks of threads and of tasks spell the others
/// differently.
fn bare(function: &str) -> String {
    let path = plain(function);
    let is_name = |part: &&str| !part.starts_with('{') && !part.is_empty();
    path.rsplit("::").find(is_name).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
