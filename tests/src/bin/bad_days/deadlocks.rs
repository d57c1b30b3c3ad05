//! Tasks that wait for one another in a circle.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Barrier, Mutex, RwLock, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::stage::{self, Case, bad};

pub(crate) const CASES: &[Case] = &[
    bad!(two_mutexes: "deadlock"),
    bad!(five_mutexes: "deadlock"),
    bad!(mutex_of_one_task: "deadlock"),
    bad!(reader_behind_a_writer: "deadlock"),
    bad!(one_permit_more: "deadlock"),
    bad!(joins_of_each_other: "deadlock"),
    bad!(full_channels_in_a_ring: "deadlock"),
];

async fn two_mutexes() {
    let (one, two) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(transfer(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(transfer(two, one, meet));
    stage::stands(2).await;
}

async fn transfer(from: Arc<Mutex<i32>>, to: Arc<Mutex<i32>>, meet: Arc<Barrier>) {
    let mut debit = from.lock().await;
    meet.wait().await;
    stage::guilty("transfer");
    let mut credit = to.lock().await;
    *debit -= 1;
    *credit += 1;
}

async fn five_mutexes() {
    let forks: Vec<_> = (0..5).map(|n| Arc::new(Mutex::new(n))).collect();
    let meet = Arc::new(Barrier::new(5));
    for n in 0..5 {
        tokio::spawn(philosopher(forks[n].clone(), forks[(n + 1) % 5].clone(), meet.clone()));
    }
    drop(forks);
    stage::stands(5).await;
}

async fn philosopher(left: Arc<Mutex<usize>>, right: Arc<Mutex<usize>>, meet: Arc<Barrier>) {
    let mut left = left.lock_owned().await;
    meet.wait().await;
    stage::guilty("philosopher");
    let right = right.lock_owned().await;
    *left += *right;
}

async fn mutex_of_one_task() {
    tokio::spawn(locks_twice(Arc::new(Mutex::new(0))));
    stage::stands(1).await;
}

async fn locks_twice(lock: Arc<Mutex<i32>>) {
    let mut first = lock.lock().await;
    stage::guilty("locks_twice");
    let second = lock.lock().await;
    *first += *second;
}

async fn reader_behind_a_writer() {
    let lock = Arc::new(RwLock::new(0));
    let (start, started) = oneshot::channel();
    tokio::spawn(reads_twice(lock.clone(), start));
    tokio::spawn(writes(lock, started));
    stage::stands(2).await;
}

async fn reads_twice(lock: Arc<RwLock<i32>>, reading: oneshot::Sender<()>) {
    let first = lock.read().await;
    let _ = reading.send(());
    // A writer in the queue shuts out new readers: tokio's lock is fair.
    while lock.try_read().is_ok() {
        tokio::task::yield_now().await;
    }
    stage::guilty("reads_twice");
    let second = lock.read().await;
    println!("{}", *first + *second);
}

async fn writes(lock: Arc<RwLock<i32>>, reading: oneshot::Receiver<()>) {
    let _ = reading.await;
    stage::guilty("writes");
    let mut value = lock.write().await;
    *value += 1;
}

async fn one_permit_more() {
    let permits = Arc::new(Semaphore::new(2));
    let meet = Arc::new(Barrier::new(2));
    for _ in 0..2 {
        tokio::spawn(upgrades(permits.clone(), meet.clone()));
    }
    drop((permits, meet));
    stage::stands(2).await;
}

async fn upgrades(permits: Arc<Semaphore>, meet: Arc<Barrier>) {
    let first = permits.acquire().await;
    meet.wait().await;
    stage::guilty("upgrades");
    let second = permits.acquire().await;
    drop((first, second));
}

type Handles = Arc<Mutex<HashMap<u8, JoinHandle<()>>>>;

async fn joins_of_each_other() {
    let handles = Handles::default();
    let (open, gate) = watch::channel(false);
    let one = tokio::spawn(joins(handles.clone(), 2, gate.clone()));
    let two = tokio::spawn(joins(handles.clone(), 1, gate));
    handles.lock().await.extend([(1, one), (2, two)]);
    let _ = open.send(true);
    drop((open, handles));
    stage::stands(2).await;
}

async fn joins(handles: Handles, other: u8, mut gate: watch::Receiver<bool>) {
    let _ = gate.wait_for(|open| *open).await;
    let Some(other) = handles.lock().await.remove(&other) else { return };
    stage::guilty("joins");
    let _ = other.await;
}

async fn full_channels_in_a_ring() {
    let meet = Arc::new(Barrier::new(3));
    let mut channels: Vec<_> = (0..3).map(|_| channel(1)).collect();
    let senders: Vec<_> = channels.iter().map(|(sender, _)| sender.clone()).collect();
    for (n, (_, inbox)) in channels.drain(..).enumerate() {
        tokio::spawn(passes_on(inbox, senders[(n + 1) % 3].clone(), meet.clone()));
    }
    drop((channels, senders, meet));
    stage::stands(3).await;
}

async fn passes_on(mut inbox: Receiver<u64>, next: Sender<u64>, meet: Arc<Barrier>) {
    let _ = next.send(1).await;
    meet.wait().await;
    stage::guilty("passes_on");
    let _ = next.send(2).await;
    let _ = inbox.recv().await;
}
