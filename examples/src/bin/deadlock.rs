//! Two tasks, two mutexes, opposite order: both wait for ever.
//!
//! ```text
//! cargo run --features debug --bin deadlock
//! curl -s 'localhost:7132/diagnosis?format=text'
//! ```
//!
//! Names the deadlock in its first line: both tasks, each at the line of the lock that it waits for, and which task holds it.

use std::sync::Arc;

use tokio::sync::{Barrier, Mutex};

/// Two accounts, each behind its own lock, and the barrier that makes the deadlock certain.
struct Bank {
    debit: Mutex<i64>,
    credit: Mutex<i64>,
    both_hold_one: Barrier,
}

#[delouse::main]
async fn main() {
    let bank = Arc::new(Bank { debit: Mutex::new(0), credit: Mutex::new(0), both_hold_one: Barrier::new(2) });
    let one = tokio::spawn(debit_first(Arc::clone(&bank)));
    let two = tokio::spawn(credit_first(bank));
    println!("two transfers on their way");
    let _ends = tokio::join!(one, two);
    println!("never printed");
}

async fn debit_first(bank: Arc<Bank>) {
    let mut from = bank.debit.lock().await;
    bank.both_hold_one.wait().await;
    let mut to = bank.credit.lock().await;
    *from -= 1;
    *to += 1;
}

async fn credit_first(bank: Arc<Bank>) {
    let mut to = bank.credit.lock().await;
    bank.both_hold_one.wait().await;
    let mut from = bank.debit.lock().await;
    *from -= 1;
    *to += 1;
}
