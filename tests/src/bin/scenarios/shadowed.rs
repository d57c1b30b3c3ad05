//! Guards and handles in variables of the same name as the one that they were made from: `let lock = lock.lock().await`.

use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Barrier, Mutex, OwnedMutexGuard, RwLock, Semaphore};
use tokio::time::sleep;

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(shadowed_guards: "deadlock"),
    faulty!(shadowed_guards_in_patterns: "deadlock"),
    faulty!(shadowed_guards_in_loops: "deadlock"),
    faulty!(shadowed_guards_in_blocks: "deadlock"),
    faulty!(shadowed_guards_in_closures: "deadlock"),
    faulty!(shadowed_guards_in_branches: "deadlock"),
    faulty!(guards_shadowed_twice: "deadlock"),
    faulty!(shadowed_readers_and_writers: "deadlock"),
    faulty!(shadowed_permits: "deadlock"),
    faulty!(shadowed_senders: "leaked_tasks"),
    healthy!(shadowed_guards_dropped),
    healthy!(shadowed_guards_of_an_inner_block),
    healthy!(shadowed_guards_dropped_under_a_condition),
    healthy!(shadowed_guards_moved_into_tasks),
    healthy!(shadowed_guards_until_a_timer),
    healthy!(shadowed_senders_in_use),
];

type Lock = Arc<Mutex<u64>>;

/// Two locks, and the barrier of the two tasks that hold one each.
fn two_locks() -> (Lock, Lock, Arc<Barrier>) {
    (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)), Arc::new(Barrier::new(2)))
}

