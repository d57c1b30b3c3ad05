use std::slice::from_ref;

use super::*;
use crate::waits::fixtures::{self, reported};

fn woken(id: u64, runtime: &str) -> Task {
    Task {
        state: Some(TaskState::Scheduled),
        runtime: Some(runtime.into()),
        ..fixtures::task(id, "app::waits", 3)
    }
}

fn samples(tasks: &[Task], threads: &[ThreadStack]) -> [Sample; 2] {
    let threads = || threads.iter().map(|thread| (thread.clone(), None, None)).collect();
    [0, 150].map(|ms| fixtures::sample(ms, tasks.to_vec(), threads()))
}

fn in_block_on(activity: Activity) -> ThreadStack {
    fixtures::thread(5, ThreadRole::TokioBlockOn, activity, "std::thread::sleep")
}

#[test]
fn block_on_that_blocks() {
    let tasks = [woken(1, "current_thread 2"), woken(2, "current_thread 2")];
    let found = reported(check(&samples(&tasks, &[in_block_on(Activity::Sleep)]), &[]));
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].summary,
        "2 tasks were woken and wait to be polled (task 1 (app::waits at src/main.rs:3) is one) \
         for 150 ms or more: thread 5 does not return from app::work at src/work.rs:9"
    );
}

#[test]
fn a_runtime_that_no_thread_runs() {
    let tasks = [woken(1, "current_thread 2")];
    for threads in [&[][..], &[in_block_on(Activity::Idle)]] {
        let found = reported(check(&samples(&tasks, threads), &[]));
        assert!(found[0].summary.ends_with("no thread was found that polls their runtime"), "{found:?}");
        assert_eq!(found[0].severity, Severity::Suspected);
    }
}

#[test]
fn runtimes_that_go_on() {
    let scheduled = woken(1, "current_thread 2");
    let running = Task { state: Some(TaskState::Running), ..woken(2, "current_thread 2") };
    assert_eq!(check(&samples(&[scheduled.clone(), running], &[in_block_on(Activity::Sleep)]), &[]), []);
    // Busy workers and yielding tasks look like this.
    let some: Vec<Task> = (1..500).map(|id| woken(id, "multi_thread 1")).collect();
    assert_eq!(check(&samples(&some, &[]), &[]), []);
    // Polled in between.
    let mut moved = samples(from_ref(&scheduled), &[in_block_on(Activity::Sleep)]);
    moved[0].listing.tasks = vec![fixtures::task(1, "app::waits", 3)];
    assert_eq!(check(&moved, &[]), []);
    // Its thread has taken tasks in between.
    let mut rounds = samples(from_ref(&scheduled), &[in_block_on(Activity::Running)]);
    rounds[0].listing.rounds = vec![(5, 1)];
    rounds[1].listing.rounds = vec![(5, 2)];
    assert_eq!(check(&rounds, &[]), []);
    // One sample, or two at nearly the same time, tell nothing.
    let [one, _] = samples(&[scheduled], &[in_block_on(Activity::Sleep)]);
    assert_eq!(check(from_ref(&one), &[]), []);
    assert_eq!(check(&[one.clone(), one], &[]), []);
}

#[test]
fn far_too_many_for_the_workers() {
    let many: Vec<Task> = (1..=1000).map(|id| woken(id, "multi_thread 1")).collect();
    let found = check(&samples(&many, &[]), &[]);
    assert_eq!(found[0].tasks.len(), 1000);
    assert_eq!(found[0].severity, Severity::Suspected);
}

#[test]
fn those_behind_a_blocked_worker_are_told_there() {
    let tasks = [woken(1, "current_thread 2"), woken(2, "current_thread 2")];
    let blocked = Finding {
        kind: FindingKind::BlockedWorker,
        severity: Severity::Certain,
        tasks: vec![2],
        evidence: Vec::new(),
    };
    assert_eq!(check(&samples(&tasks, &[in_block_on(Activity::Sleep)]), &[blocked]), []);
}
