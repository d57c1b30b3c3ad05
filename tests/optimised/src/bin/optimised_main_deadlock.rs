//! The main future and a task that wait for each other's mutex.

use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};

#[tokio::main]
async fn main() {
    let (debit, credit) = (Arc::new(Mutex::new(0_i64)), Arc::new(Mutex::new(0_i64)));
    let mut from = debit.lock().await;
    let (has_locked, locked) = oneshot::channel();
    let (may_wait, may) = oneshot::channel();
    let task = credit_first(Arc::clone(&credit), Arc::clone(&debit), has_locked, may);
    drop(tokio::spawn(task));
    let _first = locked.await;
    let _second = may_wait.send(());
    println!("ready");
    let mut to = credit.lock().await;
    *from -= 1;
    *to += 1;
}

async fn credit_first(
    credit: Arc<Mutex<i64>>,
    debit: Arc<Mutex<i64>>,
    has_locked: oneshot::Sender<()>,
    may: oneshot::Receiver<()>,
) {
    let mut to = credit.lock().await;
    let _sent = has_locked.send(());
    let _received = may.await;
    let mut from = debit.lock().await;
    *from -= 1;
    *to += 1;
}
