//! Two tasks that wait for each other's mutex.

use std::sync::Arc;

use tokio::sync::{Barrier, Mutex};

/// Two accounts, and the barrier that makes the deadlock certain.
struct Bank {
    debit: Mutex<i64>,
    credit: Mutex<i64>,
    both_hold_one: Barrier,
}

#[tokio::main]
async fn main() {
    let bank = Arc::new(Bank { debit: Mutex::new(0), credit: Mutex::new(0), both_hold_one: Barrier::new(2) });
    let one = tokio::spawn(debit_first(Arc::clone(&bank)));
    let two = tokio::spawn(credit_first(bank));
    println!("ready");
    let _ends = tokio::join!(one, two);
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
