//! Locks, permits and joins.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex, RwLock, Semaphore, oneshot};
use tokio::task::{JoinHandle, yield_now};

use super::*;

/// Takes one lock, then another.
async fn take_both(first: Arc<Mutex<u8>>, second: Arc<Mutex<u8>>) {
    let mine = first.lock().await;
    yield_now().await;
    let yours = second.lock().await;
    drop((mine, yours));
}

#[test]
fn two_tasks_hold_what_the_other_waits_for() {
    isolated!();
    let runtime = runtime();
    let (a, b) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let one = spawn(&runtime, take_both(a.clone(), b.clone()));
    let other = spawn(&runtime, take_both(b, a));
    let analysis = analysis(&runtime);
    let [edge] = edges(&analysis, one)[..] else { panic!("{}", text(&analysis)) };
    assert_eq!(edge.resource.kind, ResourceKind::Mutex);
    let [holder] = &edge.holders[..] else { panic!("{edge:?}") };
    assert_eq!((holder.task, holder.variable.as_str(), holder.certain), (Some(other), "mine", true));
    assert_eq!((holder.handle.as_str(), edge.held_elsewhere), ("MutexGuard", false));
    assert!(
        holder.place.as_ref().unwrap().to_string().starts_with("delouse::waits::tests::locks::take_both at ")
    );
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Certain, vec![one, other])],
        "{}",
        text(&analysis)
    );
}

#[test]
fn five_tasks_in_a_circle_and_three_behind() {
    isolated!();
    let runtime = runtime();
    let locks: Vec<_> = (0..5).map(|_| Arc::new(Mutex::new(0))).collect();
    let mut tasks: Vec<u64> =
        (0..5).map(|n| spawn(&runtime, take_both(locks[n].clone(), locks[(n + 1) % 5].clone()))).collect();
    tasks.extend((0..3).map(|_| spawn(&runtime, take_both(locks[2].clone(), locks[3].clone()))));
    drop(locks);
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Certain, tasks)],
        "{}",
        text(&analysis)
    );
    assert!(
        reports(&analysis)[0].evidence.iter().any(|line| line.starts_with("3 more tasks wait behind them: "))
    );
}

#[test]
fn a_task_locks_what_it_has_locked() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    let task = spawn(&runtime, take_both(lock.clone(), lock));
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Certain, vec![task])],
        "{}",
        text(&analysis)
    );
    assert!(reports(&analysis)[0].summary.contains("`mine`"), "{}", text(&analysis));
}

#[test]
fn a_guard_of_any_kind_is_a_guard() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new((1, 2)));
    let other = Arc::new(RwLock::new((1, 2)));
    spawn(&runtime, {
        let (lock, other) = (lock.clone(), other.clone());
        async move {
            let guard =
                tokio::sync::OwnedMutexGuard::map(lock.clone().lock_owned().await, |pair| &mut pair.0);
            let kept = [Some(Box::new(guard))];
            yield_now().await;
            let _writer = other.write().await;
            drop(kept);
        }
    });
    spawn(&runtime, async move {
        let reader = other.clone().read_owned().await;
        yield_now().await;
        let all = HashMap::from([("reader", reader)]);
        drop(lock.lock().await);
        drop(all);
    });
    let analysis = analysis(&runtime);
    let [(FindingKind::Deadlock, Severity::Certain, tasks)] = &findings(&analysis)[..] else {
        panic!("{}", text(&analysis))
    };
    assert_eq!(tasks.len(), 2);
    let variables: Vec<&str> =
        analysis.graph.edges.iter().map(|edge| edge.holders[0].variable.as_str()).collect();
    assert_eq!(variables, ["all[…]", "kept[…]"], "{}", text(&analysis));
}

