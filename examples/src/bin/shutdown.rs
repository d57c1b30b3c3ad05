//! A service that is told to end, and waits for a task that does not know.
//!
//! ```text
//! cargo run --features debug --bin shutdown
//! ```
//!
//! Ends on Ctrl-C or SIGTERM, when all its tasks have ended: one waits for a message whose sender `main` keeps. A second
//! SIGTERM (`pkill shutdown`), or five seconds, print what it waits for. `DELOUSE_SHUTDOWN_REPORT=5s` does the same as
//! `Config::shutdown_report`.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

#[delouse::main]
async fn main() -> std::io::Result<()> {
    delouse::Config::new().shutdown_report(Duration::from_secs(5)).init();
    let mut terminated = signal(SignalKind::terminate())?;
    let (jobs, queue) = mpsc::channel(8);
    let mut tasks = JoinSet::new();
    tasks.spawn(works(queue));
    println!("serving, until SIGTERM or Ctrl-C");
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    println!("shutting down");
    // Only when all senders are dropped does `works` end.
    while tasks.join_next().await.is_some() {}
    drop(jobs);
    Ok(())
}

async fn works(mut queue: mpsc::Receiver<u64>) {
    while let Some(job) = queue.recv().await {
        println!("job {job}");
    }
}
