use super::*;
use crate::tasks::Task;
use crate::waits::fixtures::{self, reported};
use crate::waits::{Edge, Holder, Resource};

fn running(id: u64) -> Task {
    Task { state: Some(TaskState::Running), ..fixtures::task(id, "app::work", 9) }
}

fn worker(tid: i32, activity: Activity, cpu_ms: u64) -> ThreadStack {
    let thread = fixtures::thread(tid, ThreadRole::TokioWorker, activity, "std::thread::sleep");
    ThreadStack { cpu_us: Some(cpu_ms * 1000), ..thread }
}

/// One worker, at one time: milliseconds, its task, what it does, processor time, rounds.
fn at(ms: u64, task: u64, activity: Activity, cpu_ms: u64, rounds: Option<u64>) -> Sample {
    fixtures::sample(ms, vec![running(task)], vec![(worker(7, activity, cpu_ms), Some(task), rounds)])
}

#[test]
fn one_poll_over_two_looks() {
    let samples = [at(0, 3, Activity::Sleep, 0, Some(40)), at(150, 3, Activity::Sleep, 0, Some(40))];
    let found = reported(check(&samples));
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].summary,
        "Task 3 has not yielded for 150 ms or more: its thread 7 (worker) sleeps in \
         app::work at src/work.rs:9"
    );
    assert_eq!((found[0].severity, found[0].tasks.as_slice()), (Severity::Certain, &[3][..]));
    assert!(found[0].evidence.contains(&"app::work at src/work.rs:9 called std::thread::sleep".to_owned()));
}

#[test]
fn not_one_poll_or_not_long() {
    for (what, first, second) in [
        ("another task", at(0, 3, Activity::Sleep, 0, Some(40)), at(150, 4, Activity::Sleep, 0, Some(41))),
        ("the next poll", at(0, 3, Activity::Sleep, 0, Some(40)), at(150, 3, Activity::Sleep, 0, Some(41))),
        ("parked", at(0, 3, Activity::Idle, 0, Some(40)), at(150, 3, Activity::Idle, 0, Some(40))),
        ("too soon", at(0, 3, Activity::Sleep, 0, Some(40)), at(20, 3, Activity::Sleep, 0, Some(40))),
        (
            "no processor",
            at(0, 3, Activity::Running, 0, Some(40)),
            at(500, 3, Activity::Running, 30, Some(40)),
        ),
        ("once only", fixtures::sample(0, Vec::new(), Vec::new()), at(150, 3, Activity::Sleep, 0, Some(40))),
    ] {
        assert_eq!(check(&[first, second]), [], "{what}");
    }
    assert_eq!(check(&[]), []);
}

#[test]
fn a_computation_is_measured_by_its_processor_time() {
    let mut samples = vec![at(0, 3, Activity::Running, 0, Some(40))];
    assert!(is_undecided(&samples));
    samples.push(at(150, 3, Activity::Running, 50, Some(40)));
    assert!(is_undecided(&samples) && reported(check(&samples)).is_empty());
    samples.push(at(300, 3, Activity::Running, 120, Some(40)));
    assert!(!is_undecided(&samples));
    assert!(
        reported(check(&samples))[0].summary.contains("computes in app::work"),
        "{:?}",
        reported(check(&samples))
    );
}

#[test]
fn an_idle_program_wants_no_second_look() {
    let idle = fixtures::sample(
        0,
        vec![fixtures::task(1, "app::work", 9)],
        vec![(worker(7, Activity::Idle, 0), None, None)],
    );
    assert!(!is_undecided(&[idle]));
}

#[test]
fn without_the_schedulers_count_it_is_a_suspicion() {
    let samples = [at(0, 3, Activity::Lock, 0, None), at(150, 3, Activity::Lock, 0, None)];
    assert_eq!(reported(check(&samples))[0].severity, Severity::Suspected);
}

#[test]
fn tasks_for_blocking_calls_may_block() {
    let blocking = |ms| {
        let task = Task { kind: TaskKind::Blocking, ..running(3) };
        fixtures::sample(ms, vec![task], vec![(worker(7, Activity::Sleep, 0), Some(3), None)])
    };
    assert_eq!(check(&[blocking(0), blocking(1000)]), []);
}

#[test]
fn workers_stuck_at_one_place_are_one_finding_with_what_waits() {
    let queued = Task { state: Some(TaskState::Scheduled), ..fixtures::task(9, "app::other", 1) };
    let sample = |ms| {
        let workers = [7, 8].map(|tid| (worker(tid, Activity::Lock, 0), Some(tid as u64), Some(1)));
        let mut sample = fixtures::sample(ms, vec![running(7), running(8), queued.clone()], workers.into());
        sample.graph.edges.push(Edge {
            waiter: Some(11),
            resource: Resource { id: "semaphore-1".to_owned(), ..Resource::default() }.into(),
            holders: [Holder { task: Some(8), certain: true, ..Holder::default() }].into(),
            ..Edge::default()
        });
        sample
    };
    let found = reported(check(&[sample(0), sample(200)]));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].tasks, [7, 8]);
    assert!(
        found[0].summary.contains("Tasks 7, 8 have not yielded")
            && found[0].summary.contains("their 2 threads wait")
    );
    for line in [
        "task 9 was woken and waits for a worker in each sample",
        "task 11 waits for semaphore-1, which task 8 holds",
    ] {
        assert!(found[0].evidence.contains(&line.to_owned()), "{:?}", found[0].evidence);
    }
}