async fn shadowed_guards() {
    let (one, two, meet) = two_locks();
    tokio::spawn(shadows(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(shadows(two, one, meet));
    harness::ready(2).await;
}

async fn shadows(from: Lock, to: Lock, meet: Arc<Barrier>) {
    let mut from = from.lock().await;
    meet.wait().await;
    harness::affected("shadows");
    let mut to = to.lock().await;
    *from -= 1;
    *to += 1;
}

async fn shadowed_guards_in_patterns() {
    let (one, two, meet) = two_locks();
    tokio::spawn(shadows_in_pattern(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(shadows_in_pattern(two, one, meet));
    harness::ready(2).await;
}

async fn shadows_in_pattern(from: Lock, to: Lock, meet: Arc<Barrier>) {
    let (mut from, meet) = (from.lock_owned().await, meet);
    meet.wait().await;
    harness::affected("shadows_in_pattern");
    let mut to = to.lock().await;
    *from -= 1;
    *to += 1;
}

async fn shadowed_guards_in_loops() {
    let (one, two, meet) = two_locks();
    tokio::spawn(shadows_in_loop(vec![one.clone()], two.clone(), meet.clone()));
    tokio::spawn(shadows_in_loop(vec![two], one, meet));
    harness::ready(2).await;
}

async fn shadows_in_loop(from: Vec<Lock>, to: Lock, meet: Arc<Barrier>) {
    for from in from {
        let mut from = from.lock().await;
        meet.wait().await;
        harness::affected("shadows_in_loop");
        let mut to = to.lock().await;
        *from -= 1;
        *to += 1;
    }
}

async fn shadowed_guards_in_blocks() {
    let (one, two, meet) = two_locks();
    for (from, to) in [(one.clone(), two.clone()), (two, one)] {
        let meet = meet.clone();
        tokio::spawn(async move {
            let mut from = from.lock().await;
            meet.wait().await;
            harness::affected("shadowed_guards_in_blocks");
            let mut to = to.lock().await;
            *from -= 1;
            *to += 1;
        });
    }
    harness::ready(2).await;
}

async fn shadowed_guards_in_closures() {
    let (one, two, meet) = two_locks();
    let shadows = async |from: Lock, to: Lock, meet: Arc<Barrier>| {
        let mut from = from.lock().await;
        meet.wait().await;
        harness::affected("shadowed_guards_in_closures");
        let mut to = to.lock().await;
        *from -= 1;
        *to += 1;
    };
    tokio::spawn(shadows(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(shadows(two, one, meet));
    harness::ready(2).await;
}

async fn shadowed_guards_in_branches() {
    let (one, two, meet) = two_locks();
    tokio::spawn(shadows_in_if(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(shadows_in_match(two, one, meet));
    harness::ready(2).await;
}

async fn shadows_in_if(from: Lock, to: Lock, meet: Arc<Barrier>) {
    if let Ok(mut from) = from.try_lock() {
        meet.wait().await;
        harness::affected("shadows_in_if");
        let mut to = to.lock().await;
        *from -= 1;
        *to += 1;
    }
}

async fn shadows_in_match(from: Lock, to: Lock, meet: Arc<Barrier>) {
    match from.lock().await {
        mut from if *from > 0 => {
            meet.wait().await;
            harness::affected("shadows_in_match");
            let mut to = to.lock().await;
            *from -= 1;
            *to += 1;
        }
        _ => {}
    }
}

async fn guards_shadowed_twice() {
    let (one, two, meet) = two_locks();
    tokio::spawn(shadows_twice(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(shadows_twice(two, one, meet));
    harness::ready(2).await;
}

async fn shadows_twice(from: Lock, to: Lock, meet: Arc<Barrier>) {
    let from = from.clone();
    let from = from.lock_owned().await;
    let mut from = Some(from);
    meet.wait().await;
    harness::affected("shadows_twice");
    let mut to = to.lock().await;
    if let Some(from) = &mut from {
        **from -= 1;
    }
    *to += 1;
}

async fn shadowed_readers_and_writers() {
    let (one, two) = (Arc::new(RwLock::new(1)), Arc::new(RwLock::new(2)));
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(shadows_reader(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(shadows_writer(two, one, meet));
    harness::ready(2).await;
}

async fn shadows_reader(from: Arc<RwLock<u64>>, to: Arc<RwLock<u64>>, meet: Arc<Barrier>) {
    let from = from.read().await;
    meet.wait().await;
    harness::affected("shadows_reader");
    let mut to = to.write().await;
    *to += *from;
}

async fn shadows_writer(from: Arc<RwLock<u64>>, to: Arc<RwLock<u64>>, meet: Arc<Barrier>) {
    let mut from = from.write().await;
    meet.wait().await;
    harness::affected("shadows_writer");
    let mut to = to.write().await;
    *from -= 1;
    *to += 1;
}

async fn shadowed_permits() {
    let (one, two) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(shadows_permit(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(shadows_permit(two, one, meet));
    harness::ready(2).await;
}

async fn shadows_permit(from: Arc<Semaphore>, to: Arc<Semaphore>, meet: Arc<Barrier>) {
    let from = from.acquire().await;
    meet.wait().await;
    harness::affected("shadows_permit");
    let to = to.acquire().await;
    drop((from, to));
}

/// Each holds the only sender of the other's channel, and waits for a message.
async fn shadowed_senders() {
    let ((to_one, of_one), (to_two, of_two)) = (channel(1), channel(1));
    tokio::spawn(shadows_sender(of_one, to_two));
    tokio::spawn(shadows_sender(of_two, to_one));
    harness::ready(2).await;
}

async fn shadows_sender(mut messages: Receiver<u8>, other: Sender<u8>) {
    let other = other.clone();
    tokio::task::yield_now().await;
    harness::affected("shadows_sender");
    while let Some(message) = messages.recv().await {
        let _ = other.send(message).await;
    }
}

/// Holds both locks, while two tasks that once held one each wait for the other one.
async fn holds_both(one: Lock, two: Lock, meet: Arc<Barrier>) {
    meet.wait().await;
    let one = one.lock().await;
    let two = two.lock().await;
    meet.wait().await;
    harness::waits();
    sleep(DAY).await;
    drop((one, two));
}

async fn shadowed_guards_dropped() {
    let (one, two, _) = two_locks();
    let meet = Arc::new(Barrier::new(3));
    tokio::spawn(holds_both(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(drops(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(drops(two, one, meet));
    harness::ready(3).await;
}

async fn drops(from: Lock, to: Lock, meet: Arc<Barrier>) {
    let mut from = from.lock().await;
    *from += 1;
    tokio::task::yield_now().await;
    drop(from);
    meet.wait().await;
    meet.wait().await;
    harness::waits();
    *to.lock().await += 1;
}

async fn shadowed_guards_of_an_inner_block() {
    let (one, two, _) = two_locks();
    let meet = Arc::new(Barrier::new(3));
    tokio::spawn(holds_both(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(drops_at_the_end_of_a_block(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(drops_at_the_end_of_a_block(two, one, meet));
    harness::ready(3).await;
}

async fn drops_at_the_end_of_a_block(from: Lock, to: Lock, meet: Arc<Barrier>) {
    {
        let mut from = from.lock().await;
        *from += 1;
        tokio::task::yield_now().await;
        *from += 1;
    }
    meet.wait().await;
    meet.wait().await;
    harness::waits();
    *to.lock().await += *from.lock().await;
}

async fn shadowed_guards_dropped_under_a_condition() {
    let (one, two, _) = two_locks();
    let meet = Arc::new(Barrier::new(3));
    tokio::spawn(holds_both(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(drops_if(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(drops_if(two, one, meet));
    harness::ready(3).await;
}

async fn drops_if(from: Lock, to: Lock, meet: Arc<Barrier>) {
    let from = from.clone();
    let mut from = from.lock().await;
    *from += 1;
    tokio::task::yield_now().await;
    if *from > 0 {
        drop(from);
    }
    meet.wait().await;
    meet.wait().await;
    harness::waits();
    *to.lock().await += 1;
}

async fn shadowed_guards_moved_into_tasks() {
    let (one, two, meet) = two_locks();
    tokio::spawn(lets_a_task_hold(one.clone(), two.clone(), meet.clone()));
    tokio::spawn(lets_a_task_hold(two, one, meet));
    harness::ready(4).await;
}

async fn lets_a_task_hold(from: Lock, to: Lock, meet: Arc<Barrier>) {
    let mut from = from.lock_owned().await;
    *from += 1;
    meet.wait().await;
    tokio::spawn(holds(from));
    meet.wait().await;
    harness::waits();
    *to.lock().await += 1;
}

async fn holds(guard: OwnedMutexGuard<u64>) {
    let guard = Some(guard);
    harness::waits();
    sleep(DAY).await;
    drop(guard);
}

async fn shadowed_guards_until_a_timer() {
    let (one, two, meet) = two_locks();
    tokio::spawn(holds_until_a_timer(one.clone(), meet.clone()));
    meet.wait().await;
    tokio::spawn(holds_and_waits(two.clone(), one, meet.clone()));
    meet.wait().await;
    tokio::spawn(async move {
        harness::waits();
        *two.lock().await += 1;
    });
    harness::ready(3).await;
}

async fn holds_until_a_timer(lock: Lock, meet: Arc<Barrier>) {
    let lock = lock.lock().await;
    meet.wait().await;
    harness::waits();
    sleep(DAY).await;
    drop(lock);
}

async fn holds_and_waits(from: Lock, to: Lock, meet: Arc<Barrier>) {
    let mut from = from.lock().await;
    meet.wait().await;
    harness::waits();
    *from += *to.lock().await;
}

/// Of two tasks that hold each other's senders, one waits for a timer.
async fn shadowed_senders_in_use() {
    let ((to_one, of_one), (to_two, of_two)) = (channel(1), channel(1));
    tokio::spawn(waits_for_a_message(of_one, to_two));
    tokio::spawn(sends_later(of_two, to_one));
    harness::ready(2).await;
}

async fn waits_for_a_message(mut messages: Receiver<u8>, other: Sender<u8>) {
    let other = other.clone();
    tokio::task::yield_now().await;
    harness::waits();
    while let Some(message) = messages.recv().await {
        let _ = other.send(message).await;
    }
}

async fn sends_later(mut messages: Receiver<u8>, other: Sender<u8>) {
    let other = other.clone();
    tokio::task::yield_now().await;
    harness::waits();
    sleep(DAY).await;
    let _ = other.send(1).await;
    messages.recv().await;
}
