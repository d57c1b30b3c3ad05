//! Programs in which nothing runs any more: every worker, or the only thread, waits for a `std` mutex.

use std::sync::{Arc, Barrier, Mutex, MutexGuard};

fn main() {
    let lock: &'static Mutex<()> = Box::leak(Box::new(Mutex::new(())));
    let held = lock.lock();
    match std::env::args().nth(1).as_deref() {
        Some("workers") => workers(lock),
        Some("current_thread") => current_thread(lock),
        Some("local") => local(lock),
        other => eprintln!("workers, current_thread or local, not {other:?}"),
    }
    drop(held);
}

/// Prints `wedged` when all other threads are blocked.
fn print_when_wedged(parties: usize) -> Arc<Barrier> {
    let barrier = Arc::new(Barrier::new(parties + 1));
    let ours = Arc::clone(&barrier);
    std::thread::spawn(move || {
        ours.wait();
        println!("wedged");
    });
    barrier
}

fn block(lock: &'static Mutex<()>, all: &Barrier) -> Option<MutexGuard<'static, ()>> {
    all.wait();
    lock.lock().ok()
}

#[delouse::main(worker_threads = 3)]
async fn workers(lock: &'static Mutex<()>) {
    let all = print_when_wedged(3);
    for _ in 0..3 {
        let all = Arc::clone(&all);
        tokio::spawn(async move { drop(block(lock, &all)) });
    }
    tokio::spawn(std::future::pending::<()>());
    std::future::pending::<()>().await;
}

#[delouse::main(flavor = "current_thread")]
async fn current_thread(lock: &'static Mutex<()>) {
    let all = print_when_wedged(1);
    drop(block(lock, &all));
}

#[delouse::main(flavor = "local")]
async fn local(lock: &'static Mutex<()>) {
    let all = print_when_wedged(1);
    drop(block(lock, &all));
}
