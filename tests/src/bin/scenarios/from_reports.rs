//! Programs after bug reports of tokio, hyper, axum and others: actors that ask themselves, drivers and runtimes that nothing
//! polls, handlers that wait for each other, calls to oneself; and healthy programs of the same shape.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::harness::{self, Case, DAY, faulty, healthy, observed};

pub(crate) const CASES: &[Case] = &[
    faulty!(actor_that_asks_itself: "deadlock" | "leaked_tasks"),
    faulty!(driver_that_nothing_polls: "futurelock" | "deadlock"),
    faulty!(unix_pair_of_two_readers: "deadlock"),
    faulty!(unix_pair_of_two_writers: "deadlock"),
    faulty!(local_task_outside_of_its_set: "starved_tasks"),
    faulty!(task_of_a_runtime_that_nothing_drives: "starved_tasks",
        says "waits at `scenarios::from_reports::task_of_a_runtime_that_nothing_drives"),
    observed!(timer_of_a_runtime_that_nothing_drives: "overdue_timers"),
    faulty!(request_to_its_own_server_with_the_lock: "deadlock"),
    faulty!(handlers_that_lock_crosswise: "deadlock"),
    faulty!(handler_that_asks_an_actor_with_its_lock: "deadlock"),
    faulty!(notify_before_the_wait: "deadlock" | "leaked_tasks"),
    faulty!(handle_of_an_aborted_supervisor: "deadlock" | "leaked_tasks"),
    healthy!(actor_that_is_asked),
    healthy!(unix_pair_of_a_reader_and_a_sleeper),
    healthy!(local_task_in_its_set),
    healthy!(task_of_a_runtime_on_another_thread),
    healthy!(queue_behind_a_shared_receiver),
    healthy!(request_to_its_own_server),
    healthy!(handlers_that_wait_for_a_slow_one),
    healthy!(duplex_of_a_reader_and_a_sleeper),
    healthy!(retries_that_succeed),
    healthy!(watch_that_changes_now_and_then),
    healthy!(limit_of_requests_that_end),
];

enum Command {
    Get(oneshot::Sender<u64>),
    Sum(oneshot::Sender<u64>),
}

#[derive(Clone)]
struct Actor(mpsc::Sender<Command>);

impl Actor {
    async fn get(&self) -> u64 {
        let (reply, receive) = oneshot::channel();
        let _ = self.0.send(Command::Get(reply)).await;
        receive.await.unwrap_or_default()
    }

    async fn sum(&self) -> u64 {
        let (reply, receive) = oneshot::channel();
        let _ = self.0.send(Command::Sum(reply)).await;
        harness::affected("sum");
        receive.await.unwrap_or_default()
    }
}

async fn runs(mut inbox: mpsc::Receiver<Command>, other: Actor) {
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Get(reply) => drop(reply.send(1)),
            Command::Sum(reply) => {
                harness::affected("runs");
                let sum = other.get().await + 1;
                let _ = reply.send(sum);
            }
        }
    }
}

async fn actor_that_asks_itself() {
    let (sender, inbox) = mpsc::channel(8);
    let actor = Actor(sender);
    tokio::spawn(runs(inbox, actor.clone()));
    tokio::spawn(async move { actor.sum().await });
    harness::ready(2).await;
}

async fn fetches(address: std::net::SocketAddr) {
    let stream = TcpStream::connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let request = hyper::Request::new(http_body_util::Empty::<&[u8]>::new());
    harness::affected("fetches");
    let response = sender.send_request(request).await;
    println!("{:?}", response.map(|response| response.status()));
    let _ = connection.await;
}

async fn driver_that_nothing_polls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(fetches(address));
    tokio::spawn(async move { axum::serve(listener, axum::Router::<()>::new()).await });
    harness::ready(1).await;
}

async fn reads_first(mut end: UnixStream) {
    let mut greeting = [0; 5];
    harness::affected("reads_first");
    let _ = end.read_exact(&mut greeting).await;
    let _ = end.write_all(b"hello").await;
}

async fn unix_pair_of_two_readers() {
    let (one, other) = UnixStream::pair().unwrap();
    tokio::spawn(reads_first(one));
    tokio::spawn(reads_first(other));
    harness::ready(2).await;
}

async fn writes_first(mut end: UnixStream) {
    let data = vec![1; 8 << 20];
    harness::affected("writes_first");
    let _ = end.write_all(&data).await;
    let _ = end.read_to_end(&mut Vec::new()).await;
}

async fn unix_pair_of_two_writers() {
    let (one, other) = UnixStream::pair().unwrap();
    tokio::spawn(writes_first(one));
    tokio::spawn(writes_first(other));
    harness::ready(2).await;
}

/// Runs `main` on its own thread and runtime.
fn on_a_current_thread<F: Future<Output = ()> + 'static>(main: fn() -> F) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(main());
    });
}

async fn local_task_outside_of_its_set() {
    on_a_current_thread(|| async {
        let set = LocalSet::new();
        let handle = set.spawn_local(async { 5 });
        harness::affected("local_task_outside_of_its_set");
        let result = handle.await;
        set.await;
        println!("{result:?}");
    });
    harness::ready(1).await;
}

