//! Locks of async-lock and of futures.

use std::sync::Arc;
use std::time::Duration;

use async_lock::{Mutex, RwLock, Semaphore};

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(async_lock_mutexes_crossed: "deadlock"),
    faulty!(async_lock_reader_behind_a_writer: "deadlock"),
    faulty!(async_lock_mutex_of_one_task: "deadlock"),
    faulty!(async_lock_semaphore_of_one_task: "deadlock" | "leaked_tasks"),
    faulty!(futures_mutexes_crossed: "deadlock"),
    healthy!(async_lock_mutex_held_until_a_timer),
    healthy!(async_lock_readers_beside_a_writer),
    healthy!(async_lock_semaphore_with_a_holder),
    healthy!(futures_mutex_held_until_a_timer),
];

async fn async_lock_mutexes_crossed() {
    let (a, b) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    tokio::spawn(a_then_b(a.clone(), b.clone()));
    tokio::spawn(b_then_a(a, b));
    harness::ready(2).await;
}

async fn a_then_b(a: Arc<Mutex<u32>>, b: Arc<Mutex<u32>>) {
    let a = a.lock().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    harness::affected("a_then_b");
    *b.lock().await += *a;
}

async fn b_then_a(a: Arc<Mutex<u32>>, b: Arc<Mutex<u32>>) {
    let b = b.lock().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    harness::affected("b_then_a");
    *a.lock().await += *b;
}

async fn async_lock_reader_behind_a_writer() {
    let lock = Arc::new(RwLock::new(1));
    tokio::spawn(reader(lock.clone()));
    tokio::spawn(writer(lock));
    harness::ready(2).await;
}

async fn reader(lock: Arc<RwLock<u32>>) {
    let first = lock.read().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    harness::affected("reader");
    let second = lock.read().await;
    println!("{}", *first + *second);
}

async fn writer(lock: Arc<RwLock<u32>>) {
    tokio::time::sleep(Duration::from_millis(50)).await;
    harness::affected("writer");
    *lock.write().await += 1;
}

async fn async_lock_mutex_of_one_task() {
    tokio::spawn(locks_twice(Arc::new(Mutex::new(1))));
    harness::ready(1).await;
}

async fn locks_twice(lock: Arc<Mutex<u32>>) {
    let first = lock.lock().await;
    harness::affected("locks_twice");
    let second = lock.lock().await;
    println!("{}", *first + *second);
}

async fn async_lock_semaphore_of_one_task() {
    tokio::spawn(acquires_twice(Arc::new(Semaphore::new(1))));
    harness::ready(1).await;
}

async fn acquires_twice(semaphore: Arc<Semaphore>) {
    let first = semaphore.acquire().await;
    harness::affected("acquires_twice");
    let second = semaphore.acquire().await;
    drop((first, second));
}

async fn futures_mutexes_crossed() {
    let both = (Arc::new(futures::lock::Mutex::new(1)), Arc::new(futures::lock::Mutex::new(2)));
    tokio::spawn(crosses(both.0.clone(), both.1.clone()));
    tokio::spawn(crosses(both.1, both.0));
    harness::ready(2).await;
}

async fn crosses(one: Arc<futures::lock::Mutex<u32>>, other: Arc<futures::lock::Mutex<u32>>) {
    let one = one.lock().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    harness::affected("crosses");
    *other.lock().await += *one;
}

async fn async_lock_mutex_held_until_a_timer() {
    let lock = Arc::new(Mutex::new(1));
    let held = lock.clone().lock_arc().await;
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        drop(held);
    });
    for _ in 0..2 {
        let lock = lock.clone();
        tokio::spawn(async move {
            harness::waits();
            *lock.lock().await += 1;
        });
    }
    harness::ready(2).await;
}

async fn async_lock_readers_beside_a_writer() {
    let lock = Arc::new(RwLock::new(1));
    let held = lock.clone();
    tokio::spawn(async move {
        let first = held.read().await;
        tokio::time::sleep(DAY).await;
        drop(first);
    });
    tokio::task::yield_now().await;
    let writes = lock.clone();
    tokio::spawn(async move {
        harness::waits();
        *writes.write().await += 1;
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    tokio::spawn(async move {
        harness::waits();
        println!("{}", *lock.read().await);
    });
    harness::ready(2).await;
}

async fn async_lock_semaphore_with_a_holder() {
    let semaphore = Arc::new(Semaphore::new(1));
    let held = semaphore.acquire_arc().await;
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        drop(held);
    });
    tokio::spawn(async move {
        harness::waits();
        drop(semaphore.acquire().await);
    });
    harness::ready(1).await;
}

async fn futures_mutex_held_until_a_timer() {
    let lock = Arc::new(futures::lock::Mutex::new(1));
    let held = lock.clone().lock_owned().await;
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        drop(held);
    });
    tokio::spawn(async move {
        harness::waits();
        *lock.lock().await += 1;
    });
    harness::ready(1).await;
}
