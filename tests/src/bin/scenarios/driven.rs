//! Futures that threads drive by `block_on`, which no list of tasks has: in circles with tasks, and healthy ones.

use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::harness::{self, Case, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(thread_joins_a_task_that_waits_for_its_lock: "deadlock", says "`guard`", "driven::joins_with_a_lock at"),
    faulty!(function_of_a_thread_that_is_named_poll: "deadlock", says "`guard`", "driven::joins_with_a_lock at"),
    faulty!(local_set_that_a_thread_drives: "deadlock", says "`guard`", "driven::joins_with_a_lock at"),
    faulty!(local_set_in_a_future: "deadlock", says "`guard`", "driven::joins_with_a_lock at"),
    faulty!(thread_crosses_its_locks_with_a_task: "deadlock", says "`first`", "driven::crosses at"),
    faulty!(thread_asks_a_task_that_asks_it: "leaked_tasks" | "deadlock", says "driven::asks at"),
    faulty!(own main_has_a_stale_copy_of_its_sender: "deadlock", says "the main future", "driven::waits_for_a_blocked_task at"),
    faulty!(thread_has_a_stale_copy_of_its_sender: "deadlock", says "driven::waits_for_a_blocked_task at"),
    healthy!(thread_waits_for_answers_of_a_task),
    healthy!(sender_around_a_future_with_a_timer),
    healthy!(local_set_whose_tasks_pass_on_a_lock),
];

/// Waits for a task that waits for the lock it holds.
async fn joins_with_a_lock() {
    let lock = Arc::new(Mutex::new(0));
    let guard = lock.lock().await;
    let theirs = Arc::clone(&lock);
    let task = tokio::spawn(async move {
        harness::waits();
        *theirs.lock().await += 1;
    });
    harness::waits();
    let _never = task.await;
    drop(guard);
}

async fn thread_joins_a_task_that_waits_for_its_lock() {
    let handle = Handle::current();
    thread::spawn(move || handle.block_on(joins_with_a_lock()));
    harness::ready(2).await;
}

struct Connection {
    handle: Handle,
}

impl Connection {
    /// Polls no future, whatever its name.
    fn poll(&mut self) {
        self.handle.block_on(joins_with_a_lock());
    }
}

fn poll_connection(mut connection: Connection) {
    connection.poll();
}

async fn function_of_a_thread_that_is_named_poll() {
    let connection = Connection { handle: Handle::current() };
    thread::spawn(move || poll_connection(connection));
    harness::ready(2).await;
}

async fn local_set_that_a_thread_drives() {
    thread::spawn(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, joins_with_a_lock());
    });
    harness::ready(2).await;
}

async fn local_set_in_a_future() {
    thread::spawn(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { LocalSet::new().run_until(joins_with_a_lock()).await });
    });
    harness::ready(2).await;
}

/// Locks `first`, and then `second`, when the other has locked it.
async fn crosses(
    first: Arc<Mutex<u64>>,
    second: Arc<Mutex<u64>>,
    has_locked: oneshot::Sender<()>,
    other_has: oneshot::Receiver<()>,
) {
    let mut first = first.lock().await;
    let _sent = has_locked.send(());
    let _received = other_has.await;
    harness::waits();
    let mut second = second.lock().await;
    *first += 1;
    *second += 1;
}

async fn thread_crosses_its_locks_with_a_task() {
    let (debit, credit) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let (one, other) = (oneshot::channel(), oneshot::channel());
    let handle = Handle::current();
    let of_thread = crosses(Arc::clone(&debit), Arc::clone(&credit), one.0, other.1);
    thread::spawn(move || handle.block_on(of_thread));
    tokio::spawn(crosses(credit, debit, other.0, one.1));
    harness::ready(2).await;
}

/// Answers requests as long as there are any.
async fn answers(mut requests: mpsc::Receiver<u64>, answers: mpsc::Sender<u64>) {
    harness::waits();
    while let Some(number) = requests.recv().await {
        let _sent = answers.send(number).await;
    }
}

