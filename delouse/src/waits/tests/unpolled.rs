//! Futures that are not polled, and futures that nothing wakes.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::{Mutex, oneshot};
use tokio::task::{AbortHandle, JoinSet, yield_now};

use super::*;

async fn take(lock: Arc<Mutex<u8>>) {
    let guard = lock.lock().await;
    yield_now().await;
    drop(guard);
}

/// What Oxide's RFD 609 tells of: a branch of a `select!` waits in the queue of a lock, and is given it
/// when nothing polls it any more.
#[test]
fn a_place_in_a_queue_of_a_future_that_is_not_polled() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    let (go, start) = oneshot::channel::<()>();
    let (first, second) = (lock.clone(), lock.clone());
    let holds = lock.try_lock().unwrap();
    let task = spawn(&runtime, async move {
        let mut future = pin!(take(first));
        tokio::select! {
            () = &mut future => {}
            _ = start => {
                take(second).await;
            }
        }
    });
    settle(&runtime);
    go.send(()).unwrap();
    settle(&runtime);
    drop(holds);
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Futurelock, Severity::Certain, vec![task])],
        "{}",
        text(&analysis)
    );
    assert!(reports(&analysis)[0].evidence[0].contains("future"), "{}", text(&analysis));
}

#[test]
fn a_lock_of_a_future_that_is_not_polled() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    let task = spawn(&runtime, async move {
        let mut future = Box::pin(take(lock.clone()));
        std::future::poll_fn(|cx| {
            assert!(future.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(lock.lock().await);
        future.await;
    });
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Futurelock, Severity::Certain, vec![task])],
        "{}",
        text(&analysis)
    );
}

/// Both branches are polled: the first will go on when the clock says so.
#[test]
fn a_future_that_is_polled_beside_another() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    spawn(&runtime, async move {
        let mut holder = pin!(async {
            let guard = lock.lock().await;
            tokio::time::sleep(std::time::Duration::from_secs(86_400)).await;
            drop(guard);
        });
        loop {
            tokio::select! {
                biased;
                () = &mut holder => break,
                _ = lock.lock() => {}
            }
        }
    });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}

#[test]
fn a_future_that_drops_its_waker() {
    isolated!();
    let runtime = runtime();
    let lost = spawn(&runtime, std::future::poll_fn(|_| Poll::Pending));
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::UnwakeableTask, Severity::Certain, vec![lost])],
        "{}",
        text(&analysis)
    );
}

#[test]
fn a_future_that_waits_for_ever_on_purpose() {
    isolated!();
    let runtime = runtime();
    spawn(&runtime, std::future::pending());
    let lock = Arc::new(Mutex::new(0));
    let alone = analysis(&runtime);
    assert_eq!(findings(&alone), [], "{}", text(&alone));
    let holds = spawn(&runtime, {
        let lock = lock.clone();
        async move {
            let guard = lock.lock().await;
            std::future::pending::<()>().await;
            drop(guard);
        }
    });
    let waits = spawn(&runtime, take(lock));
    let with_lock = analysis(&runtime);
    let [(FindingKind::UnwakeableTask, _, tasks)] = &findings(&with_lock)[..] else {
        panic!("{}", text(&with_lock))
    };
    assert!(tasks.contains(&holds) && tasks.contains(&waits), "{}", text(&with_lock));
}

/// The variable of a handle that was moved is listed still, but is no reference to the task.
#[test]
fn abort_handles_that_were_moved_or_dropped() {
    isolated!();
    let runtime = runtime();
    let sleep = || tokio::time::sleep(std::time::Duration::from_secs(86_400));
    spawn(&runtime, async move {
        let (mut set, mut by_id) = (JoinSet::new(), HashMap::new());
        for _ in 0..3 {
            let handle = set.spawn(sleep());
            assert!(!handle.is_finished());
            by_id.insert(handle.id(), handle);
        }
        let handle = set.spawn(sleep());
        assert!(!handle.is_finished());
        by_id.insert(handle.id(), handle);
        set.join_next().await;
    });
    spawn(&runtime, async move {
        let handle = tokio::spawn(sleep()).abort_handle();
        assert!(!handle.is_finished());
        drop(handle);
        sleep().await;
    });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}

/// An `AbortHandle` is no waker.
#[test]
fn a_future_that_drops_its_waker_and_can_be_aborted() {
    isolated!();
    type Kept = Arc<std::sync::Mutex<Vec<AbortHandle>>>;
    let runtime = runtime();
    let lost = runtime.spawn(std::future::poll_fn::<(), _>(|_| Poll::Pending));
    let kept = Kept::new(vec![lost.abort_handle()].into());
    let lost: u64 = lost.id().to_string().parse().unwrap();
    spawn(&runtime, async move {
        tokio::time::sleep(std::time::Duration::from_secs(86_400)).await;
        kept.lock().unwrap().clear();
    });
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::UnwakeableTask, Severity::Certain, vec![lost])],
        "{}",
        text(&analysis)
    );
}
