//! Stacks of tasks and threads with a count, as profilers know them: one sample for each distinct stack with its labels.
//!
//! Bounded by what Pyroscope and Parca accept: the largest samples are kept, and one more counts the rest.

mod folded;
mod go_text;
mod pprof;

use std::cmp::Reverse;
use std::time::{SystemTime, UNIX_EPOCH};

use rustc_hash::FxHashMap;

use crate::debuginfo::symbols::shorten;
use crate::tasks::{BlockingCall, Frame, ResourceKind, Task};
use crate::threads::{StackFrame, ThreadStack};

pub(crate) use folded::folded;
pub(crate) use go_text::{blocks, counted};
pub(crate) use pprof::pprof;

use super::formats::Document;
use super::json::name;

/// The most samples: Pyroscope takes 16,000.
const MOST_SAMPLES: usize = 10_000;
/// The most frames of a stack: Pyroscope takes 1,000.
const MOST_FRAMES: usize = 500;
/// The most bytes of names, so that the profile stays below Pyroscope's 4 MiB.
const MOST_BYTES: usize = 2 << 20;
/// About the bytes that a frame and a sample take beside their names.
const FRAME_BYTES: usize = 6;
/// Branches of a `select!` that are named in its frame.
const BRANCHES: usize = 3;

/// A line of source code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub(crate) function: String,
    pub(crate) file: String,
    /// 0 if it is not known.
    pub(crate) line: u32,
}

/// Names and values.
type Labels = Vec<(&'static str, String)>;

/// Stacks that are equal, with equal labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The innermost first.
    pub(crate) frames: Vec<Site>,
    /// Few values each: Pyroscope makes a series of each combination.
    pub(crate) labels: Labels,
    /// How many there are; negative in a difference of two profiles.
    pub(crate) count: i64,
}

/// What was counted, and how often each stack was there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) samples: Vec<Sample>,
}

/// The profile of now as an answer, in the format of pprof.
pub(crate) fn document(profile: &Profile, what: &str) -> Result<Document, serde_json::Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let bytes = pprof(profile, what, i64::try_from(now.as_nanos()).unwrap_or(i64::MAX), 0);
    bytes.map(Document::Whole).map_err(serde::ser::Error::custom)
}

impl Profile {
    /// One for each task.
    pub(crate) fn of_tasks<'t>(tasks: impl IntoIterator<Item = &'t Task>) -> Self {
        // Tasks that are suspended at the same place share a stack: it is converted once.
        let mut counts: FxHashMap<_, (&Task, i64)> = FxHashMap::default();
        for task in tasks {
            let wait = task.waits_on.first().map(|waits| waits.kind);
            let labels = (task.kind, task.state, &task.runtime, wait);
            let stack = (task.stack.as_ptr(), &task.drives, &task.found_in, &task.completed);
            counts.entry((stack, labels)).or_insert((task, 0)).1 += 1;
        }
        let samples = counts.into_values().map(|(task, count)| Sample {
            frames: task_frames(task),
            labels: task_labels(task),
            count,
        });
        Self::merged(samples)
    }

    /// One for each thread.
    pub(crate) fn of_threads<'t>(threads: impl IntoIterator<Item = &'t ThreadStack>) -> Self {
        Self::merged(threads.into_iter().map(|thread| Sample {
            frames: bounded(thread.frames.iter().map(Site::of_stack_frame).collect()),
            labels: thread_labels(thread),
            count: 1,
        }))
    }

    /// What there is more or less of than in `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        let negative = before.samples.into_iter().map(|sample| Sample { count: -sample.count, ..sample });
        let mut difference = Self::merged(self.samples.into_iter().chain(negative));
        difference.samples.retain(|sample| sample.count != 0);
        difference
    }

    /// How many stacks were counted.
    pub(crate) fn total(&self) -> i64 {
        self.samples.iter().map(|sample| sample.count).sum()
    }

    /// Equal samples as one, the largest first, and the rest as one.
    fn merged(samples: impl Iterator<Item = Sample>) -> Self {
        let mut counts: FxHashMap<(Vec<Site>, Labels), i64> = FxHashMap::default();
        for Sample { frames, labels, count } in samples {
            *counts.entry((frames, labels)).or_default() += count;
        }
        let sample = |((frames, labels), count)| Sample { frames, labels, count };
        let mut samples: Vec<Sample> = counts.into_iter().map(sample).collect();
        // The order of equal counts is that of their names, so that equal captures are equal files.
        samples.sort_by_cached_key(|sample| {
            let names: Vec<String> = sample.frames.iter().map(|site| site.function.clone()).collect();
            (Reverse(sample.count.abs()), names, sample.labels.clone())
        });
        let kept = how_many_fit(&samples);
        let rest = samples.split_off(kept);
        if !rest.is_empty() {
            let function = format!("{} more stacks", rest.len());
            let frames = vec![Site { function, ..Site::default() }];
            let count = rest.iter().map(|sample| sample.count).sum();
            samples.push(Sample { frames, labels: Vec::new(), count });
        }
        Self { samples }
    }
}

