//! Programs that are told to end, and wait for something that does not.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use futures::StreamExt as _;
use tokio::io::AsyncBufReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("tracker") => tracker(),
        Some("join_set") => join_set(),
        Some("blocking") => blocking(),
        Some("stdin") => stdin(),
        Some("stdin_is_awaited") => stdin_is_awaited(),
        Some("graceful") => graceful(),
        Some("no_handler") => no_handler(),
        Some("handled_it_before") => handled_it_before(),
        other => panic!("no such case: {other:?}"),
    }
}

/// A task that does not learn that the program is to end.
async fn works(never: Arc<Notify>) {
    never.notified().await;
}

async fn told_to_end() {
    let mut signals = signal(SignalKind::terminate()).expect("a signal");
    println!("ready");
    signals.recv().await;
    println!("stopping");
}

#[delouse::main(worker_threads = 1)]
async fn tracker() {
    let (tracker, never) = (TaskTracker::new(), Arc::new(Notify::new()));
    tracker.spawn(works(Arc::clone(&never)));
    told_to_end().await;
    tracker.close();
    tracker.wait().await;
    drop(never);
}

#[delouse::main(worker_threads = 1)]
async fn join_set() {
    let (mut tasks, never) = (JoinSet::new(), Arc::new(Notify::new()));
    tasks.spawn(works(Arc::clone(&never)));
    told_to_end().await;
    while tasks.join_next().await.is_some() {}
    drop(never);
}

/// Blocks a thread of the runtime.
fn asks() {
    let (never, answer) = std::sync::mpsc::channel::<()>();
    let _closed = answer.recv();
    drop(never);
}

#[delouse::main(worker_threads = 1)]
async fn blocking() {
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let _gone = begun.send(());
        asks();
    });
    let _begun = has_begun.await;
    println!("main returns");
}

async fn reads_a_line() -> String {
    let mut line = String::new();
    let _closed = tokio::io::BufReader::new(tokio::io::stdin()).read_line(&mut line).await;
    line
}

/// Reads its standard input, which a thread of the runtime does, and gives that up.
#[delouse::main(worker_threads = 1)]
async fn stdin() {
    tokio::select! {
        line = reads_a_line() => println!("{line}"),
        () = tokio::time::sleep(Duration::from_millis(300)) => println!("main returns"),
    }
}

/// Waits for its standard input after the signal.
#[delouse::main(worker_threads = 1)]
async fn stdin_is_awaited() {
    told_to_end().await;
    println!("{}", reads_a_line().await);
}

/// A body that is as long as the program sends events.
async fn events(events: broadcast::Receiver<String>) -> Response {
    let stream = futures::stream::unfold(events, |mut events| async move {
        let line = events.recv().await.ok()?;
        Some((Ok::<_, Infallible>(line), events))
    });
    Response::new(Body::from_stream(stream.boxed()))
}

/// A client that reads until the server closes the connection. Returns when it has read the first line.
async fn subscribe(address: SocketAddr) {
    let (sender, is_subscribed) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut client = TcpStream::connect(address).expect("it listens");
        client.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").expect("a connection");
        let mut buffer = [0; 4096];
        let _closed = client.read(&mut buffer);
        let _gone = sender.send(());
        while client.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    let _read = is_subscribed.await;
}

/// The graceful shutdown of a server, one of whose clients has subscribed to events of which the program sends no more.
#[delouse::main(worker_threads = 1)]
async fn graceful() {
    let (sender, _) = broadcast::channel::<String>(16);
    let subscribes = sender.clone();
    let app = Router::new().route("/events", get(move || events(subscribes.subscribe())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let subscribed = tokio::spawn(subscribe(listener.local_addr().expect("an address")));
    // Without a connection, the shutdown would be over at once.
    let end = async move {
        let _subscribed = subscribed.await;
        told_to_end().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(end).await.expect("it serves");
    drop(sender);
}

#[delouse::main(worker_threads = 1)]
async fn no_handler() {
    println!("ready");
    std::future::pending::<()>().await;
}

fn handled_it_before() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut signals = signal(SignalKind::terminate()).expect("a signal");
        println!("served {}", delouse::init().address().is_some());
        for number in 1.. {
            signals.recv().await;
            println!("signal {number} is mine");
        }
    });
}
