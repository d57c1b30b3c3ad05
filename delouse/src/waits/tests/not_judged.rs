//! What a diagnosis that finds nothing says nothing of: tasks that may be stuck, for all that is known.

use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex as StdMutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::*;
use crate::report::NotJudged;

const DAY: Duration = Duration::from_secs(86_400);
/// Where the future of the test keeps its waker.
static WAKER: StdMutex<Option<Waker>> = StdMutex::new(None);

/// The tasks and the reason of each place, and whether place and leaf are those that these parts are from.
fn not_judged(analysis: &Analysis) -> Vec<(Vec<u64>, String)> {
    assert_eq!(analysis.not_judged.more, 0);
    let places = analysis.not_judged.places.iter().cloned().map(NotJudged::from);
    places.map(|place| (place.tasks, place.reason)).collect()
}

#[test]
fn a_future_of_an_unknown_type() {
    isolated!();
    let runtime = runtime();
    let task = spawn(&runtime, async {
        poll_fn(|context| {
            *WAKER.lock().unwrap() = Some(context.waker().clone());
            Poll::<()>::Pending
        })
        .await;
    });
    let analysis = analysis(&runtime);
    let [place] = analysis.not_judged.places.as_slice() else { panic!("{:?}", analysis.not_judged) };
    assert_eq!((place.tasks.as_slice(), place.count), (&[task][..], 1));
    assert_eq!(place.why, Unjudged::UnknownFuture);
    assert!(place.place.as_ref().unwrap().function.contains("a_future_of_an_unknown_type"), "{place:?}");
    assert!(place.leaf.as_ref().unwrap().contains("PollFn"), "{place:?}");
    let edges: Vec<&Edge> = analysis.graph.edges.iter().filter(|edge| edge.waiter == Some(task)).collect();
    assert!(matches!(edges[..], [edge] if edge.outside.is_some() && edge.holders.is_empty()), "{edges:?}");
}

/// Nothing in memory says that a guard was forgotten: it may be in what was not read.
#[test]
fn a_lock_without_a_guard() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    mem::forget(lock.clone().try_lock_owned().unwrap());
    let waits = spawn(&runtime, {
        let lock = lock.clone();
        async move { *lock.lock().await += 1 }
    });
    let joins = spawn(&runtime, async move {
        let lock = lock;
        let _ = tokio::spawn(async move { *lock.lock().await += 1 }).await;
    });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    let found = not_judged(&analysis);
    assert_eq!(
        found[0],
        (vec![waits], "delouse does not know what holds it: no handle was found".to_owned())
    );
    assert!(
        found.contains(&(vec![joins], "what could end its wait is not judged itself".to_owned())),
        "{found:?}"
    );
}

#[test]
fn handles_that_are_not_where_tasks_have_them() {
    isolated!();
    let runtime = runtime();
    let (one, receiver) = oneshot::channel::<u8>();
    let asks = spawn(&runtime, async move { drop(receiver.await) });
    let (many, mut messages) = mpsc::channel::<u8>(1);
    let (kept, reads) = (many.clone(), async move { while messages.recv().await.is_some() {} });
    let reads = spawn(&runtime, reads);
    let waits = spawn(&runtime, async move {
        std::future::pending::<()>().await;
        drop(many);
    });
    let analysis = analysis(&runtime);
    let found = not_judged(&analysis);
    let of = |task: u64| found.iter().find(|(tasks, _)| tasks.contains(&task)).map(|(_, why)| why.as_str());
    assert_eq!(of(asks), Some("delouse does not know what can send to it: no handle was found"), "{found:?}");
    assert_eq!(
        of(reads),
        Some("delouse does not know what can send to it: more handles exist than were found"),
        "{found:?}"
    );
    // That one can never be woken, which is known.
    assert_eq!(of(waits), None, "{found:?}");
    drop((one, kept));
}

/// Timers, sockets and tasks that have what others wait for.
#[test]
fn tasks_that_can_be_judged() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    for _ in 0..5 {
        let lock = lock.clone();
        spawn(&runtime, async move {
            let mut guard = lock.lock().await;
            tokio::time::sleep(DAY).await;
            *guard += 1;
        });
    }
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    spawn(&runtime, async move { drop(listener.accept().await) });
    let (sender, mut receiver) = mpsc::channel::<u8>(1);
    spawn(&runtime, async move { while receiver.recv().await.is_some() {} });
    spawn(&runtime, async move {
        tokio::time::sleep(DAY).await;
        drop(sender);
    });
    let analysis = analysis(&runtime);
    assert_eq!(not_judged(&analysis), [], "{}", text(&analysis));
    let outside = analysis.graph.edges.iter().filter_map(|edge| edge.outside.as_ref());
    let kinds: Vec<ResourceKind> = outside.map(|waits| waits.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == ResourceKind::Timer).count(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == ResourceKind::Io).count(), 1, "{kinds:?}");
}