fn how_many_fit(samples: &[Sample]) -> usize {
    let mut names: FxHashMap<&str, ()> = FxHashMap::default();
    let mut bytes = 0;
    for (at, sample) in samples.iter().enumerate() {
        for site in &sample.frames {
            let new =
                [&site.function, &site.file].into_iter().filter(|name| names.insert(name, ()).is_none());
            bytes += FRAME_BYTES + new.map(|name| name.len() + FRAME_BYTES).sum::<usize>();
        }
        if bytes > MOST_BYTES || at >= MOST_SAMPLES {
            return at;
        }
    }
    samples.len()
}

impl Site {
    fn of_frame(frame: &Frame) -> Self {
        let file = frame.file.as_deref().map(|file| shorten(file, None).0).unwrap_or_default();
        Self { function: frame.function.clone(), file, line: frame.line.unwrap_or(0) }
    }

    fn of_stack_frame(frame: &StackFrame) -> Self {
        let function = frame.function.clone().unwrap_or_else(|| match &frame.module {
            Some(module) => format!("{} in {module}", frame.address),
            None => frame.address.clone(),
        });
        Self { function, file: frame.file.clone().unwrap_or_default(), line: frame.line.unwrap_or(0) }
    }

    /// A frame that is no function. pprof takes what is in parentheses for arguments, and does not show it.
    fn named(function: String) -> Self {
        Self { function, ..Self::default() }
    }
}

/// The stack of a task, the innermost frame first.
fn task_frames(task: &Task) -> Vec<Site> {
    let mut frames = Vec::new();
    match &task.completed {
        Some(completed) => frames.push(Site::of_frame(completed)),
        None => {
            frames.extend(task.found_in.iter().flat_map(call));
            path(&task.stack, &mut frames);
            for driven in &task.drives {
                frames.extend(call(&driven.call));
                path(&driven.stack, &mut frames);
            }
        }
    }
    if frames.is_empty() {
        frames.push(Site::named("no stack".to_owned()));
    }
    frames.reverse();
    bounded(frames)
}

/// A call that blocks its thread: the caller, then the function.
fn call(call: &BlockingCall) -> impl Iterator<Item = Site> {
    let caller = call.caller.as_deref().map(Site::of_frame);
    caller.into_iter().chain([Site::named(call.function.clone())])
}

/// The futures from the outermost inwards. A task is one sample, whatever it waits for at the same time: the way ends at a
/// frame that names the branches.
fn path(stack: &[Frame], frames: &mut Vec<Site>) {
    let mut level = stack;
    while let [frame] = level {
        frames.push(Site::of_frame(frame));
        level = &frame.children;
    }
    if !level.is_empty() {
        let mut names: Vec<&str> = level.iter().take(BRANCHES).map(|frame| frame.function.as_str()).collect();
        if level.len() > BRANCHES {
            names.push("…");
        }
        frames.push(Site::named(format!("{} branches: {}", level.len(), names.join(", "))));
    }
}

