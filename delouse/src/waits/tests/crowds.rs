//! Many tasks that all wait for the same: what takes a moment for one must not take its square for all.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};

use super::*;

const MANY: usize = 20_000;

/// Connections that end when they are signalled, as those of a server with one `CancellationToken` do.
#[test]
fn connections_that_end_when_told_to() {
    isolated!();
    let runtime = runtime();
    let (end, over) = (Arc::new(Notify::new()), watch::channel(false));
    for _ in 0..MANY {
        let (end, mut over) = (end.clone(), over.1.clone());
        spawn(&runtime, async move {
            tokio::select! {
                () = end.notified() => {}
                _ = over.changed() => {}
            }
        });
    }
    spawn(&runtime, async move {
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        end.notify_waiters();
        drop(over);
    });
    let analysis = analysis(&runtime);
    assert!(analysis.findings.is_empty(), "{:?}", sentences(&analysis));
    assert_eq!(inside(&analysis).len(), 2 * MANY);
    assert!(inside(&analysis).iter().all(|edge| !edge.holders.is_empty()));
}

#[test]
fn connections_that_no_task_is_left_to_tell() {
    isolated!();
    let runtime = runtime();
    let (end, over) = (Arc::new(Notify::new()), watch::channel(false));
    let over = Arc::new(over);
    // The walk has a time limit, and the machine may be busy.
    let tasks: Vec<u64> = (0..MANY / 4)
        .map(|_| {
            let (end, over) = (end.clone(), over.clone());
            spawn(&runtime, async move {
                let mut over_now = over.1.clone();
                tokio::select! {
                    () = end.notified() => {}
                    _ = over_now.changed() => {}
                }
            })
        })
        .collect();
    drop((end, over));
    let analysis = analysis(&runtime);
    assert!(kinds(&analysis) == [(FindingKind::LeakedTasks, tasks)], "{:?}", sentences(&analysis));
}

/// Half of them have a permit, and the others queue for one.
#[test]
fn a_crowd_at_a_semaphore() {
    isolated!();
    let runtime = runtime();
    let permits = Arc::new(Semaphore::new(MANY / 2));
    for _ in 0..MANY {
        let permits = permits.clone();
        spawn(&runtime, async move {
            let permit = permits.acquire_owned().await.unwrap();
            tokio::time::sleep(Duration::from_secs(86_400)).await;
            drop(permit);
        });
    }
    let analysis = analysis(&runtime);
    assert!(analysis.findings.is_empty(), "{:?}", sentences(&analysis));
    assert_eq!(inside(&analysis).len(), MANY / 2);
    assert!(inside(&analysis).iter().all(|edge| !edge.holders.is_empty()));
}