async fn task_of_a_runtime_that_nothing_drives() {
    let background = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let job = background.spawn(async { 5 });
    tokio::spawn(async move {
        harness::waits();
        let _ = job.await;
    });
    harness::ready(1).await;
    std::mem::forget(background);
}

async fn timer_of_a_runtime_that_nothing_drives() {
    let background = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = background.handle().clone();
    thread::spawn(move || {
        harness::affected("timer_of_a_runtime_that_nothing_drives");
        handle.block_on(async { sleep(Duration::from_millis(10)).await });
    });
    harness::ready(1).await;
    std::mem::forget(background);
}

async fn asks(address: std::net::SocketAddr, cache: Arc<Mutex<u64>>) {
    let mut cache = cache.lock().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
    let mut answer = String::new();
    harness::affected("asks");
    let _ = stream.read_to_string(&mut answer).await;
    *cache += 1;
}

async fn answers(cache: Arc<Mutex<u64>>) -> String {
    harness::affected("answers");
    let cache = cache.lock().await;
    cache.to_string()
}

async fn request_to_its_own_server_with_the_lock() {
    let cache = Arc::new(Mutex::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let theirs = cache.clone();
    let router = axum::Router::new().route("/", axum::routing::get(move || answers(theirs.clone())));
    tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::spawn(asks(address, cache));
    harness::ready(2).await;
}

/// A client that waits for the answer, outside of tokio.
fn requests(address: std::net::SocketAddr, path: &'static str) {
    thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
}

type Accounts = Arc<(Mutex<u64>, Mutex<u64>)>;

async fn debits(accounts: Accounts) -> String {
    let one = accounts.0.lock().await;
    sleep(Duration::from_millis(300)).await;
    harness::affected("debits");
    let other = accounts.1.lock().await;
    format!("{}", *one + *other)
}

async fn credits(accounts: Accounts) -> String {
    let other = accounts.1.lock().await;
    sleep(Duration::from_millis(300)).await;
    harness::affected("credits");
    let one = accounts.0.lock().await;
    format!("{}", *one + *other)
}

async fn serves(router: axum::Router, paths: &[&'static str]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    paths.iter().for_each(|path| requests(address, path));
}

async fn handlers_that_lock_crosswise() {
    serves_accounts().await;
    harness::ready(2).await;
}

async fn serves_accounts() {
    let accounts = Accounts::default();
    let theirs = accounts.clone();
    let router = axum::Router::new()
        .route("/debit", axum::routing::get(move || debits(accounts.clone())))
        .route("/credit", axum::routing::get(move || credits(theirs.clone())));
    serves(router, &["/debit", "/credit"]).await;
}

async fn reads_with_the_lock(state: Arc<Mutex<u64>>, actor: mpsc::Sender<oneshot::Sender<u64>>) -> String {
    let state = state.lock().await;
    let (reply, receive) = oneshot::channel();
    let _ = actor.send(reply).await;
    harness::affected("reads_with_the_lock");
    let answer = receive.await;
    format!("{state} {answer:?}")
}

async fn handler_that_asks_an_actor_with_its_lock() {
    serves_with_an_actor().await;
    harness::ready(2).await;
}

async fn serves_with_an_actor() {
    let state = Arc::new(Mutex::new(5));
    let (actor, mut inbox) = mpsc::channel::<oneshot::Sender<u64>>(4);
    let theirs = state.clone();
    tokio::spawn(async move {
        while let Some(reply) = inbox.recv().await {
            harness::affected("serves_with_an_actor");
            let state = theirs.lock().await;
            let _ = reply.send(*state);
        }
    });
    let handler = move || reads_with_the_lock(state.clone(), actor.clone());
    serves(axum::Router::new().route("/", axum::routing::get(handler)), &["/"]).await;
}

async fn handlers_that_wait_for_a_slow_one() {
    let lock = Arc::new(Mutex::new(0));
    let handler = move || {
        let lock = lock.clone();
        async move {
            harness::waits();
            let guard = lock.lock().await;
            sleep(DAY).await;
            guard.to_string()
        }
    };
    serves(axum::Router::new().route("/", axum::routing::get(handler)), &["/", "/", "/"]).await;
    harness::ready(3).await;
}

async fn notify_before_the_wait() {
    starts();
    harness::ready(2).await;
}

fn starts() {
    let started = Arc::new(Notify::new());
    let theirs = started.clone();
    let worker = tokio::spawn(async move {
        theirs.notify_waiters();
        harness::affected("starts");
        theirs.notified().await;
    });
    tokio::spawn(async move {
        sleep(Duration::from_millis(50)).await;
        harness::affected("starts");
        started.notified().await;
        let _ = worker.await;
    });
}

/// The supervisor that would send was aborted; its clone of the sender lives on in a registry, which only waiters have.
async fn handle_of_an_aborted_supervisor() {
    supervises_and_aborts();
    harness::ready(3).await;
}

fn supervises_and_aborts() {
    let registry = Arc::new(std::sync::Mutex::new(Vec::new()));
    for _ in 0..3 {
        let (sender, receiver) = oneshot::channel::<u64>();
        registry.lock().unwrap().push(sender);
        tokio::spawn(awaits_its_turn(receiver, registry.clone()));
    }
    let supervisor = tokio::spawn(async move {
        sleep(DAY).await;
        for sender in registry.lock().unwrap().drain(..) {
            let _ = sender.send(1);
        }
    });
    supervisor.abort();
}

async fn awaits_its_turn(
    receiver: oneshot::Receiver<u64>,
    registry: Arc<std::sync::Mutex<Vec<oneshot::Sender<u64>>>>,
) {
    harness::affected("awaits_its_turn");
    let turn = receiver.await;
    println!("{turn:?} of {}", registry.lock().unwrap().len());
}

async fn actor_that_is_asked() {
    let (one, inbox) = mpsc::channel(8);
    let (other, others) = mpsc::channel(8);
    tokio::spawn(runs_quietly(inbox, Actor(other.clone())));
    tokio::spawn(runs_quietly(others, Actor(other.clone())));
    tokio::spawn(async move {
        harness::waits();
        loop {
            Actor(one.clone()).get().await;
            sleep(Duration::from_millis(300)).await;
        }
    });
    harness::ready(1).await;
}

async fn runs_quietly(mut inbox: mpsc::Receiver<Command>, other: Actor) {
    while let Some(command) = inbox.recv().await {
        let (Command::Get(reply) | Command::Sum(reply)) = command;
        let _ = reply.send(other.0.capacity() as u64);
    }
}

async fn unix_pair_of_a_reader_and_a_sleeper() {
    let (mut one, mut other) = UnixStream::pair().unwrap();
    tokio::spawn(async move {
        harness::waits();
        let _ = one.read_u8().await;
    });
    tokio::spawn(async move {
        harness::waits();
        sleep(DAY).await;
        let _ = other.write_all(b"hello").await;
    });
    harness::ready(2).await;
}

async fn local_task_in_its_set() {
    on_a_current_thread(|| async {
        let set = LocalSet::new();
        let handle = set.spawn_local(async {
            harness::waits();
            sleep(DAY).await;
        });
        let _ = set.run_until(handle).await;
    });
    harness::ready(1).await;
}

async fn task_of_a_runtime_on_another_thread() {
    let background = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = background.handle().clone();
    thread::spawn(move || background.block_on(std::future::pending::<()>()));
    let job = handle.spawn(async {
        sleep(DAY).await;
    });
    tokio::spawn(async move {
        harness::waits();
        let _ = job.await;
    });
    harness::ready(1).await;
}

async fn queue_behind_a_shared_receiver() {
    let (jobs, take) = mpsc::channel::<u64>(8);
    let take = Arc::new(Mutex::new(take));
    for _ in 0..3 {
        let take = take.clone();
        tokio::spawn(async move {
            harness::waits();
            loop {
                let job = take.lock().await.recv().await;
                if job.is_none() {
                    break;
                }
            }
        });
    }
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(30)).await;
            let _ = jobs.send(1).await;
        }
    });
    harness::ready(3).await;
}

