use super::super::fixtures;
use super::*;
use crate::tasks::BlockingPool;
use crate::threads::ThreadRole;

/// A sample of a pool of two threads, which are in the calls 1 and 2, with the calls in `queued` in its queue.
fn sample(ms: u64, activity: Activity, running: [u64; 2], queued: &[u64]) -> Sample {
    let call = |id: u64, state| Task {
        kind: TaskKind::Blocking,
        state: Some(state),
        ..fixtures::task(id, "app::call", 3)
    };
    let mut tasks: Vec<Task> = running.iter().map(|id| call(*id, TaskState::Running)).collect();
    tasks.extend(queued.iter().map(|id| call(*id, TaskState::Scheduled)));
    tasks.sort_by_key(|task| task.id);
    let thread = |tid| fixtures::thread(tid, ThreadRole::TokioBlocking, activity, "std::sync::mpsc::recv");
    let threads = running.iter().zip(70..).map(|(id, tid)| (thread(tid), Some(*id), None)).collect();
    let mut sample = fixtures::sample(ms, tasks, threads);
    let runtime = "multi_thread 1".into();
    sample.listing.pools = vec![BlockingPool { runtime, is_full: true, queued: queued.len() as u64 }];
    sample
}

#[test]
fn calls_that_wait_and_a_queue_that_does_not_move() {
    let samples = [0, 450].map(|ms| sample(ms, Activity::Channel, [1, 2], &[5, 6]));
    let [finding] = &fixtures::reported(check(&samples))[..] else { panic!("one finding") };
    assert_eq!(
        finding.summary,
        "All 2 threads of the blocking pool of multi_thread 1 wait at a channel in app::work at src/work.rs:9, \
         and 2 calls are in its queue (app::call at src/main.rs:3)"
    );
    assert_eq!(finding.tasks, [1, 2, 5, 6]);
    assert_eq!(finding.severity, Severity::Suspected);
    assert!(is_undecided(&samples[..1]));
    assert!(!is_undecided(&samples));
}

#[test]
fn a_pool_that_does_its_work() {
    let waits = |ms, running, queued: &[u64]| sample(ms, Activity::Channel, running, queued);
    // Other calls, another queue, not for long, a thread that computes, a pool with room.
    assert_eq!(check(&[waits(0, [1, 2], &[5, 6]), waits(450, [1, 5], &[6])]), []);
    assert_eq!(check(&[waits(0, [1, 2], &[5]), waits(450, [1, 2], &[6])]), []);
    assert_eq!(check(&[waits(0, [1, 2], &[5]), waits(150, [1, 2], &[5])]), []);
    assert_eq!(check(&[0, 450].map(|ms| sample(ms, Activity::Running, [1, 2], &[5]))), []);
    let mut room = [0, 450].map(|ms| waits(ms, [1, 2], &[5]));
    room[1].listing.pools[0].is_full = false;
    assert_eq!(check(&room), []);
    assert!(!is_undecided(&room));
}

#[test]
fn calls_that_wait_for_calls_in_the_queue() {
    let mut samples = [0, 450].map(|ms| sample(ms, Activity::BlockOn, [1, 2], &[5, 6]));
    let joins = |waiter: u64, task: u64| Edge {
        waiter: Some(waiter),
        resource: Arc::new(crate::waits::Resource {
            id: format!("task-{task}"),
            kind: ResourceKind::Join,
            address: None,
        }),
        ..Edge::default()
    };
    samples[1].graph.edges = vec![joins(1, 5), joins(2, 6), joins(9, 6)];
    let [finding] = &check(&samples)[..] else { panic!("one finding") };
    assert_eq!(
        (finding.severity, finding.evidence.get(1)),
        (Severity::Certain, Some(&Evidence::WaitForQueue))
    );
    assert_eq!(finding.tasks, [1, 2, 5, 6, 9]);
    // One of them waits for something else, too.
    samples[1].graph.edges.push(joins(2, 9));
    assert_eq!(check(&samples)[0].severity, Severity::Suspected);
}
