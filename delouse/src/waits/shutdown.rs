//! A runtime that is being dropped, and whose drop waits for calls that do not return.

use std::time::Duration;

use super::blocking_pool::call;
use super::sample::{Sample, interval, millis};
use super::{Doubt, Evidence, Finding, FindingKind, Severity, TaskIds, ThreadAt, location};
use crate::tasks::Task;
use crate::threads::{Activity, ThreadRole, ThreadStack};

/// A shutdown that takes less time is usual.
const LONG: Duration = Duration::from_millis(400);
/// The most threads that are listed.
const MAX_THREADS: usize = 8;

/// Whether a shutdown was going on in all samples, and another sample could show that it has ended.
pub(crate) fn is_undecided(samples: &[Sample]) -> bool {
    (samples.len() < 2 || interval(samples) < LONG) && !dropping(samples).is_empty()
}

/// The findings: one for each thread that waits in the drop of a runtime.
pub(crate) fn check(samples: &[Sample]) -> Vec<Finding> {
    if interval(samples) < LONG {
        return Vec::new();
    }
    dropping(samples).into_iter().filter_map(|thread| finding(samples, thread)).collect()
}

/// The threads that wait in the drop of a runtime in all samples.
fn dropping(samples: &[Sample]) -> Vec<&ThreadStack> {
    let Some((last, before)) = samples.split_last() else { return Vec::new() };
    let drops =
        |thread: &ThreadStack| thread.activity == Activity::Shutdown && thread.role != ThreadRole::Delouse;
    let always =
        |thread: &&ThreadStack| before.iter().all(|sample| sample.thread(thread.tid).is_some_and(drops));
    last.threads.iter().filter(|thread| drops(thread)).filter(always).collect()
}

/// The threads of runtimes without idle workers that are in the same call in all samples, each with the call.
fn remaining(samples: &[Sample]) -> Vec<(&Task, &ThreadStack)> {
    let Some((last, before)) = samples.split_last() else { return Vec::new() };
    let is_idle = |tid: i32| {
        last.thread(tid).is_some_and(|of| of.role == ThreadRole::TokioWorker && of.activity == Activity::Idle)
    };
    // The workers end first. A runtime with an idle worker is another one.
    let runs_on = |tid: i32| {
        let runtime = last.listing.entered.iter().find(|(of, _)| *of == tid).map(|(_, runtime)| runtime);
        let mut others = last.listing.entered.iter().filter(|(_, of)| Some(of) == runtime);
        others.any(|(of, _)| is_idle(*of))
    };
    let same = |pair: &(i32, u64)| before.iter().all(|sample| sample.listing.running.contains(pair));
    let running = last.listing.running.iter().filter(|pair| same(pair) && !runs_on(pair.0));
    running.filter_map(|(tid, id)| Some((last.task(*id)?, last.thread(*tid)?))).collect()
}

fn finding(samples: &[Sample], thread: &ThreadStack) -> Option<Finding> {
    let mut remaining = remaining(samples);
    // A call that computes will end.
    remaining.retain(|(_, of)| of.tid != thread.tid && of.activity != Activity::Idle);
    if remaining.is_empty() || remaining.iter().any(|(_, of)| of.activity == Activity::Running) {
        return None;
    }
    let mut evidence = vec![Evidence::DropsRuntime {
        thread: ThreadAt::of(thread),
        calls: remaining.len(),
        samples: samples.len(),
        lasted_ms: millis(interval(samples)),
    }];
    for (task, thread) in remaining.iter().take(MAX_THREADS) {
        evidence.push(Evidence::BusyThreads {
            thread: ThreadAt::of(thread),
            threads: 1,
            called: location::called(thread).map(str::to_owned),
            call: call(task),
            tasks: TaskIds::of([task.id]),
        });
    }
    let tasks = remaining.iter().map(|(task, _)| task.id).collect();
    let mut finding = Finding { kind: FindingKind::Shutdown, severity: Severity::Certain, tasks, evidence };
    finding.doubt(Doubt::MayBeWoken);
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;
    use crate::tasks::{TaskKind, TaskState};

    fn sample(ms: u64, activity: Activity) -> Sample {
        let call = Task {
            kind: TaskKind::Blocking,
            state: Some(TaskState::Running),
            ..fixtures::task(5, "app::ask", 3)
        };
        let main = fixtures::thread(7, ThreadRole::TokioBlockOn, Activity::Shutdown, "tokio::shutdown");
        let asks = fixtures::thread(8, ThreadRole::TokioBlocking, activity, "std::io::Stdin::read");
        fixtures::sample(ms, vec![call], vec![(main, None, None), (asks, Some(5), None)])
    }

    #[test]
    fn a_drop_that_waits_for_a_call() {
        let samples = [0, 450].map(|ms| sample(ms, Activity::Io));
        assert!(is_undecided(&samples[..1]));
        let [finding] = &fixtures::reported(check(&samples))[..] else { panic!("one finding") };
        assert_eq!(
            finding.summary,
            "Thread 7 drops a runtime in app::work at src/work.rs:9, and waits for 1 call that does not return: \
             thread 8 waits for input or output in app::work at src/work.rs:9"
        );
        assert_eq!((finding.severity, &finding.tasks[..]), (Severity::Suspected, &[5][..]));
    }

    #[test]
    fn a_drop_that_takes_a_while() {
        assert_eq!(check(&[0, 200].map(|ms| sample(ms, Activity::Io))), []);
        assert_eq!(check(&[0, 450].map(|ms| sample(ms, Activity::Running))), []);
        let mut ended = [0, 450].map(|ms| sample(ms, Activity::Io));
        ended[1].listing.running.clear();
        assert_eq!(check(&ended), []);
    }
}
