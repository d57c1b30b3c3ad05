//! What a thread has around a call that blocks it until a future is done, or in a value behind an `Arc`: after public reports,
//! and healthy programs of the same shape.

use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use dashmap::DashMap;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::sleep;

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(subscriber_that_asks_the_thread_that_sends_to_it: "deadlock"),
    faulty!(drop_that_locks_what_its_function_holds: "deadlock" | "blocked_worker", says "mutex-1"),
    faulty!(map_that_is_read_in_its_own_loop: "deadlock" | "blocked_worker"),
    faulty!(sum_of_a_thread_whose_sender_is_still_here: "deadlock"),
    faulty!(thread_that_locks_what_its_joiner_holds_in_a_variable: "deadlock" | "blocked_worker"),
    faulty!(handler_that_waits_for_itself_with_the_lock: "deadlock", says "end of a connection"),
    healthy!(subscriber_of_a_thread_that_serves),
    healthy!(drop_that_locks_what_is_free),
    healthy!(map_that_is_read_after_its_loop),
    healthy!(sum_of_a_thread_that_gets_all_parts),
    healthy!(thread_that_locks_what_is_free),
    healthy!(handler_that_waits_with_the_lock_for_a_task),
];

enum Command {
    Get(oneshot::Sender<u64>),
    Put(u64),
}

/// n0-computer/iroh-docs#81: a thread sends events with `blocking_send`, and the subscriber asks it before it takes the next.
fn serves(mut commands: mpsc::Receiver<Command>, events: mpsc::Sender<u64>) {
    while let Some(command) = commands.blocking_recv() {
        match command {
            Command::Get(reply) => drop(reply.send(1)),
            Command::Put(number) => {
                for part in 0..8 {
                    let _ = events.blocking_send(number + part);
                }
            }
        }
    }
}

async fn subscribes(mut events: mpsc::Receiver<u64>, commands: mpsc::Sender<Command>) {
    while events.recv().await.is_some() {
        let (reply, answer) = oneshot::channel();
        let _ = commands.send(Command::Get(reply)).await;
        harness::affected("subscribes");
        let _ = answer.await;
    }
}

async fn subscriber_that_asks_the_thread_that_sends_to_it() {
    let (commands, received) = mpsc::channel(4);
    let (events, event) = mpsc::channel(2);
    thread::spawn(move || serves(received, events));
    let _ = commands.send(Command::Put(1)).await;
    tokio::spawn(subscribes(event, commands));
    harness::ready(1).await;
}

/// The same with events that the subscriber takes first.
async fn takes_all(mut events: mpsc::Receiver<u64>, commands: mpsc::Sender<Command>) {
    loop {
        let _ = commands.send(Command::Put(1)).await;
        for _ in 0..8 {
            let _ = events.recv().await;
        }
        let (reply, answer) = oneshot::channel();
        let _ = commands.send(Command::Get(reply)).await;
        let _ = answer.await;
        harness::waits();
        sleep(Duration::from_millis(300)).await;
    }
}

async fn subscriber_of_a_thread_that_serves() {
    let (commands, received) = mpsc::channel(4);
    let (events, event) = mpsc::channel(2);
    thread::spawn(move || serves(received, events));
    tokio::spawn(takes_all(event, commands));
    harness::ready(1).await;
}

/// Writes its last entry when it is dropped.
struct Session {
    log: Arc<Mutex<Vec<u64>>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        block_in_place(|| {
            let runtime = Handle::current();
            harness::affected("drop");
            runtime.block_on(async { self.log.lock().await.push(0) });
        });
    }
}

async fn handles(log: Arc<Mutex<Vec<u64>>>) {
    let entries = log.clone().lock_owned().await;
    let session = Session { log };
    sleep(Duration::from_millis(5)).await;
    drop(session);
    drop(entries);
}

/// djc/bb8#19: a destructor waits for the lock that the function around it holds.
async fn drop_that_locks_what_its_function_holds() {
    tokio::spawn(handles(Arc::default()));
    harness::ready(1).await;
}

async fn handles_in_order(log: Arc<Mutex<Vec<u64>>>) {
    loop {
        let entries = log.clone().lock_owned().await;
        let session = Session { log: log.clone() };
        drop(entries);
        sleep(Duration::from_millis(50)).await;
        drop(session);
    }
}

async fn drop_that_locks_what_is_free() {
    tokio::spawn(handles_in_order(Arc::default()));
    harness::ready(1).await;
}

async fn looks_up(scores: &DashMap<u64, u64>, key: u64) -> u64 {
    sleep(Duration::from_millis(5)).await;
    harness::affected("looks_up");
    scores.get(&key).map_or(0, |score| *score)
}

async fn refreshes(scores: DashMap<u64, u64>) {
    for mut entry in scores.iter_mut() {
        let key = *entry.key();
        *entry.value_mut() = looks_up(&scores, key).await;
    }
}

