//! Waits that only a timeout ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::{interval, sleep, timeout};

use super::*;

const LONG: Duration = Duration::from_secs(600);

/// The findings of two tasks, each of which has a lock and waits for the other's with a timeout.
fn crosswise<F: Future<Output = ()> + Send + 'static>(
    take: fn(Arc<Mutex<u8>>, Arc<Mutex<u8>>) -> F,
) -> (Analysis, Vec<u64>) {
    let runtime = runtime();
    let (a, b) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let tasks = vec![spawn(&runtime, take(a.clone(), b.clone())), spawn(&runtime, take(b, a))];
    (analysis(&runtime), tasks)
}

#[test]
fn two_locks_crosswise_with_timeouts() {
    isolated!();
    let (analysis, tasks) = crosswise(|first, second| async move {
        let _mine = first.lock().await;
        yield_now().await;
        drop(timeout(LONG, second.lock()).await);
    });
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Suspected, tasks)],
        "{}",
        text(&analysis)
    );
    let summary = reports(&analysis)[0].summary.clone();
    assert!(summary.ends_with("; only a timeout will end it"), "{summary}");
}

#[test]
fn a_sleep_beside_the_lock_is_a_timeout() {
    isolated!();
    let (analysis, tasks) = crosswise(|first, second| async move {
        let _mine = first.lock().await;
        yield_now().await;
        tokio::select! {
            _yours = second.lock() => {}
            () = sleep(LONG) => {}
        }
    });
    assert_eq!(findings(&analysis), [(FindingKind::Deadlock, Severity::Suspected, tasks)]);
}

#[test]
fn a_permit_that_the_same_task_holds() {
    isolated!();
    let runtime = runtime();
    let permits = Arc::new(Semaphore::new(1));
    let task = spawn(&runtime, async move {
        let _first = permits.acquire().await;
        drop(timeout(LONG, permits.acquire()).await);
    });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [(FindingKind::Deadlock, Severity::Suspected, vec![task])]);
}

#[test]
fn a_deadlock_that_no_timeout_ends_stays_certain() {
    isolated!();
    let runtime = runtime();
    let (a, b) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let take = |first: Arc<Mutex<u8>>, second: Arc<Mutex<u8>>| async move {
        let _mine = first.lock().await;
        yield_now().await;
        drop(second.lock().await);
    };
    let tasks = [spawn(&runtime, take(a.clone(), b.clone())), spawn(&runtime, take(b, a.clone()))];
    let behind = spawn(&runtime, async move { drop(timeout(LONG, a.lock()).await) });
    let analysis = analysis(&runtime);
    let [(kind, severity, found)] = &findings(&analysis)[..] else { panic!("{}", text(&analysis)) };
    assert_eq!((kind, severity), (&FindingKind::Deadlock, &Severity::Certain));
    assert!(tasks.iter().all(|task| found.contains(task)) && !found.contains(&behind), "{found:?}");
}

#[test]
fn a_holder_that_goes_on_by_itself() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(1));
    let mine = lock.clone();
    spawn(&runtime, async move {
        let _guard = mine.lock().await;
        sleep(LONG).await;
    });
    spawn(&runtime, async move { drop(timeout(LONG, lock.lock()).await) });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}

/// Another branch of the `join!` goes on, and may release what the others wait for.
#[test]
fn a_sleep_in_another_branch_is_no_timeout() {
    isolated!();
    let (analysis, _) = crosswise(|first, second| async move {
        let mine = Mutex::new(Some(first.lock().await));
        let releases = async {
            sleep(LONG).await;
            mine.lock().await.take();
        };
        let wants = async { drop(second.lock().await) };
        tokio::join!(timeout(LONG, wants), releases).1
    });
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}

/// Two services that send each other messages, and do something else now and then.
#[test]
fn an_interval_beside_a_channel_is_no_timeout() {
    isolated!();
    let runtime = runtime();
    let (to_one, one) = mpsc::channel::<u8>(1);
    let (to_other, other) = mpsc::channel::<u8>(1);
    let serve = |mut messages: mpsc::Receiver<u8>, peer: mpsc::Sender<u8>| async move {
        let mut ticks = interval(LONG);
        loop {
            tokio::select! {
                Some(message) = messages.recv() => drop(peer.send(message).await),
                _ = ticks.tick() => {}
            }
        }
    };
    spawn(&runtime, serve(one, to_other));
    spawn(&runtime, serve(other, to_one));
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}

/// A request whose answer another task gives, which waits for the next request: a healthy service at rest.
#[test]
fn a_message_with_a_timeout_that_nothing_holds_up() {
    isolated!();
    let runtime = runtime();
    let (requests, mut served) = mpsc::channel::<u8>(1);
    spawn(&runtime, async move { while timeout(LONG, served.recv()).await.is_ok() {} });
    spawn(&runtime, async move {
        sleep(LONG).await;
        let _ = requests.send(1).await;
    });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}
