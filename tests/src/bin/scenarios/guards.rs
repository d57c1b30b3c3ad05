//! Healthy locks: a task that seems to hold a lock has released it, will release it, or is being polled.

use std::pin::pin;
use std::sync::Arc;
use std::thread;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Barrier, Mutex, OnceCell, OwnedMutexGuard, RwLock, Semaphore};
use tokio::time::sleep;

use crate::harness::{self, Case, DAY, healthy};

pub(crate) const CASES: &[Case] = &[
    healthy!(guards_dropped),
    healthy!(guards_dropped_under_a_condition),
    healthy!(guards_moved_into_tasks),
    healthy!(guards_moved_into_closures),
    healthy!(guards_forgotten),
    healthy!(locks_until_a_timer),
    healthy!(writer_behind_readers_with_a_timer),
    healthy!(permits_in_use),
    healthy!(select_that_polls_what_it_holds),
    healthy!(join_of_two_that_share_a_lock),
    healthy!(unordered_futures_that_share_a_lock),
    healthy!(barrier_that_is_not_full),
    healthy!(cell_being_filled),
];

type Lock = Arc<Mutex<i32>>;

fn two_locks() -> (Lock, Lock) {
    (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)))
}

/// Two tasks, each of which once held the lock that the other one waits for, and a third that holds both until a timer fires.
async fn guards_dropped() {
    let (one, two) = two_locks();
    let meet = Arc::new(Barrier::new(3));
    tokio::spawn(holds_both(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(drops(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(drops(two, one, meet));
    harness::ready(3).await;
}

async fn holds_both(one: Lock, two: Lock, meet: Arc<Barrier>) {
    meet.wait().await;
    let guards = (one.lock().await, two.lock().await);
    meet.wait().await;
    harness::waits();
    sleep(DAY).await;
    drop(guards);
}

async fn drops(one: Lock, two: Lock, meet: Arc<Barrier>) {
    let mut guard = one.lock().await;
    *guard += 1;
    drop(guard);
    meet.wait().await;
    meet.wait().await;
    harness::waits();
    *two.lock().await += 1;
}

async fn guards_dropped_under_a_condition() {
    let (one, two) = two_locks();
    let meet = Arc::new(Barrier::new(3));
    tokio::spawn(holds_both(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(drops_if(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(drops_if(two, one, meet));
    harness::ready(3).await;
}

async fn drops_if(one: Lock, two: Lock, meet: Arc<Barrier>) {
    let mut guard = one.lock().await;
    *guard += 1;
    if *guard > 0 {
        drop(guard);
    }
    meet.wait().await;
    meet.wait().await;
    harness::waits();
    *two.lock().await += 1;
}

async fn guards_moved_into_tasks() {
    let (one, two) = two_locks();
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(lets_a_task_hold(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(lets_a_task_hold(two, one, meet));
    harness::ready(4).await;
}

async fn lets_a_task_hold(one: Lock, two: Lock, meet: Arc<Barrier>) {
    let mut guard = one.lock_owned().await;
    *guard += 1;
    tokio::spawn(holds(guard));
    meet.wait().await;
    harness::waits();
    *two.lock().await += 1;
}

async fn holds(guard: OwnedMutexGuard<i32>) {
    harness::waits();
    sleep(DAY).await;
    drop(guard);
}

async fn guards_moved_into_closures() {
    let (one, two) = two_locks();
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(lets_a_closure_hold(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(lets_a_closure_hold(two, one, meet));
    harness::ready(2).await;
}

async fn lets_a_closure_hold(one: Lock, two: Lock, meet: Arc<Barrier>) {
    let mut guard = one.lock_owned().await;
    *guard += 1;
    tokio::task::spawn_blocking(move || {
        thread::sleep(DAY);
        drop(guard);
    });
    meet.wait().await;
    harness::waits();
    *two.lock().await += 1;
}

/// Readers that forget their guards block writers only, and there is none.
async fn guards_forgotten() {
    let lock = Arc::new(RwLock::new(7));
    for _ in 0..3 {
        tokio::spawn(forgets(lock.clone()));
    }
    harness::ready(3).await;
}

async fn forgets(lock: Arc<RwLock<i32>>) {
    std::mem::forget(lock.read().await);
    let again = lock.read().await;
    harness::waits();
    sleep(DAY).await;
    drop(again);
}

async fn locks_until_a_timer() {
    let (one, two) = two_locks();
    let (held, chain) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    tokio::spawn(holds_until_a_timer(one.clone(), held.clone()));
    held.wait().await;
    tokio::spawn(holds_and_waits(two.clone(), one, chain.clone()));
    chain.wait().await;
    for _ in 0..10 {
        tokio::spawn(adds(two.clone()));
    }
    harness::ready(12).await;
}

async fn holds_until_a_timer(lock: Lock, held: Arc<Barrier>) {
    let guard = lock.lock().await;
    held.wait().await;
    harness::waits();
    sleep(DAY).await;
    drop(guard);
}

async fn holds_and_waits(mine: Lock, other: Lock, held: Arc<Barrier>) {
    let mut mine = mine.lock().await;
    held.wait().await;
    harness::waits();
    *mine += *other.lock().await;
}

async fn adds(lock: Lock) {
    harness::waits();
    *lock.lock().await += 1;
}

async fn writer_behind_readers_with_a_timer() {
    let lock = Arc::new(RwLock::new(7));
    let held = Arc::new(Barrier::new(4));
    for _ in 0..3 {
        tokio::spawn(reads(lock.clone(), held.clone()));
    }
    held.wait().await;
    tokio::spawn(writes(lock));
    harness::ready(4).await;
}

async fn reads(lock: Arc<RwLock<i32>>, held: Arc<Barrier>) {
    let guard = lock.read().await;
    held.wait().await;
    harness::waits();
    sleep(DAY).await;
    drop(guard);
}

async fn writes(lock: Arc<RwLock<i32>>) {
    harness::waits();
    *lock.write().await += 1;
}

async fn permits_in_use() {
    let permits = Arc::new(Semaphore::new(3));
    for _ in 0..3 {
        let permit = permits.clone().acquire_owned().await;
        tokio::spawn(async move {
            harness::waits();
            sleep(DAY).await;
            drop(permit);
        });
    }
    for _ in 0..20 {
        tokio::spawn(uses_a_permit(permits.clone()));
    }
    harness::ready(23).await;
}

async fn uses_a_permit(permits: Arc<Semaphore>) {
    harness::waits();
    let _permit = permits.acquire().await;
    sleep(DAY).await;
}

async fn keeps_until_a_timer(lock: Lock) {
    let mut guard = lock.lock().await;
    harness::waits();
    sleep(DAY).await;
    *guard += 1;
}

/// The remedy of RFD 609: the task that waits for the lock polls the future that holds it.
async fn select_that_polls_what_it_holds() {
    tokio::spawn(async {
        let lock = Lock::default();
        let mut held = pin!(keeps_until_a_timer(lock.clone()));
        loop {
            tokio::select! {
                biased;
                () = &mut held => return,
                guard = lock.lock() => drop(guard),
            }
        }
    });
    harness::ready(1).await;
}

async fn join_of_two_that_share_a_lock() {
    tokio::spawn(async {
        let lock = Lock::default();
        tokio::join!(keeps_until_a_timer(lock.clone()), adds(lock.clone()));
    });
    harness::ready(2).await;
}

async fn unordered_futures_that_share_a_lock() {
    tokio::spawn(async {
        let lock = Lock::default();
        let mut futures: FuturesUnordered<_> = (0..5).map(|_| keeps_until_a_timer(lock.clone())).collect();
        while let Some(()) = futures.next().await {}
    });
    harness::ready(1).await;
}

async fn barrier_that_is_not_full() {
    let meet = Arc::new(Barrier::new(3));
    for _ in 0..2 {
        tokio::spawn(arrives(meet.clone()));
    }
    tokio::spawn(async move {
        harness::waits();
        sleep(DAY).await;
        meet.wait().await;
    });
    harness::ready(3).await;
}

async fn arrives(meet: Arc<Barrier>) {
    harness::waits();
    meet.wait().await;
}

async fn cell_being_filled() {
    let cell = Arc::new(OnceCell::new());
    for _ in 0..4 {
        tokio::spawn(fills(cell.clone()));
    }
    drop(cell);
    harness::ready(4).await;
}

async fn fills(cell: Arc<OnceCell<i32>>) {
    harness::waits();
    let filling = async {
        sleep(DAY).await;
        1
    };
    let _ = cell.get_or_init(|| filling).await;
}
