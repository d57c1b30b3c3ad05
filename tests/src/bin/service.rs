//! A healthy service with a little of everything: a shared map behind a lock, an actor that replies, a limit, a
//! cache that is refreshed, work for the blocking pool. Prints its address, and serves until it is ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, RwLock, Semaphore, mpsc, oneshot, watch};

struct Service {
    visits: Mutex<HashMap<u32, u64>>,
    settings: RwLock<u64>,
    limit: Semaphore,
    questions: mpsc::Sender<(u64, oneshot::Sender<u64>)>,
    beats: watch::Receiver<u64>,
}

#[delouse::main(worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let (questions, asked) = mpsc::channel(16);
    let (heart, beats) = watch::channel(0);
    let service = Arc::new(Service {
        visits: Mutex::default(),
        settings: RwLock::new(1),
        limit: Semaphore::new(4),
        questions,
        beats,
    });
    tokio::spawn(answers(asked));
    tokio::spawn(beats_on(heart));
    tokio::spawn(refreshes(Arc::clone(&service)));
    let app = Router::new()
        .route("/visit/{name}", get(visit))
        .route("/square/{number}", get(square))
        .route("/slow", get(slow))
        .with_state(service);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("serving on {}", listener.local_addr()?);
    axum::serve(listener, app).await
}

/// The actor: one question after the other.
async fn answers(mut asked: mpsc::Receiver<(u64, oneshot::Sender<u64>)>) {
    while let Some((number, reply)) = asked.recv().await {
        tokio::task::yield_now().await;
        let _gone = reply.send(number * number);
    }
}

async fn beats_on(heart: watch::Sender<u64>) {
    let mut interval = tokio::time::interval(Duration::from_millis(5));
    loop {
        interval.tick().await;
        heart.send_modify(|beat| *beat += 1);
    }
}

async fn refreshes(service: Arc<Service>) {
    let mut beats = service.beats.clone();
    while beats.changed().await.is_ok() {
        let mut settings = service.settings.write().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        *settings += 1;
    }
}

async fn visit(State(service): State<Arc<Service>>, Path(visitor): Path<u32>) -> String {
    let mut visits = service.visits.lock().await;
    // Held across an await, as happens.
    tokio::task::yield_now().await;
    let times = visits.entry(visitor).or_default();
    *times += 1;
    times.to_string()
}

async fn square(State(service): State<Arc<Service>>, Path(number): Path<u64>) -> String {
    let (reply, answer) = oneshot::channel();
    let _ = service.questions.send((number, reply)).await;
    let settings = *service.settings.read().await;
    format!("{} {settings}", answer.await.unwrap_or_default())
}

async fn slow(State(service): State<Arc<Service>>) -> &'static str {
    let _permit = service.limit.acquire().await;
    let computed = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(20)));
    tokio::select! {
        _ = computed => "computed",
        () = tokio::time::sleep(Duration::from_secs(30)) => "late",
    }
}
