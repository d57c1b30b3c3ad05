//! Threads and blocking calls that wait for what their own task has, and healthy ones that look like them.

use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, block_in_place, spawn_blocking};
use tokio::time::sleep;

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(async_mutex_taken_again_by_a_blocking_call: "deadlock" | "blocked_worker", says "`turn`"),
    faulty!(std_mutex_in_two_branches: "deadlock" | "blocked_worker", says "`guard`", "itself"),
    faulty!(own main_locks_what_its_branch_holds: "deadlock" | "blocked_worker", says "`guard`", "itself"),
    faulty!(shard_behind_a_reference: "deadlock" | "blocked_worker", says "`entry", "itself"),
    faulty!(watch_borrowed_twice: "deadlock" | "blocked_worker", says "itself", "own_locks::status at"),
    faulty!(read_lock_taken_twice: "deadlock" | "blocked_worker", says "itself", "own_locks::totals at"),
    faulty!(consumer_outlives_its_sender: "deadlock", says "`messages`"),
    faulty!(call_that_waits_for_its_caller: "deadlock", says "`answer`"),
    healthy!(call_that_waits_for_a_timer_of_its_caller),
    healthy!(short_locks_in_two_branches),
    healthy!(shards_that_are_released),
    healthy!(watch_borrowed_once),
    healthy!(consumer_with_messages),
    healthy!(blocking_calls_that_drive_timers),
    healthy!(own main_that_blocks_beside_workers),
];

type Turns = Arc<tokio::sync::Mutex<u64>>;

async fn async_mutex_taken_again_by_a_blocking_call() {
    let lock = Turns::default();
    tokio::spawn(serves(lock));
    harness::ready(1).await;
}

async fn serves(lock: Turns) {
    let turn = lock.lock().await;
    sleep(Duration::from_millis(5)).await;
    append(&lock);
    drop(turn);
}

fn append(lock: &Turns) {
    harness::affected("append");
    let mut turns = block_in_place(|| lock.blocking_lock());
    *turns += 1;
}

#[allow(clippy::await_holding_lock, reason = "the subject of this case")]
async fn adds(lock: &Mutex<u64>) {
    harness::waits();
    let mut guard = lock.lock().unwrap();
    sleep(Duration::from_millis(10)).await;
    *guard += 1;
}

async fn std_mutex_in_two_branches() {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tasks = LocalSet::new();
        tasks.spawn_local(async {
            let lock = Mutex::new(0);
            tokio::join!(adds(&lock), adds(&lock));
        });
        runtime.block_on(tasks);
    });
    harness::ready(2).await;
}

#[delouse::main(flavor = "current_thread")]
async fn main_locks_what_its_branch_holds() {
    harness::ready_on_a_thread(2);
    let lock = Mutex::new(0);
    tokio::select! {
        () = adds(&lock) => {}
        () = adds(&lock) => {}
    }
}

type Pods = Arc<DashMap<u64, String>>;

