//! Guards in variables of the same name as their locks.
#![allow(clippy::panic, reason = "a test fails by it")]

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

type Lock = Arc<Mutex<u8>>;

async fn local(lock: Lock) {
    let lock = lock.lock().await;
    sleep(DAY).await;
    drop(lock);
}

async fn pattern(lock: Lock) {
    let (lock, _number) = (lock.lock().await, 5);
    sleep(DAY).await;
    drop(lock);
}

async fn in_loop(lock: Vec<Lock>) {
    for lock in lock {
        let lock = lock.lock().await;
        sleep(DAY).await;
        drop(lock);
    }
}

async fn twice(lock: Lock) {
    let lock = lock.clone();
    let lock = lock.lock_owned().await;
    let lock = Some(lock);
    sleep(DAY).await;
    drop(lock);
}

async fn argument(lock: Lock) {
    async fn inner(lock: OwnedMutexGuard<u8>) {
        let lock = Some(lock);
        sleep(DAY).await;
        drop(lock);
    }
    inner(lock.lock_owned().await).await;
}

/// Both variables of `pin!` are called `pinned`, in blocks that end before the `.await`.
async fn pinned(lock: Lock) {
    let first = pin!(0_u8);
    let second = pin!(lock.lock().await);
    sleep(DAY).await;
    let _both = (first, second);
}

/// The holder that is named to a task that waits for a lock, which `has` takes.
fn holder_of<F>(has: impl FnOnce(Lock) -> F) -> Holder
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = runtime();
    let lock = Lock::default();
    let holds = spawn(&runtime, has(lock.clone()));
    let waits = spawn(&runtime, async move { *lock.lock().await += 1 });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    let [edge] = edges(&analysis, waits)[..] else { panic!("{}", text(&analysis)) };
    let [holder] = &edge.holders[..] else { panic!("{edge:?}") };
    assert_eq!((holder.task, edge.held_elsewhere), (Some(holds), false), "{edge:?}");
    holder.clone()
}

#[test]
fn guards_have_the_names_of_their_locks() {
    isolated!();
    let block = |lock: Lock| async move {
        let lock = lock.lock().await;
        sleep(DAY).await;
        drop(lock);
    };
    for (holder, handle) in [
        (holder_of(local), "MutexGuard"),
        (holder_of(pattern), "MutexGuard"),
        (holder_of(|lock| in_loop(vec![lock])), "MutexGuard"),
        (holder_of(twice), "OwnedMutexGuard"),
        (holder_of(argument), "OwnedMutexGuard"),
        (holder_of(block), "MutexGuard"),
    ] {
        let Holder { variable, certain, handle: found, .. } = &holder;
        assert_eq!((variable.as_str(), found.as_str(), *certain), ("lock", handle, true), "{holder:?}");
    }
}

#[test]
fn the_place_of_what_is_pinned_is_known() {
    isolated!();
    let runtime = runtime();
    let lock = Lock::default();
    let holds = spawn(&runtime, pinned(lock.clone()));
    let waits = spawn(&runtime, async move { *lock.lock().await += 1 });
    let analysis = analysis(&runtime);
    let [edge] = edges(&analysis, waits)[..] else { panic!("{}", text(&analysis)) };
    let [holder] = &edge.holders[..] else { panic!("{edge:?}") };
    assert_eq!((holder.task, holder.variable.as_str()), (Some(holds), "pinned"), "{edge:?}");
    let gaps = &analysis.graph.gaps;
    assert!(!gaps.iter().any(|gap| matches!(gap, Gap::UnplacedVariables { .. })), "{gaps:?}");
}

#[test]
fn permits_and_senders_have_the_names_of_what_they_are_from() {
    isolated!();
    let runtime = runtime();
    let permits = Arc::new(Semaphore::new(1));
    let (sender, mut receiver) = mpsc::channel::<u8>(1);
    let has = spawn(&runtime, async move {
        let sender = Some(sender.clone());
        sleep(DAY).await;
        drop(sender);
    });
    let holds = spawn(&runtime, {
        let permits = permits.clone();
        async move {
            let permits = permits.acquire().await;
            sleep(DAY).await;
            drop(permits);
        }
    });
    let receives = spawn(&runtime, async move {
        let _ = receiver.recv().await;
    });
    let acquires = spawn(&runtime, async move { drop(permits.acquire().await) });
    let analysis = analysis(&runtime);
    let [edge] = edges(&analysis, receives)[..] else { panic!("{}", text(&analysis)) };
    assert!(!edge.holders.is_empty(), "{edge:?}");
    let named = |holder: &Holder| holder.task == Some(has) && holder.variable == "sender";
    assert!(edge.holders.iter().all(named), "{edge:?}");
    let [edge] = edges(&analysis, acquires)[..] else { panic!("{}", text(&analysis)) };
    let [holder] = &edge.holders[..] else { panic!("{edge:?}") };
    assert_eq!((holder.task, holder.variable.as_str()), (Some(holds), "permits"), "{edge:?}");
}

/// A guard that was dropped in a block of its own is not alive, whatever its bytes say.
#[test]
fn guards_of_an_inner_block_are_gone() {
    isolated!();
    let runtime = runtime();
    let lock = Lock::default();
    let had = spawn(&runtime, {
        let lock = lock.clone();
        async move {
            {
                let lock = lock.lock().await;
                yield_now().await;
                drop(lock);
            }
            let lock = lock.clone();
            sleep(DAY).await;
            drop(lock);
        }
    });
    settle(&runtime);
    let guard = lock.clone().try_lock_owned().unwrap();
    let waits = spawn(&runtime, async move { *lock.lock().await += 1 });
    let analysis = analysis(&runtime);
    let [edge] = edges(&analysis, waits)[..] else { panic!("{}", text(&analysis)) };
    assert!(edge.holders.iter().all(|holder| holder.task != Some(had)), "{edge:?}");
    drop(guard);
}
