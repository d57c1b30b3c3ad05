//! A worker that is blocked for ever: a task takes a `std` mutex that another thread never gives back.
//!
//! ```text
//! cargo run --features debug --bin blocked-worker
//! curl -s 'localhost:7132/diagnosis?format=text'
//! ```
//!
//! Names the task, `book`, and the line of its `lock` in its first line, and the thread that may have the lock.
//!
//! `/stacktrace/rust` shows both threads.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

#[delouse::main(worker_threads = 2)]
async fn main() {
    let ledger = Arc::new(Mutex::new(0));
    let (held, wait) = mpsc::channel();
    let theirs = Arc::clone(&ledger);
    std::thread::spawn(move || {
        let _balance = theirs.lock();
        let _gone = held.send(());
        loop {
            std::thread::park();
        }
    });
    let _held = wait.recv();

    tokio::spawn(book(ledger));
    loop {
        println!("still serving");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// An async function that blocks its thread: the bug.
async fn book(ledger: Arc<Mutex<i64>>) {
    if let Ok(mut balance) = ledger.lock() {
        *balance += 1;
    }
}
