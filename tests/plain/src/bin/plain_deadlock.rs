//! Two tasks that wait for each other's mutex.

use std::sync::Arc;

use tokio::sync::{Barrier, Mutex};

#[tokio::main]
async fn main() {
    let (debit, credit) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let both_hold_one = Arc::new(Barrier::new(2));
    let one = tokio::spawn(transfer(Arc::clone(&debit), Arc::clone(&credit), Arc::clone(&both_hold_one)));
    let two = tokio::spawn(transfer(credit, debit, both_hold_one));
    println!("ready");
    let _ends = tokio::join!(one, two);
}

async fn transfer(first: Arc<Mutex<i64>>, second: Arc<Mutex<i64>>, both_hold_one: Arc<Barrier>) {
    let mut from = first.lock().await;
    both_hold_one.wait().await;
    let mut to = second.lock().await;
    *from -= 1;
    *to += 1;
}