async fn request_to_its_own_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = axum::routing::get(|| async {
        harness::waits();
        sleep(DAY).await;
    });
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/", slow)).await });
    tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
        let _ = stream.read_to_string(&mut String::new()).await;
    });
    harness::ready(1).await;
}

async fn duplex_of_a_reader_and_a_sleeper() {
    let (mut one, mut other) = duplex(64);
    tokio::spawn(async move {
        harness::waits();
        let _ = one.read_u8().await;
    });
    tokio::spawn(async move {
        harness::waits();
        sleep(DAY).await;
        let _ = other.write_all(b"hello").await;
    });
    harness::ready(2).await;
}

async fn retries_that_succeed() {
    let lock = Arc::new(Mutex::new(0));
    for _ in 0..3 {
        let lock = lock.clone();
        tokio::spawn(async move {
            harness::waits();
            loop {
                if let Ok(mut guard) = timeout(Duration::from_millis(50), lock.lock()).await {
                    *guard += 1;
                    sleep(Duration::from_millis(30)).await;
                }
            }
        });
    }
    harness::ready(3).await;
}

async fn watch_that_changes_now_and_then() {
    let (stop, stopped) = watch::channel(0);
    let mut set = JoinSet::new();
    for _ in 0..3 {
        let mut stopped = stopped.clone();
        set.spawn(async move {
            harness::waits();
            let _ = stopped.wait_for(|number| *number > 1_000_000).await;
        });
    }
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(100)).await;
            stop.send_modify(|number| *number += 1);
        }
    });
    tokio::spawn(async move { while set.join_next().await.is_some() {} });
    harness::ready(3).await;
}

async fn limit_of_requests_that_end() {
    let permits = Arc::new(Semaphore::new(2));
    for _ in 0..6 {
        let permits = permits.clone();
        tokio::spawn(async move {
            harness::waits();
            loop {
                let _permit = permits.acquire().await;
                sleep(Duration::from_millis(40)).await;
            }
        });
    }
    harness::ready(6).await;
}
