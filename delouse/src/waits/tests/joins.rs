//! Branches of a `join!`, which are stuck or alive one by one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use super::*;

type Lock = Arc<Mutex<u8>>;

const AGES: Duration = Duration::from_secs(100_000);

fn two_locks() -> (Lock, Lock) {
    (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)))
}

async fn take_both(first: Lock, second: Lock) {
    let mine = first.lock().await;
    yield_now().await;
    let yours = second.lock().await;
    drop((mine, yours));
}

async fn beats() {
    sleep(AGES).await;
}

async fn fails() -> Result<(), ()> {
    sleep(AGES).await;
    Err(())
}

/// Two tasks that take two locks the other way round, each `around` it.
fn crosswise<F: Future<Output = ()> + Send + 'static>(
    around: impl Fn(Lock, Lock) -> F,
) -> (Analysis, Vec<u64>) {
    let runtime = runtime();
    let (a, b) = two_locks();
    let tasks = vec![spawn(&runtime, around(a.clone(), b.clone())), spawn(&runtime, around(b, a))];
    (analysis(&runtime), tasks)
}

#[test]
fn a_deadlock_of_branches_whose_tasks_go_on() {
    isolated!();
    let (analysis, tasks) = crosswise(|first, second| async {
        tokio::join!(take_both(first, second), beats());
    });
    assert_eq!(kinds(&analysis), [(FindingKind::Deadlock, tasks)], "{}", text(&analysis));
    let evidence = reports(&analysis)[0].evidence.join("\n");
    assert!(evidence.contains("a branch of a `join!`"), "{evidence}");
    assert!(evidence.contains("joins::take_both at "), "{evidence}");
}

#[test]
fn branches_in_branches_and_boxes() {
    isolated!();
    let (analysis, tasks) = crosswise(|first, second| async {
        let inner = async {
            tokio::join!(beats(), Box::pin(take_both(first, second)));
        };
        tokio::join!(beats(), inner, beats());
    });
    assert_eq!(kinds(&analysis), [(FindingKind::Deadlock, tasks)], "{}", text(&analysis));
}

/// A timeout, a branch that fails and a `select!` let go of what a stuck branch has.
#[test]
fn what_ends_a_join_early_is_no_deadlock() {
    isolated!();
    let (analysis, _) = crosswise(|first, second| async {
        let both = async {
            tokio::join!(take_both(first, second), beats());
        };
        let _ = tokio::time::timeout(AGES, both).await;
    });
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    let (analysis, _) = crosswise(|first, second| async {
        let both = async {
            take_both(first, second).await;
            Ok::<(), ()>(())
        };
        let _ = tokio::try_join!(both, fails());
    });
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    let (analysis, _) = crosswise(|first, second| async {
        let one = async {
            tokio::join!(take_both(first, second), beats());
        };
        let other = async {
            tokio::join!(beats(), beats());
        };
        tokio::select! { () = one => {}, () = other => {} }
    });
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}

#[test]
fn a_branch_wants_what_the_function_around_it_holds() {
    isolated!();
    async fn holds_on(lock: Lock) {
        let guard = lock.lock().await;
        tokio::join!(wants(&lock), beats());
        drop(guard);
    }
    async fn wants(lock: &Lock) {
        drop(lock.lock().await);
    }
    let runtime = runtime();
    let task = spawn(&runtime, holds_on(Lock::default()));
    let analysis = analysis(&runtime);
    assert_eq!(kinds(&analysis), [(FindingKind::Deadlock, vec![task])], "{}", text(&analysis));
}

/// The other branch can take the guard out, or send, or has a handle of its own.
#[test]
fn a_branch_that_lives_can_end_what_another_waits_for() {
    isolated!();
    async fn gives_back(guard: &mut Option<tokio::sync::OwnedMutexGuard<u8>>) {
        sleep(AGES).await;
        guard.take();
    }
    async fn takes_out(lock: Lock) {
        let mut guard = Some(lock.clone().lock_owned().await);
        let wants = async { drop(lock.lock().await) };
        tokio::join!(wants, gives_back(&mut guard));
    }
    async fn sends() {
        let (sender, mut receiver) = mpsc::channel::<u8>(1);
        let hears = async { assert_eq!(receiver.recv().await, Some(1)) };
        let speaks = async {
            sleep(AGES).await;
            let _ = sender.send(1).await;
        };
        tokio::join!(hears, speaks);
    }
    async fn shares_a_lock(lock: Lock) {
        let keeps = async {
            let guard = lock.lock().await;
            sleep(AGES).await;
            drop(guard);
        };
        let wants = async { drop(lock.lock().await) };
        tokio::join!(keeps, wants);
    }
    let runtime = runtime();
    spawn(&runtime, takes_out(Lock::default()));
    spawn(&runtime, sends());
    spawn(&runtime, shares_a_lock(Lock::default()));
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}

/// A task that waits for the end of another waits for all of its branches.
#[test]
fn a_task_is_joined_by_the_holder_of_what_a_branch_wants() {
    isolated!();
    async fn worker(lock: Lock) {
        let wants = async { drop(lock.lock().await) };
        tokio::join!(wants, beats());
    }
    async fn waits_for_it(lock: Lock, worker: oneshot::Receiver<JoinHandle<()>>) {
        let guard = lock.lock().await;
        let Ok(worker) = worker.await else { return };
        let _ = worker.await;
        drop(guard);
    }
    let runtime = runtime();
    let lock = Lock::default();
    let (send, receive) = oneshot::channel();
    let waiter = spawn(&runtime, waits_for_it(lock.clone(), receive));
    settle(&runtime);
    let worker = runtime.spawn(worker(lock));
    let id = worker.id().to_string().parse().unwrap();
    send.send(worker).unwrap();
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Certain, vec![waiter, id])],
        "{}",
        text(&analysis)
    );
}

/// A branch that no message will ever reach is no leak while its task goes on.
#[test]
fn a_branch_that_hears_nothing_is_no_finding() {
    isolated!();
    async fn hears(mut receiver: mpsc::Receiver<u8>, _own: mpsc::Sender<u8>) {
        receiver.recv().await;
    }
    let runtime = runtime();
    let (sender, receiver) = mpsc::channel(1);
    runtime.spawn(async {
        tokio::join!(hears(receiver, sender), beats());
    });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}
