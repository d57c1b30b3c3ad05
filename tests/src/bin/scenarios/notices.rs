//! Notifications, barriers and pools: the tasks that could end these waits wait themselves, came too early, or have ended.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleResult};
use tokio::sync::{Barrier, Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(two_objects_of_a_pool_for_each: "deadlock", says "`_outer`", "pool"),
    faulty!(two_connections_of_bb8_for_each: "deadlock", says "`first`", "pool", "only a timeout"),
    faulty!(two_slots_of_a_pool_of_the_program: "deadlock" | "leaked_tasks", says "semaphore-1"),
    faulty!(own notified_too_early: "deadlock", says "before this wait began", "notices::accepts at"),
    faulty!(notified_by_a_task_that_waits_then: "deadlock" | "leaked_tasks", says "before this wait began", "notices::worker at"),
    faulty!(own barrier_without_a_member: "deadlock" | "leaked_tasks", says "3 of 4", "notices::phase at"),
    faulty!(barrier_that_is_too_large: "deadlock" | "leaked_tasks", says "2 of 3", "notices::meets at"),
    healthy!(holds_an_object_for_long),
    healthy!(waits_for_a_connection_of_bb8),
    healthy!(will_be_notified_again),
    healthy!(barrier_with_a_late_member),
];

struct Manager;
struct Connection;

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Infallible;
    async fn create(&self) -> Result<Connection, Infallible> {
        Ok(Connection)
    }
    async fn recycle(&self, _: &mut Connection, _: &Metrics) -> RecycleResult<Infallible> {
        Ok(())
    }
}

struct Connector;

impl bb8::ManageConnection for Connector {
    type Connection = Connection;
    type Error = Infallible;

    async fn connect(&self) -> Result<Connection, Infallible> {
        Ok(Connection)
    }

    async fn is_valid(&self, _: &mut Connection) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}

async fn connections(max: u32) -> bb8::Pool<Connector> {
    bb8::Pool::builder().max_size(max).connection_timeout(DAY).build(Connector).await.unwrap()
}

async fn audit(pool: &bb8::Pool<Connector>) {
    harness::affected("audit");
    let _second = pool.get().await.unwrap();
}

async fn transfer(pool: bb8::Pool<Connector>, gate: Arc<Barrier>) {
    let first = pool.get_owned().await.unwrap();
    gate.wait().await;
    audit(&pool).await;
    drop(first);
}

/// The pool's own task, which looks for old connections, lives on.
async fn two_connections_of_bb8_for_each() {
    let pool = connections(2).await;
    let gate = Arc::new(Barrier::new(2));
    tokio::spawn(transfer(pool.clone(), gate.clone()));
    tokio::spawn(transfer(pool.clone(), gate));
    harness::ready(2).await;
}