#[test]
fn a_writer_behind_a_reader_that_waits_for_the_writer() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(RwLock::new(0));
    let reader = spawn(&runtime, {
        let lock = lock.clone();
        async move {
            let first = lock.read().await;
            yield_now().await;
            yield_now().await;
            // Readers queue behind a writer that waits.
            let second = lock.read().await;
            drop((first, second));
        }
    });
    let writer = spawn(&runtime, {
        let lock = lock.clone();
        async move {
            let mut writer = lock.write().await;
            *writer += 1;
        }
    });
    let analysis = analysis(&runtime);
    let [(FindingKind::Deadlock, _, tasks)] = &findings(&analysis)[..] else { panic!("{}", text(&analysis)) };
    assert!(tasks.contains(&reader) && tasks.contains(&writer), "{}", text(&analysis));
    drop(lock);
}

#[test]
fn permits_that_are_held_across_a_wait_for_more() {
    isolated!();
    let runtime = runtime();
    let permits = Arc::new(Semaphore::new(2));
    let tasks: Vec<u64> = (0..2)
        .map(|_| {
            let permits = permits.clone();
            spawn(&runtime, async move {
                let first = permits.acquire().await.unwrap();
                yield_now().await;
                let second = permits.clone().acquire_owned().await.unwrap();
                drop((first, second));
            })
        })
        .collect();
    let analysis = analysis(&runtime);
    // The test itself has the semaphore, and could add permits.
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Suspected, tasks)],
        "{}",
        text(&analysis)
    );
}

#[test]
fn permits_that_no_task_has_any_more() {
    isolated!();
    let runtime = runtime();
    let permits = Arc::new(Semaphore::new(1));
    let task = spawn(&runtime, async move {
        permits.acquire().await.unwrap().forget();
        yield_now().await;
        let _second = permits.acquire().await.unwrap();
    });
    let analysis = analysis(&runtime);
    let [(_, _, tasks)] = &findings(&analysis)[..] else { panic!("{}", text(&analysis)) };
    assert_eq!(tasks, &[task]);
}

#[test]
fn two_tasks_that_join_each_other() {
    isolated!();
    type Shared = Arc<std::sync::Mutex<HashMap<u8, JoinHandle<()>>>>;
    let runtime = runtime();
    let handles = Shared::default();
    let join = |handles: Shared, of: u8| async move {
        yield_now().await;
        let handle = handles.lock().unwrap().remove(&of).unwrap();
        handle.await.unwrap();
    };
    let one = runtime.spawn(join(handles.clone(), 2));
    let other = runtime.spawn(join(handles.clone(), 1));
    let tasks = [one.id(), other.id()].map(|id| id.to_string().parse().unwrap()).to_vec();
    handles.lock().unwrap().extend([(1, one), (2, other)]);
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Certain, tasks)],
        "{}",
        text(&analysis)
    );
}

#[test]
fn a_lock_that_is_held_across_a_wait_for_an_answer() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    let (sender, receiver) = oneshot::channel::<()>();
    let asks = spawn(&runtime, {
        let lock = lock.clone();
        async move {
            let guard = lock.lock().await;
            receiver.await.unwrap();
            drop(guard);
        }
    });
    let answers = spawn(&runtime, async move {
        yield_now().await;
        drop(lock.lock().await);
        sender.send(()).unwrap();
    });
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Certain, vec![asks, answers])],
        "{}",
        text(&analysis)
    );
}

/// A semaphore of which no task has a permit is no lock that its waiter holds itself.
#[test]
fn permits_that_no_task_adds() {
    isolated!();
    async fn waits(gate: Arc<Semaphore>) {
        let _permit = gate.acquire().await;
    }
    async fn joins(gate: Arc<Semaphore>) {
        let waiter = tokio::spawn(waits(gate.clone()));
        let _ = waiter.await;
        gate.add_permits(1);
    }
    let runtime = runtime();
    let task = spawn(&runtime, joins(Arc::new(Semaphore::new(0))));
    let analysis = analysis(&runtime);
    let [finding] = &reports(&analysis)[..] else { panic!("{}", text(&analysis)) };
    assert_eq!(
        (finding.kind, finding.tasks.contains(&task)),
        (FindingKind::Deadlock, true),
        "{}",
        text(&analysis)
    );
    assert!(
        finding.summary.contains("of which no permit was found, and to which only "),
        "{}",
        text(&analysis)
    );
    assert!(finding.remedy.as_ref().unwrap().contains("`add_permits`"), "{}", text(&analysis));
}
