//! Graceful shutdowns that wait for what never ends, and healthy ones.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use futures::StreamExt;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::harness::{self, Case, DAY, healthy, observed};

pub(crate) const CASES: &[Case] = &[
    observed!(body_that_never_ends: "shutdown", says "the graceful shutdown of axum", "a message of broadcast-1"),
    observed!(tracked_task_that_ignores_the_end: "shutdown", says "TaskTracker::wait", "graceful::works"),
    healthy!(shutdown_during_a_request_with_a_timer),
    healthy!(tracked_tasks_with_timers),
];

type Events = broadcast::Sender<String>;

async fn events(events: Events) -> Response {
    let receiver = events.subscribe();
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        let line = receiver.recv().await.ok()?;
        Some((Ok::<_, std::io::Error>(line), receiver))
    });
    Response::new(Body::from_stream(stream.boxed()))
}

/// A server with one client that reads `path`; it shuts down when `stopped` ends.
async fn server(path: &'static str, events_of: Events, stopped: oneshot::Receiver<()>) {
    let app = Router::new().route("/events", get(move || events(events_of.clone()))).route(
        "/slow",
        get(|| async {
            sleep(DAY).await;
            "slow"
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let stop = async { stopped.await.unwrap_or(()) };
        axum::serve(listener, app).with_graceful_shutdown(stop).await.unwrap();
    });
    thread::spawn(move || {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let mut buffer = [0; 4096];
        while client.read(&mut buffer).unwrap_or(0) > 0 {}
    });
    sleep(Duration::from_millis(300)).await;
}

async fn body_that_never_ends() {
    let events = Events::new(16);
    let (stop, stopped) = oneshot::channel();
    server("/events", events.clone(), stopped).await;
    stop.send(()).unwrap();
    harness::waits();
    harness::ready(1).await;
    drop(events);
}

async fn shutdown_during_a_request_with_a_timer() {
    let (stop, stopped) = oneshot::channel();
    server("/slow", Events::new(16), stopped).await;
    stop.send(()).unwrap();
    harness::waits();
    harness::ready(1).await;
}

async fn works(mut jobs: mpsc::Receiver<u64>) {
    harness::waits();
    while let Some(job) = jobs.recv().await {
        println!("{job}");
    }
}

async fn tracked_task_that_ignores_the_end() {
    let (tracker, end) = (TaskTracker::new(), CancellationToken::new());
    let (sender, jobs) = mpsc::channel(4);
    tracker.spawn(works(jobs));
    tokio::spawn(async move {
        sleep(DAY).await;
        drop(sender);
    });
    end.cancel();
    tracker.close();
    tokio::spawn(async move { tracker.wait().await });
    harness::ready(1).await;
}

async fn tracked_tasks_with_timers() {
    let tracker = TaskTracker::new();
    for _ in 0..3 {
        tracker.spawn(async {
            harness::waits();
            sleep(DAY).await;
        });
    }
    tracker.close();
    tokio::spawn(async move { tracker.wait().await });
    harness::ready(3).await;
}
