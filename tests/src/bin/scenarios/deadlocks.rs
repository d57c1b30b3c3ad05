//! Tasks that wait for one another in a circle.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Barrier, Mutex, RwLock, Semaphore, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(two_mutexes: "deadlock"),
    faulty!(spawned_by_a_thread_that_has_ended: "deadlock"),
    faulty!(spawned_by_a_thread_that_lives: "deadlock"),
    faulty!(locks_with_a_timeout: "deadlock"),
    faulty!(five_mutexes: "deadlock"),
    faulty!(mutex_of_one_task: "deadlock"),
    faulty!(reader_behind_a_writer: "deadlock"),
    faulty!(one_permit_more: "deadlock"),
    faulty!(joins_of_each_other: "deadlock"),
    faulty!(full_channels_in_a_ring: "deadlock"),
    faulty!(branches_of_main_and_of_a_task: "deadlock"),
    faulty!(branches_of_join_all: "deadlock"),
    faulty!(end_of_a_task_that_beats_on: "deadlock"),
    healthy!(tasks_that_a_thread_may_abort),
    healthy!(spawned_by_a_thread_and_in_order),
    healthy!(locks_until_a_thread_answers),
    healthy!(thread_between_two_tasks),
    healthy!(branches_until_a_timeout),
    healthy!(branch_that_hears_from_another),
];