/// Waits for all answers, but keeps the sender of the requests.
async fn asks() {
    let (requests, received) = mpsc::channel(4);
    let (answered, mut results) = mpsc::channel(4);
    tokio::spawn(answers(received, answered));
    let _sent = requests.send(1).await;
    let _first = results.recv().await;
    harness::waits();
    while let Some(number) = results.recv().await {
        println!("{number}");
    }
    drop(requests);
}

async fn thread_asks_a_task_that_asks_it() {
    let handle = Handle::current();
    thread::spawn(move || handle.block_on(asks()));
    harness::ready(2).await;
}

/// Waits for a task that blocks its thread until `sender` is gone, which this future keeps.
async fn waits_for_a_blocked_task(sender: std_mpsc::Sender<()>, blocked: std_mpsc::Receiver<()>) {
    let task = tokio::spawn(async move {
        harness::waits();
        let _never = blocked.recv();
    });
    harness::waits();
    let _end = task.await;
    drop(sender);
}

/// The words of a handle, as a function that has moved it away leaves them on its stack.
fn words_of(sender: &std_mpsc::Sender<()>) -> [usize; 2] {
    const { assert!(size_of::<std_mpsc::Sender<()>>() == size_of::<[usize; 2]>()) };
    // SAFETY: a sender is a tag and a pointer, both of which are numbers here, and neither is used.
    unsafe { std::mem::transmute_copy(sender) }
}

/// Calls `drive` with both ends of a channel, and with a copy of the sender's words on the stack around it.
fn with_a_stale_copy(drive: impl FnOnce(std_mpsc::Sender<()>, std_mpsc::Receiver<()>)) {
    let (sender, blocked) = std_mpsc::channel();
    let stale = std::hint::black_box(words_of(&sender));
    drive(sender, blocked);
    std::hint::black_box(&stale);
}

fn main_has_a_stale_copy_of_its_sender() {
    #[delouse::main(worker_threads = 2)]
    async fn drive(sender: std_mpsc::Sender<()>, blocked: std_mpsc::Receiver<()>) {
        harness::ready_on_a_thread(2);
        waits_for_a_blocked_task(sender, blocked).await;
    }
    with_a_stale_copy(drive);
}

async fn thread_has_a_stale_copy_of_its_sender() {
    let handle = Handle::current();
    thread::spawn(move || {
        with_a_stale_copy(|sender, blocked| handle.block_on(waits_for_a_blocked_task(sender, blocked)));
    });
    harness::ready(2).await;
}

/// A thread keeps the sender around the future that it runs, which a timer ends.
async fn sender_around_a_future_with_a_timer() {
    let (sender, received) = std_mpsc::channel::<()>();
    let handle = Handle::current();
    thread::spawn(move || {
        handle.block_on(async {
            harness::waits();
            sleep(harness::DAY).await;
        });
        drop(sender);
    });
    let call = tokio::task::spawn_blocking(move || {
        harness::waits();
        received.recv()
    });
    tokio::spawn(async move {
        harness::waits();
        let _end = call.await;
    });
    harness::ready(3).await;
}

async fn thread_waits_for_answers_of_a_task() {
    let (sender, mut results) = mpsc::channel(1);
    let handle = Handle::current();
    thread::spawn(move || {
        handle.block_on(async move {
            harness::waits();
            while results.recv().await.is_some() {}
        });
    });
    tokio::spawn(async move {
        harness::waits();
        while sender.send(1).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    harness::ready(2).await;
}

async fn local_set_whose_tasks_pass_on_a_lock() {
    thread::spawn(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let lock = Arc::new(Mutex::new(0));
            let theirs = Arc::clone(&lock);
            tokio::task::spawn_local(async move {
                harness::waits();
                loop {
                    *theirs.lock().await += 1;
                    sleep(Duration::from_millis(5)).await;
                }
            });
            harness::waits();
            loop {
                *lock.lock().await += 1;
                sleep(Duration::from_millis(7)).await;
            }
        });
    });
    harness::ready(2).await;
}
