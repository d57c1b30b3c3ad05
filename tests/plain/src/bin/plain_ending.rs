//! Programs without delouse that are to end, and wait for something that does not: `plain_ending CASE`.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use tokio::io::AsyncBufReadExt as _;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::task::TaskTracker;

#[tokio::main(worker_threads = 1)]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("tracker") => tracker().await,
        Some("join_set") => join_set().await,
        Some("graceful") => graceful().await,
        // The runtime is dropped when this returns, and waits for the thread that reads.
        Some("stdin") => stdin().await,
        other => println!("no such case: {other:?}"),
    }
}

/// A task that does not learn that the program is to end.
async fn works(never: Arc<Notify>) {
    never.notified().await;
}

async fn tracker() {
    let (tracker, never) = (TaskTracker::new(), Arc::new(Notify::new()));
    tracker.spawn(works(Arc::clone(&never)));
    tracker.close();
    println!("ready");
    tracker.wait().await;
    drop(never);
}

async fn join_set() {
    let (mut tasks, never) = (JoinSet::new(), Arc::new(Notify::new()));
    tasks.spawn(works(Arc::clone(&never)));
    println!("ready");
    while tasks.join_next().await.is_some() {}
    drop(never);
}

async fn reads_a_line() -> String {
    let mut line = String::new();
    let _closed = tokio::io::BufReader::new(tokio::io::stdin()).read_line(&mut line).await;
    line
}

async fn stdin() {
    tokio::select! {
        line = reads_a_line() => println!("{line}"),
        () = tokio::time::sleep(Duration::from_millis(300)) => println!("ready"),
    }
}

/// A body that is as long as the program sends events.
async fn events(events: broadcast::Receiver<String>) -> Response {
    let lines = BroadcastStream::new(events).map_while(Result::ok).map(Ok::<_, Infallible>);
    Response::new(Body::from_stream(lines))
}

/// A client that reads until the server closes the connection; `is_subscribed` is sent when the answer has begun.
fn subscribe(address: SocketAddr, is_subscribed: oneshot::Sender<()>) {
    let Ok(mut client) = TcpStream::connect(address) else { return };
    let mut buffer = [0; 4096];
    if client.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").is_ok()
        && client.read(&mut buffer).is_ok()
    {
        let _gone = is_subscribed.send(());
        while client.read(&mut buffer).is_ok_and(|read| read > 0) {}
    }
}

/// The graceful shutdown of a server, one of whose clients has subscribed to events of which the program sends no more.
async fn graceful() {
    let (sender, _) = broadcast::channel::<String>(16);
    let subscribes = sender.clone();
    let app = Router::new().route("/events", get(move || events(subscribes.subscribe())));
    let Ok(listener) = tokio::net::TcpListener::bind("127.0.0.1:0").await else { return };
    let Ok(address) = listener.local_addr() else { return };
    let (subscribed, is_subscribed) = oneshot::channel();
    std::thread::spawn(move || subscribe(address, subscribed));
    let stops = async {
        let _read = is_subscribed.await;
        println!("ready");
    };
    let _ended = axum::serve(listener, app).with_graceful_shutdown(stops).await;
    drop(sender);
}