async fn two_mutexes() {
    let (one, two) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(transfer(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(transfer(two, one, meet));
    harness::ready(2).await;
}

async fn transfer(from: Arc<Mutex<i32>>, to: Arc<Mutex<i32>>, meet: Arc<Barrier>) {
    let mut debit = from.lock().await;
    meet.wait().await;
    harness::affected("transfer");
    let mut credit = to.lock().await;
    *debit -= 1;
    *credit += 1;
}

async fn spawned_by_a_thread_that_has_ended() {
    let runtime = Handle::current();
    let spawner = thread::spawn(move || drop(two_transfers(&runtime)));
    spawner.join().unwrap();
    harness::ready(2).await;
}

async fn spawned_by_a_thread_that_lives() {
    let runtime = Handle::current();
    thread::spawn(move || {
        drop(two_transfers(&runtime));
        thread::sleep(DAY);
        drop(runtime);
    });
    harness::ready(2).await;
}

/// Whether the thread will ever do so is not known.
async fn tasks_that_a_thread_may_abort() {
    let runtime = Handle::current();
    thread::spawn(move || {
        let tasks = two_transfers(&runtime).map(|task| task.abort_handle());
        thread::sleep(DAY);
        tasks.iter().for_each(AbortHandle::abort);
    });
    harness::ready(2).await;
}

/// Nothing is wrong with them but that one takes long.
async fn spawned_by_a_thread_and_in_order() {
    let runtime = Handle::current();
    thread::spawn(move || {
        let (one, two) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
        for _ in 0..3 {
            runtime.spawn(takes_both(one.clone(), two.clone()));
        }
        thread::sleep(DAY);
        drop((one, two));
    });
    harness::ready(3).await;
}

async fn takes_both(one: Arc<Mutex<i32>>, two: Arc<Mutex<i32>>) {
    harness::waits();
    let first = one.lock().await;
    let second = two.lock().await;
    tokio::time::sleep(DAY).await;
    println!("{first} {second}");
}

/// A task holds a lock until a thread sends to it.
async fn locks_until_a_thread_answers() {
    let lock = Arc::new(Mutex::new(1));
    let (sender, answer) = oneshot::channel();
    thread::spawn(move || {
        thread::sleep(DAY);
        let _ = sender.send(2);
    });
    let asked = lock.clone();
    tokio::spawn(async move {
        let mut value = asked.lock().await;
        harness::waits();
        *value = answer.await.unwrap_or(0);
    });
    tokio::spawn(async move {
        harness::waits();
        println!("{}", lock.lock().await);
    });
    harness::ready(2).await;
}

/// A thread takes from one task and gives to another, and the first one is only slow.
async fn thread_between_two_tasks() {
    let (requests, jobs) = std::sync::mpsc::channel::<u32>();
    let (replies, mut results) = channel(4);
    thread::spawn(move || {
        while let Ok(job) = jobs.recv() {
            let _ = replies.blocking_send(job + 1);
        }
    });
    tokio::spawn(async move {
        loop {
            let _ = requests.send(1);
            harness::waits();
            tokio::time::sleep(DAY).await;
        }
    });
    tokio::spawn(async move {
        let _first = results.recv().await;
        harness::waits();
        while let Some(result) = results.recv().await {
            println!("{result}");
        }
    });
    harness::ready(2).await;
}

fn two_transfers(runtime: &Handle) -> [JoinHandle<()>; 2] {
    let (one, two) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let meet = Arc::new(Barrier::new(2));
    [runtime.spawn(transfer(one.clone(), two.clone(), meet.clone())), runtime.spawn(transfer(two, one, meet))]
}

/// Only the timeouts will end it.
async fn locks_with_a_timeout() {
    let (one, two) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(gives_up(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(gives_up(two, one, meet));
    harness::ready(2).await;
}

async fn gives_up(one: Arc<Mutex<i32>>, two: Arc<Mutex<i32>>, meet: Arc<Barrier>) {
    let mut first = one.lock().await;
    meet.wait().await;
    harness::affected("gives_up");
    if let Ok(second) = tokio::time::timeout(DAY, two.lock()).await {
        *first += *second;
    }
}

async fn five_mutexes() {
    let forks: Vec<_> = (0..5).map(|n| Arc::new(Mutex::new(n))).collect();
    let meet = Arc::new(Barrier::new(5));
    for n in 0..5 {
        tokio::spawn(philosopher(forks[n].clone(), forks[(n + 1) % 5].clone(), meet.clone()));
    }
    drop(forks);
    harness::ready(5).await;
}

async fn philosopher(left: Arc<Mutex<usize>>, right: Arc<Mutex<usize>>, meet: Arc<Barrier>) {
    let mut left = left.lock_owned().await;
    meet.wait().await;
    harness::affected("philosopher");
    let right = right.lock_owned().await;
    *left += *right;
}

async fn mutex_of_one_task() {
    tokio::spawn(locks_twice(Arc::new(Mutex::new(0))));
    harness::ready(1).await;
}

async fn locks_twice(lock: Arc<Mutex<i32>>) {
    let mut first = lock.lock().await;
    harness::affected("locks_twice");
    let second = lock.lock().await;
    *first += *second;
}

async fn reader_behind_a_writer() {
    let lock = Arc::new(RwLock::new(0));
    let (start, started) = oneshot::channel();
    tokio::spawn(reads_twice(lock.clone(), start));
    tokio::spawn(writes(lock, started));
    harness::ready(2).await;
}

async fn reads_twice(lock: Arc<RwLock<i32>>, reading: oneshot::Sender<()>) {
    let first = lock.read().await;
    let _ = reading.send(());
    // A writer in the queue shuts out new readers: tokio's lock is fair.
    while lock.try_read().is_ok() {
        tokio::task::yield_now().await;
    }
    harness::affected("reads_twice");
    let second = lock.read().await;
    println!("{}", *first + *second);
}

async fn writes(lock: Arc<RwLock<i32>>, reading: oneshot::Receiver<()>) {
    let _ = reading.await;
    harness::affected("writes");
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
    harness::ready(2).await;
}

async fn upgrades(permits: Arc<Semaphore>, meet: Arc<Barrier>) {
    let first = permits.acquire().await;
    meet.wait().await;
    harness::affected("upgrades");
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
    harness::ready(2).await;
}

async fn joins(handles: Handles, other: u8, mut gate: watch::Receiver<bool>) {
    let _ = gate.wait_for(|open| *open).await;
    let Some(other) = handles.lock().await.remove(&other) else { return };
    harness::affected("joins");
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
    harness::ready(3).await;
}

async fn passes_on(mut inbox: Receiver<u64>, next: Sender<u64>, meet: Arc<Barrier>) {
    let _ = next.send(1).await;
    meet.wait().await;
    harness::affected("passes_on");
    let _ = next.send(2).await;
    let _ = inbox.recv().await;
}

/// As in services: all loops of `main` in one `join!`, some of which keep ticking.
async fn branches_of_main_and_of_a_task() {
    let (one, two) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let meet = Arc::new(Barrier::new(2));
    let transfers = transfer(two.clone(), one.clone(), meet.clone());
    tokio::spawn(async {
        tokio::join!(ticks(), transfers);
    });
    tokio::join!(transfer(one, two, meet), harness::ready(2));
}

async fn ticks() {
    let mut interval = tokio::time::interval(Duration::from_millis(5));
    loop {
        interval.tick().await;
    }
}

async fn branches_of_join_all() {
    let (one, two) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(transfer(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(async move {
        let all: [BoxFuture<'static, ()>; 2] = [Box::pin(ticks()), Box::pin(transfer(two, one, meet))];
        join_all(all).await;
    });
    harness::ready(2).await;
}

/// A task that holds a lock waits for the end of a task of which one branch waits for that lock.
async fn end_of_a_task_that_beats_on() {
    let lock = Arc::new(Mutex::new(0));
    let (send, receive) = oneshot::channel();
    let (locked, is_locked) = oneshot::channel();
    tokio::spawn(waits_with_a_lock(lock.clone(), receive, locked));
    let worker = tokio::spawn(async move {
        let _ = is_locked.await;
        tokio::join!(adds(lock), ticks());
    });
    let _ = send.send(worker);
    harness::ready(2).await;
}

async fn waits_with_a_lock(
    lock: Arc<Mutex<i32>>,
    worker: oneshot::Receiver<JoinHandle<()>>,
    locked: oneshot::Sender<()>,
) {
    let mut value = lock.lock().await;
    let _ = locked.send(());
    let Ok(worker) = worker.await else { return };
    harness::affected("waits_with_a_lock");
    let _ = worker.await;
    *value += 1;
}

async fn adds(lock: Arc<Mutex<i32>>) {
    harness::affected("adds");
    *lock.lock().await += 1;
}

/// The wait for both branches has a timeout.
async fn branches_until_a_timeout() {
    let (one, two) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let meet = Arc::new(Barrier::new(2));
    for (from, to) in [(one.clone(), two.clone()), (two, one)] {
        let meet = meet.clone();
        tokio::spawn(async {
            let both = async {
                tokio::join!(innocent(from, to, meet), ticks());
            };
            let _ = tokio::time::timeout(DAY, both).await;
        });
    }
    drop(meet);
    harness::ready(2).await;
}

async fn innocent(from: Arc<Mutex<i32>>, to: Arc<Mutex<i32>>, meet: Arc<Barrier>) {
    let mut debit = from.lock().await;
    meet.wait().await;
    harness::waits();
    let mut credit = to.lock().await;
    *debit -= 1;
    *credit += 1;
}

/// One branch waits for a lock that another branch holds, and that branch continues to run.
async fn branch_that_hears_from_another() {
    tokio::spawn(async {
        let (sender, mut receiver) = channel::<u8>(1);
        let lock = Mutex::new(0);
        let hears = async {
            let mut sum = lock.lock().await;
            harness::waits();
            *sum += receiver.recv().await.unwrap_or_default();
        };
        let speaks = async {
            tokio::time::sleep(DAY).await;
            let _ = sender.send(1).await;
        };
        let reads = async {
            harness::waits();
            println!("{}", lock.lock().await);
        };
        tokio::join!(hears, speaks, reads);
    });
    harness::ready(2).await;
}
