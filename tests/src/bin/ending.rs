//! Programs that are told to end, and wait for something that does not.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("tracker") => tracker(),
        Some("join_set") => join_set(),
        Some("blocking") => blocking(),
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
