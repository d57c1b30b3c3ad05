//! Tasks that block their thread.

use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{LocalSet, yield_now};

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(sleep_in_a_worker: "blocked_worker"),
    faulty!(std_mutex_in_a_worker: "blocked_worker"),
    faulty!(loop_in_a_worker: "blocked_worker"),
    faulty!(block_in_place_for_long: "blocked_worker"),
    faulty!(all_workers_blocked: "blocked_worker" | "starved_tasks"),
    faulty!(permit_of_a_blocked_task: "blocked_worker"),
    faulty!(guard_across_an_await: "deadlock" | "blocked_worker"),
    faulty!(std_mutexes_crossed: "deadlock" | "blocked_worker"),
    healthy!(std_mutexes_contended),
    healthy!(own main_future_of_a_current_thread),
    faulty!(task_on_a_current_thread: "blocked_worker" | "starved_tasks"),
    faulty!(main_on_a_current_thread: "starved_tasks" | "blocked_worker"),
];

#[delouse::main(flavor = "current_thread")]
async fn main_future_of_a_current_thread() {
    harness::ready_on_a_thread(1);
    harness::waits();
    tokio::time::sleep(DAY).await;
}

async fn sleep_in_a_worker() {
    tokio::spawn(sleeps());
    harness::ready(1).await;
}

async fn sleeps() {
    harness::affected("sleeps");
    thread::sleep(DAY);
}

/// A `std` mutex that a thread never unlocks.
fn taken_by_a_thread() -> Arc<Mutex<i32>> {
    let lock = Arc::new(Mutex::new(0));
    let theirs = lock.clone();
    let (held, wait) = mpsc::channel();
    thread::spawn(move || {
        let _guard = theirs.lock();
        let _ = held.send(());
        thread::sleep(DAY);
    });
    let _ = wait.recv();
    lock
}

async fn std_mutex_in_a_worker() {
    tokio::spawn(locks(taken_by_a_thread()));
    harness::ready(1).await;
}

async fn locks(lock: Arc<Mutex<i32>>) {
    harness::affected("locks");
    *lock.lock().unwrap() += 1;
}

async fn loop_in_a_worker() {
    tokio::spawn(computes());
    harness::ready(1).await;
}

async fn computes() {
    harness::affected("computes");
    println!("{}", collatz());
}

/// Computes for ever.
fn collatz() -> u64 {
    let mut number = 27_u64;
    for _ in 0..u64::MAX {
        number = std::hint::black_box(if number.is_multiple_of(2) { number / 2 } else { 3 * number + 1 });
    }
    number
}

async fn block_in_place_for_long() {
    tokio::spawn(blocks_in_place());
    harness::ready(1).await;
}

async fn blocks_in_place() {
    harness::affected("blocks_in_place");
    tokio::task::block_in_place(|| thread::sleep(DAY));
}

async fn all_workers_blocked() {
    for _ in 0..2 {
        tokio::spawn(sleeps());
    }
    // The main future has its own thread; no thread is left to poll these.
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() < 12 {
        tokio::spawn(std::future::ready(()));
        yield_now().await;
    }
    harness::ready(2).await;
}

async fn permit_of_a_blocked_task() {
    let permits = Arc::new(Semaphore::new(1));
    let lock = taken_by_a_thread();
    let permit = permits.clone().acquire_owned().await;
    tokio::spawn(wants_a_permit(permits));
    tokio::spawn(async move {
        let permit = permit;
        harness::affected("permit_of_a_blocked_task");
        *lock.lock().unwrap() += 1;
        drop(permit);
    });
    harness::ready(2).await;
}

async fn wants_a_permit(permits: Arc<Semaphore>) {
    harness::waits();
    let _permit = permits.acquire().await;
}

async fn guard_across_an_await() {
    on_a_current_thread(|| async {
        let (lock, tasks) = (Arc::new(Mutex::new(0)), LocalSet::new());
        tasks.spawn_local(keeps(lock.clone()));
        tasks.spawn_local(locks(lock));
        tasks.await;
    });
    harness::ready(2).await;
}

#[allow(clippy::await_holding_lock, reason = "the subject of this case")]
async fn keeps(lock: Arc<Mutex<i32>>) {
    let guard = lock.lock().unwrap();
    harness::affected("keeps");
    yield_now().await;
    drop(guard);
}

async fn std_mutexes_crossed() {
    let (one, two) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(moves(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(moves(two, one, meet));
    harness::ready(2).await;
}

async fn moves(from: Arc<Mutex<i32>>, to: Arc<Mutex<i32>>, meet: Arc<Barrier>) {
    let mut debit = from.lock().unwrap();
    meet.wait();
    harness::affected("moves");
    let mut credit = to.lock().unwrap();
    *debit -= 1;
    *credit += 1;
}

/// Threads that often wait for one another, but never for long.
async fn std_mutexes_contended() {
    let locks = Arc::new((Mutex::new(0_u64), Mutex::new(0_u64)));
    for _ in 0..4 {
        let locks = locks.clone();
        tokio::spawn(async move {
            harness::waits();
            loop {
                {
                    let mut one = locks.0.lock().unwrap();
                    *one += 1;
                    let mut other = locks.1.lock().unwrap();
                    thread::sleep(Duration::from_micros(200));
                    *other += *one;
                }
                *locks.1.lock().unwrap() += 1;
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        });
    }
    harness::ready(4).await;
}

/// Runs `main` on its own thread and runtime.
fn on_a_current_thread<F: Future<Output = ()> + 'static>(main: fn() -> F) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(main());
    });
}

async fn task_on_a_current_thread() {
    on_a_current_thread(|| async {
        tokio::spawn(sleeps());
        for _ in 0..5 {
            tokio::spawn(std::future::ready(()));
        }
        tokio::time::sleep(DAY).await;
    });
    harness::ready(1).await;
}

async fn main_on_a_current_thread() {
    on_a_current_thread(|| async {
        for _ in 0..5 {
            tokio::spawn(std::future::ready(()));
        }
        harness::affected("main_on_a_current_thread");
        thread::sleep(DAY);
    });
    harness::ready(1).await;
}