async fn waits_for_a_connection_of_bb8() {
    let pool = connections(1).await;
    let theirs = pool.clone();
    tokio::spawn(async move {
        let _connection = theirs.get().await.unwrap();
        harness::waits();
        tokio::time::sleep(DAY).await;
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::spawn(async move {
        harness::waits();
        let _connection = pool.get().await.unwrap();
    });
    harness::ready(2).await;
}

type Pool = managed::Pool<Manager>;

fn pool(size: usize) -> Pool {
    Pool::builder(Manager).max_size(size).build().unwrap()
}

async fn lookup(pool: &Pool) {
    harness::affected("lookup");
    let _inner = pool.get().await.unwrap();
}

async fn handler(pool: Pool, gate: Arc<Barrier>) {
    let _outer = pool.get().await.unwrap();
    gate.wait().await;
    lookup(&pool).await;
}

async fn two_objects_of_a_pool_for_each() {
    start_handlers(&pool(2));
    harness::ready(2).await;
}

fn start_handlers(pool: &Pool) {
    let gate = Arc::new(Barrier::new(2));
    tokio::spawn(handler(pool.clone(), gate.clone()));
    tokio::spawn(handler(pool.clone(), gate));
}

async fn holds_an_object_for_long() {
    let pool = pool(1);
    let theirs = pool.clone();
    tokio::spawn(async move {
        let _object = theirs.get().await.unwrap();
        harness::waits();
        tokio::time::sleep(DAY).await;
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::spawn(async move {
        harness::waits();
        let _object = pool.get().await.unwrap();
    });
    harness::ready(2).await;
}

/// A pool as programs write it themselves: an object gives its place back when it is dropped.
struct Slots {
    free: Semaphore,
}

struct Slot {
    of: Weak<Slots>,
}

impl Slots {
    async fn get(self: &Arc<Self>) -> Slot {
        self.free.acquire().await.unwrap().forget();
        Slot { of: Arc::downgrade(self) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(of) = self.of.upgrade() {
            of.free.add_permits(1);
        }
    }
}

async fn two_slots_of_a_pool_of_the_program() {
    start_slots();
    harness::ready(2).await;
}

fn start_slots() {
    let slots = Arc::new(Slots { free: Semaphore::new(2) });
    let gate = Arc::new(Barrier::new(2));
    for _ in 0..2 {
        tokio::spawn(uses_slots(slots.clone(), gate.clone()));
    }
}

async fn uses_slots(slots: Arc<Slots>, gate: Arc<Barrier>) {
    let _first = slots.get().await;
    gate.wait().await;
    harness::affected("uses_slots");
    let _second = slots.get().await;
}

struct Server {
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Server {
    fn start(requests: mpsc::Receiver<u32>) -> Self {
        let stop = Arc::new(Notify::new());
        Self { task: tokio::spawn(accepts(requests, stop.clone())), stop }
    }

    async fn shutdown(self) {
        self.stop.notify_waiters();
        self.task.await.unwrap();
    }
}

async fn accepts(mut requests: mpsc::Receiver<u32>, theirs: Arc<Notify>) {
    loop {
        tokio::select! {
            () = theirs.notified() => return,
            request = requests.recv() => match request {
                Some(_) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    harness::waits();
                }
                None => theirs.notified().await,
            },
        }
    }
}

#[delouse::main(worker_threads = 2)]
async fn notified_too_early() {
    harness::ready_on_a_thread(1);
    let (sender, requests) = mpsc::channel(4);
    let server = Server::start(requests);
    sender.send(1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.shutdown().await;
    drop(sender);
}

/// The supervisor says "go" before the worker listens, and then waits for its answer.
async fn notified_by_a_task_that_waits_then() {
    start_supervisor();
    harness::ready(1).await;
}

fn start_supervisor() {
    let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    tokio::spawn(worker(go.clone(), done.clone()));
    tokio::spawn(async move {
        go.notify_waiters();
        done.notified().await;
        go.notify_waiters();
    });
}

async fn worker(go: Arc<Notify>, done: Arc<Notify>) {
    tokio::time::sleep(Duration::from_millis(50)).await;
    harness::affected("worker");
    go.notified().await;
    done.notify_waiters();
}

async fn will_be_notified_again() {
    let (go, theirs) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    go.notify_waiters();
    let listens = go.clone();
    tokio::spawn(async move {
        harness::waits();
        listens.notified().await;
        theirs.notify_waiters();
    });
    tokio::spawn(async move {
        harness::waits();
        tokio::time::sleep(DAY).await;
        go.notify_waiters();
    });
    harness::ready(2).await;
}

async fn phase(n: u32, barrier: Arc<Barrier>) {
    tokio::time::sleep(Duration::from_millis(10)).await;
    if n == 2 {
        panic!("no such file");
    }
    harness::affected("phase");
    barrier.wait().await;
}

#[delouse::main(worker_threads = 2)]
async fn barrier_without_a_member() {
    std::panic::set_hook(Box::new(|_| ()));
    harness::ready_on_a_thread(3);
    let barrier = Arc::new(Barrier::new(4));
    let tasks: Vec<_> = (0..4).map(|n| tokio::spawn(phase(n, barrier.clone()))).collect();
    drop(barrier);
    for task in tasks {
        let _ = task.await;
    }
}

async fn barrier_that_is_too_large() {
    start_meeting();
    harness::ready(2).await;
}

fn start_meeting() {
    let barrier = Arc::new(Barrier::new(3));
    for _ in 0..2 {
        tokio::spawn(meets(barrier.clone()));
    }
}

async fn meets(barrier: Arc<Barrier>) {
    harness::affected("meets");
    barrier.wait().await;
}

async fn barrier_with_a_late_member() {
    let barrier = Arc::new(Barrier::new(3));
    for n in 0..3 {
        let barrier = barrier.clone();
        tokio::spawn(async move {
            harness::waits();
            tokio::time::sleep(if n == 2 { DAY } else { Duration::ZERO }).await;
            barrier.wait().await;
        });
    }
    drop(barrier);
    harness::ready(3).await;
}
