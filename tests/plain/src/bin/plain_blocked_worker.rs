//! A task that blocks its worker: it takes a `std` mutex that another thread never releases.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

#[tokio::main(worker_threads = 2)]
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
    println!("ready");
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn book(ledger: Arc<Mutex<i64>>) {
    if let Ok(mut balance) = ledger.lock() {
        *balance += 1;
    }
}