/// Leaves out the outermost frames of a stack that is too deep.
fn bounded(mut frames: Vec<Site>) -> Vec<Site> {
    if frames.len() > MOST_FRAMES {
        let more = frames.len() - MOST_FRAMES + 1;
        frames.truncate(MOST_FRAMES - 1);
        frames.push(Site::named(format!("{more} more frames")));
    }
    frames
}

fn task_labels(task: &Task) -> Labels {
    let mut labels = vec![("kind", name(&task.kind))];
    labels.extend(task.state.map(|state| ("state", name(&state))));
    labels.extend(task.runtime.as_ref().map(|runtime| ("runtime", runtime.to_string())));
    labels.extend(wait_of(task).map(|kind| ("wait", kind.name().to_owned())));
    labels
}

fn wait_of(task: &Task) -> Option<ResourceKind> {
    task.waits_on.first().map(|waits| waits.kind)
}

fn thread_labels(thread: &ThreadStack) -> Labels {
    let mut labels = vec![("role", name(&thread.role)), ("activity", name(&thread.activity))];
    labels.extend(thread.state.clone().map(|state| ("state", state)));
    labels
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::waits::fixtures;

    pub(super) fn profile(count: u64) -> Profile {
        let place = |id: u64| if id.is_multiple_of(4) { "app::rare" } else { "app::often" };
        let tasks: Vec<Task> = (1..=count).map(|id| fixtures::task(id, place(id), 10)).collect();
        Profile::of_tasks(&tasks)
    }

    #[test]
    fn equal_stacks_are_one_sample() {
        let profile = profile(1000);
        let counts: Vec<i64> = profile.samples.iter().map(|sample| sample.count).collect();
        assert_eq!((counts, profile.total()), (vec![750, 250], 1000));
        let labels = [("kind", "task"), ("state", "idle"), ("runtime", "multi_thread 1")];
        assert_eq!(profile.samples[0].labels, labels.map(|(key, value)| (key, value.to_owned())));
    }

    #[test]
    fn a_difference_has_what_changed() {
        let difference = profile(1000).since(profile(900));
        let counts: Vec<i64> = difference.samples.iter().map(|sample| sample.count).collect();
        assert_eq!(counts, [75, 25]);
        assert_eq!(profile(900).since(profile(1000)).total(), -100);
        assert!(profile(10).since(profile(10)).samples.is_empty());
    }

    #[test]
    fn different_stacks_are_bounded_and_counted() {
        let tasks: Vec<Task> =
            (1..=30_000).map(|id| fixtures::task(id, &format!("app::f{id}"), 10)).collect();
        let profile = Profile::of_tasks(&tasks);
        assert_eq!((profile.samples.len(), profile.total()), (MOST_SAMPLES + 1, 30_000));
        assert_eq!(profile.samples.last().unwrap().frames[0].function, "20000 more stacks");
    }

    #[test]
    fn deep_stacks_and_branches() {
        let leaf = |name: &str| Frame { function: name.to_owned(), ..Frame::default() };
        let select = Frame { children: ["a", "b", "c", "d"].map(leaf).into(), ..leaf("app::run") };
        let deep = (0..2000).fold(select, |below, _| Frame { children: vec![below], ..leaf("app::dive") });
        let task = Task { stack: [deep].into(), ..fixtures::task(1, "", 0) };
        let frames = task_frames(&task);
        assert_eq!(frames.len(), MOST_FRAMES);
        assert_eq!(frames[0].function, "4 branches: a, b, c, …");
        assert_eq!(frames[1].function, "app::run");
        assert_eq!(frames.last().unwrap().function, "1503 more frames");
    }
}