/// xacrimon/dashmap#79: the iterator has the lock of the shard that the loop's body asks for.
async fn map_that_is_read_in_its_own_loop() {
    tokio::spawn(refreshes((0..4).map(|key| (key, key)).collect()));
    harness::ready(1).await;
}

async fn refreshes_in_turn(scores: DashMap<u64, u64>) {
    loop {
        let keys: Vec<u64> = scores.iter().map(|entry| *entry.key()).collect();
        for key in keys {
            sleep(Duration::from_millis(50)).await;
            let score = scores.get(&key).map_or(0, |score| *score);
            scores.insert(key, score + 1);
        }
        harness::waits();
    }
}

async fn map_that_is_read_after_its_loop() {
    tokio::spawn(refreshes_in_turn((0..4).map(|key| (key, key)).collect()));
    harness::ready(1).await;
}

fn sums(parts: u64) -> u64 {
    let (sender, receiver) = std_mpsc::channel::<u64>();
    thread::scope(|scope| {
        let sum = scope.spawn(move || receiver.iter().sum::<u64>());
        for part in 0..parts {
            let sender = sender.clone();
            scope.spawn(move || sender.send(part));
        }
        harness::affected("sums");
        sum.join().unwrap_or_default()
    })
}

/// The sender of the scope itself is never dropped, so that the sum never ends.
async fn sum_of_a_thread_whose_sender_is_still_here() {
    spawn_blocking(|| sums(2));
    harness::ready(1).await;
}

async fn sum_of_a_thread_that_gets_all_parts() {
    let (sender, receiver) = std_mpsc::channel::<u64>();
    spawn_blocking(move || {
        thread::scope(|scope| {
            let sum = scope.spawn(move || receiver.iter().sum::<u64>());
            harness::waits();
            sum.join().unwrap_or_default()
        })
    });
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(100)).await;
            let _ = sender.send(1);
        }
    });
    harness::ready(1).await;
    sleep(DAY).await;
}

/// Counts itself out on a thread when it is dropped.
struct Registered {
    count: Arc<Mutex<u64>>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let count = Arc::clone(&self.count);
        let counts = thread::spawn(move || *count.blocking_lock() += 1);
        harness::affected("drop");
        let _ = counts.join();
    }
}

async fn leaves(count: Arc<Mutex<u64>>) {
    let registered = Registered { count: Arc::clone(&count) };
    sleep(Duration::from_millis(5)).await;
    let mut guard = count.lock().await;
    *guard += 1;
    drop(registered);
}

/// The guard is a variable on the stack of the thread, not of the suspended task.
async fn thread_that_locks_what_its_joiner_holds_in_a_variable() {
    tokio::spawn(leaves(Arc::default()));
    harness::ready(1).await;
}

async fn thread_that_locks_what_is_free() {
    let count = Arc::new(Mutex::new(0));
    tokio::spawn(async move {
        loop {
            let registered = Registered { count: Arc::clone(&count) };
            *count.lock().await += 1;
            sleep(Duration::from_millis(50)).await;
            drop(registered);
        }
    });
    harness::ready(1).await;
}

type Total = State<Arc<Mutex<u64>>>;

async fn total(State(total): Total) -> String {
    harness::affected("total");
    total.lock().await.to_string()
}

/// Its own sender would have to send.
async fn waits_for_itself(State(total): Total) -> String {
    let guard = total.lock().await;
    let (sender, receiver) = oneshot::channel::<u64>();
    harness::affected("waits_for_itself");
    let number = receiver.await.unwrap_or_default();
    drop(sender);
    (number + *guard).to_string()
}

async fn waits_for_a_task(State(total): Total) -> String {
    let guard = total.lock().await;
    let (sender, receiver) = oneshot::channel::<u64>();
    tokio::spawn(async move {
        sleep(Duration::from_millis(200)).await;
        sender.send(1)
    });
    let number = receiver.await.unwrap_or_default();
    (number + *guard).to_string()
}

/// Requests `/first`, then `/second`, whose connections stay open.
async fn answers(router: Router, again: bool) {
    use std::io::{Read, Write};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    thread::spawn(move || {
        let connect = || std::net::TcpStream::connect(address).expect("a connection");
        let (mut one, mut other) = (connect(), connect());
        loop {
            one.write_all(b"GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is open");
            thread::sleep(Duration::from_millis(100));
            other.write_all(b"GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is open");
            let _ = one.read(&mut [0; 1024]);
            if again {
                let _ = other.read(&mut [0; 1024]);
            }
        }
    });
}

async fn handler_that_waits_for_itself_with_the_lock() {
    let router = Router::new().route("/first", get(waits_for_itself)).route("/second", get(total));
    answers(router.with_state(Arc::default()), false).await;
    harness::ready(2).await;
}

async fn handler_that_waits_with_the_lock_for_a_task() {
    let router = Router::new().route("/first", get(waits_for_a_task)).route("/second", get(total));
    answers(router.with_state(Arc::default()), true).await;
    harness::ready(1).await;
}