async fn audits(pods: Pods) {
    loop {
        if let Some(entry) = pods.get(&1) {
            sleep(Duration::from_millis(100)).await;
            println!("{}", entry.value());
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn inserts(pods: Pods) {
    sleep(Duration::from_millis(20)).await;
    harness::affected("inserts");
    pods.insert(1, "again".to_owned());
}

async fn shard_behind_a_reference() {
    let pods = Pods::default();
    pods.insert(1, "first".to_owned());
    tokio::spawn(async move { tokio::join!(audits(pods.clone()), inserts(pods)) });
    harness::ready(1).await;
}

fn status(last: &watch::Receiver<Option<u64>>) -> bool {
    match last.borrow().as_ref() {
        Some(count) => {
            thread::sleep(Duration::from_millis(300));
            harness::affected("status");
            last.borrow().unwrap_or(0) < *count
        }
        None => false,
    }
}

async fn watch_borrowed_twice() {
    let (sender, receiver) = watch::channel(Some(1));
    tokio::spawn(async move { println!("{}", status(&receiver)) });
    sleep(Duration::from_millis(100)).await;
    tokio::spawn(async move {
        harness::waits();
        sender.send_replace(Some(2));
    });
    harness::ready(2).await;
}

/// Two totals of one table, each under a lock of its own.
fn totals(table: &RwLock<Vec<u64>>) -> (u64, u64) {
    let rows = table.read().unwrap();
    thread::sleep(Duration::from_millis(300));
    harness::affected("totals");
    let highest = table.read().unwrap().iter().copied().max();
    (rows.iter().sum(), highest.unwrap_or(0))
}

async fn read_lock_taken_twice() {
    let table = Arc::new(RwLock::new(vec![1, 2, 3]));
    let own = table.clone();
    tokio::spawn(async move { println!("{:?}", totals(&own)) });
    sleep(Duration::from_millis(100)).await;
    tokio::spawn(async move {
        harness::waits();
        table.write().unwrap().push(4);
    });
    harness::ready(2).await;
}

fn consumes(mut jobs: mpsc::Receiver<u64>) -> u64 {
    let mut sum = 0;
    harness::waits();
    while let Some(job) = jobs.blocking_recv() {
        sum += job;
    }
    sum
}

/// The consumer ends when the last sender is dropped, for which this function waits until the consumer ends.
async fn feeds() {
    let (messages, jobs) = mpsc::channel(4);
    let consumer = spawn_blocking(move || consumes(jobs));
    messages.send(7).await.unwrap();
    harness::affected("feeds");
    println!("{}", consumer.await.unwrap());
    drop(messages);
}

async fn consumer_outlives_its_sender() {
    tokio::spawn(feeds());
    harness::ready(2).await;
}

async fn adds_often(lock: &Mutex<u64>) {
    harness::waits();
    loop {
        {
            let mut guard = lock.lock().unwrap();
            *guard += 1;
            thread::sleep(Duration::from_micros(100));
        }
        sleep(Duration::from_micros(100)).await;
    }
}

async fn short_locks_in_two_branches() {
    let lock = Arc::new(Mutex::new(0));
    for _ in 0..3 {
        let lock = lock.clone();
        tokio::spawn(async move { tokio::join!(adds_often(&lock), adds_often(&lock)) });
    }
    harness::ready(6).await;
}

async fn shards_that_are_released() {
    let pods = Pods::default();
    pods.insert(1, "first".to_owned());
    for _ in 0..3 {
        let pods = pods.clone();
        tokio::spawn(async move {
            harness::waits();
            loop {
                let entry = pods.get(&1).map(|entry| entry.value().clone());
                sleep(Duration::from_micros(100)).await;
                pods.insert(1, entry.unwrap_or_default());
            }
        });
    }
    harness::ready(3).await;
}

async fn watch_borrowed_once() {
    let (sender, receiver) = watch::channel(Some(1));
    for _ in 0..3 {
        let receiver = receiver.clone();
        tokio::spawn(async move {
            harness::waits();
            loop {
                let _last = *receiver.borrow();
                sleep(Duration::from_micros(100)).await;
            }
        });
    }
    tokio::spawn(async move {
        for number in 0.. {
            sender.send_replace(Some(number));
            sleep(Duration::from_micros(100)).await;
        }
    });
    harness::ready(3).await;
}

async fn consumer_with_messages() {
    let (messages, jobs) = mpsc::channel(4);
    let consumer = spawn_blocking(move || consumes(jobs));
    tokio::spawn(async move {
        loop {
            messages.send(1).await.unwrap();
            sleep(Duration::from_secs(3)).await;
        }
    });
    tokio::spawn(async move { println!("{}", consumer.await.unwrap()) });
    harness::ready(1).await;
}

async fn blocking_calls_that_drive_timers() {
    for _ in 0..3 {
        let handle = tokio::runtime::Handle::current();
        let call = spawn_blocking(move || {
            harness::waits();
            handle.block_on(sleep(DAY));
        });
        tokio::spawn(call);
    }
    harness::ready(3).await;
}

/// `main` waits on its own thread for the end, as many programs do.
#[delouse::main(worker_threads = 2)]
async fn main_that_blocks_beside_workers() {
    harness::ready_on_a_thread(1);
    let (end, ended) = std::sync::mpsc::channel::<()>();
    thread::spawn(move || {
        thread::sleep(DAY);
        drop(end);
    });
    harness::waits();
    let _ = ended.recv();
}

/// A blocking call waits for what the task would send that waits for the call.
async fn call_that_waits_for_its_caller() {
    tokio::spawn(loads());
    harness::ready(1).await;
}

async fn loads() {
    let (answer, answered) = tokio::sync::oneshot::channel::<u32>();
    let handle = tokio::runtime::Handle::current();
    let call = spawn_blocking(move || handle.block_on(answered));
    harness::affected("loads");
    let value = call.await.unwrap().unwrap();
    let _closed = answer.send(value);
}

/// The same with a branch that sends.
async fn call_that_waits_for_a_timer_of_its_caller() {
    let (answer, answered) = tokio::sync::oneshot::channel::<u32>();
    let handle = tokio::runtime::Handle::current();
    let call = spawn_blocking(move || handle.block_on(answered));
    harness::waits();
    let sends = async move {
        sleep(DAY).await;
        let _closed = answer.send(1);
    };
    tokio::spawn(async move { tokio::join!(call, sends).0 });
    harness::ready(1).await;
}
