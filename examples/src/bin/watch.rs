//! A service that watches itself: after some seconds two tasks deadlock, without any request for a diagnosis.
//!
//! ```text
//! cargo run --features debug --bin watch
//! curl -s 'localhost:7132/history?format=text'
//! ```
//!
//! Prints the deadlock once, within two looks, and calls `pages` with it. `DELOUSE_WATCH_DIR=reports` also writes it to a file
//! before. `DELOUSE_WATCH=30s` does the same as `Config::watch` for a program whose code says nothing about it.

use std::sync::Arc;
use std::time::Duration;

use delouse::{FindingChange, FindingEvent};
use tokio::sync::{Barrier, Mutex};
use tokio::time::sleep;

#[delouse::main]
async fn main() {
    delouse::Config::new().watch(Duration::from_secs(2)).on_finding(pages).init();
    let (debit, credit) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let both = Arc::new(Barrier::new(2));
    sleep(Duration::from_secs(3)).await;
    let one = tokio::spawn(transfer(debit.clone(), credit.clone(), both.clone()));
    let other = tokio::spawn(transfer(credit, debit, both));
    println!("two transfers in opposite directions");
    let _never = tokio::join!(one, other);
}

async fn transfer(from: Arc<Mutex<i64>>, to: Arc<Mutex<i64>>, both: Arc<Barrier>) {
    let mut source = from.lock().await;
    both.wait().await;
    let mut target = to.lock().await;
    *source -= 1;
    *target += 1;
}

/// Where a program would call its pager, or `tracing::error!`.
fn pages(event: &FindingEvent) {
    if event.change != FindingChange::Gone {
        println!("page: {}: {}", event.kind, event.summary);
    }
}
