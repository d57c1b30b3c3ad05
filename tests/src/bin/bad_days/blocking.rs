//! Tasks that do not give their thread back.

use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{LocalSet, yield_now};

use crate::stage::{self, AGES, Case, bad, good};

pub(crate) const CASES: &[Case] = &[
    bad!(sleep_in_a_worker: "blocked_worker"),
    bad!(std_mutex_in_a_worker: "blocked_worker"),
    bad!(loop_in_a_worker: "blocked_worker"),
    bad!(block_in_place_for_long: "blocked_worker"),
    bad!(all_workers_blocked: "blocked_worker" | "starved_tasks"),
    bad!(permit_of_a_blocked_task: "blocked_worker"),
    bad!(guard_across_an_await: "deadlock" | "blocked_worker"),
    bad!(std_mutexes_crossed: "deadlock" | "blocked_worker"),
    good!(std_mutexes_contended),
    bad!(task_on_a_current_thread: "blocked_worker" | "starved_tasks"),
    bad!(main_on_a_current_thread: "starved_tasks" | "blocked_worker"),
];

async fn sleep_in_a_worker() {
    tokio::spawn(sleeps());
    stage::stands(1).await;
}

async fn sleeps() {
    stage::guilty("sleeps");
    thread::sleep(AGES);
}

/// A `std` mutex that a thread keeps for good.
fn taken_by_a_thread() -> Arc<Mutex<i32>> {
    let lock = Arc::new(Mutex::new(0));
    let theirs = lock.clone();
    let (held, wait) = mpsc::channel();
    thread::spawn(move || {
        let _guard = theirs.lock();
        let _ = held.send(());
        thread::sleep(AGES);
    });
    let _ = wait.recv();
    lock
}

async fn std_mutex_in_a_worker() {
    tokio::spawn(locks(taken_by_a_thread()));
    stage::stands(1).await;
}

async fn locks(lock: Arc<Mutex<i32>>) {
    stage::guilty("locks");
    *lock.lock().unwrap() += 1;
}

async fn loop_in_a_worker() {
    tokio::spawn(computes());
    stage::stands(1).await;
}

async fn computes() {
    stage::guilty("computes");
    println!("{}", collatz());
}

/// Some number or other, for ever.
fn collatz() -> u64 {
    let mut number = 27_u64;
    for _ in 0..u64::MAX {
        number = std::hint::black_box(if number.is_multiple_of(2) { number / 2 } else { 3 * number + 1 });
    }
    number
}

async fn block_in_place_for_long() {
    tokio::spawn(blocks_in_place());
    stage::stands(1).await;
}

async fn blocks_in_place() {
    stage::guilty("blocks_in_place");
    tokio::task::block_in_place(|| thread::sleep(AGES));
}

async fn all_workers_blocked() {
    for _ in 0..2 {
        tokio::spawn(sleeps());
    }
    // Main is polled by a thread of its own; these are polled by nobody.
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() < 12 {
        tokio::spawn(std::future::ready(()));
        yield_now().await;
    }
    stage::stands(2).await;
}

async fn permit_of_a_blocked_task() {
    let permits = Arc::new(Semaphore::new(1));
    let lock = taken_by_a_thread();
    let permit = permits.clone().acquire_owned().await;
    tokio::spawn(wants_a_permit(permits));
    tokio::spawn(async move {
        let permit = permit;
        stage::guilty("permit_of_a_blocked_task");
        *lock.lock().unwrap() += 1;
        drop(permit);
    });
    stage::stands(2).await;
}

async fn wants_a_permit(permits: Arc<Semaphore>) {
    stage::waits();
    let _permit = permits.acquire().await;
}

async fn guard_across_an_await() {
    on_a_current_thread(|| async {
        let (lock, tasks) = (Arc::new(Mutex::new(0)), LocalSet::new());
        tasks.spawn_local(keeps(lock.clone()));
        tasks.spawn_local(locks(lock));
        tasks.await;
    });
    stage::stands(2).await;
}

#[allow(clippy::await_holding_lock, reason = "what this day is about")]
async fn keeps(lock: Arc<Mutex<i32>>) {
    let guard = lock.lock().unwrap();
    stage::guilty("keeps");
    yield_now().await;
    drop(guard);
}

async fn std_mutexes_crossed() {
    let (one, two) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(moves(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(moves(two, one, meet));
    stage::stands(2).await;
}

async fn moves(from: Arc<Mutex<i32>>, to: Arc<Mutex<i32>>, meet: Arc<Barrier>) {
    let mut debit = from.lock().unwrap();
    meet.wait();
    stage::guilty("moves");
    let mut credit = to.lock().unwrap();
    *debit -= 1;
    *credit += 1;
}

/// Threads that often wait for one another, and never for long.
async fn std_mutexes_contended() {
    let locks = Arc::new((Mutex::new(0_u64), Mutex::new(0_u64)));
    for _ in 0..4 {
        let locks = locks.clone();
        tokio::spawn(async move {
            stage::waits();
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
    stage::stands(4).await;
}

/// Runs `main` on a thread and a runtime of its own.
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
        tokio::time::sleep(AGES).await;
    });
    stage::stands(1).await;
}

async fn main_on_a_current_thread() {
    on_a_current_thread(|| async {
        for _ in 0..5 {
            tokio::spawn(std::future::ready(()));
        }
        stage::guilty("main_on_a_current_thread");
        thread::sleep(AGES);
    });
    stage::stands(1).await;
}
