//! Tasks that wait for one another: `wait_graph TASKS RESOURCES [faulty]`.
//!
//! For each resource, one task holds a mutex and waits for a message; the other tasks queue for the mutexes. `main` holds the
//! senders, so that nothing is wrong. With `faulty`, each sender belongs to another holder, so that holders keep one another
//! alive in pairs and nothing wakes them. Prints `control ADDRESS` when all tasks wait; it answers no commands there.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Mutex, OwnedMutexGuard};

static WAITING: AtomicUsize = AtomicUsize::new(0);

async fn holds(guard: OwnedMutexGuard<u64>, mut orders: Receiver<u64>, theirs: Option<Sender<u64>>) {
    WAITING.fetch_add(1, Relaxed);
    let order = orders.recv().await;
    drop((guard, theirs, order));
}

async fn queues(lock: Arc<Mutex<u64>>) {
    WAITING.fetch_add(1, Relaxed);
    *lock.lock().await += 1;
}

#[delouse::main]
async fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|number| number.parse::<usize>().ok());
    let (tasks, resources) = (numbers.next().unwrap_or(100_000), numbers.next().unwrap_or(10_000));
    let faulty = std::env::args().any(|argument| argument == "faulty");
    let locks: Vec<_> = (0..resources).map(|_| Arc::new(Mutex::new(0))).collect();
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) = (0..resources).map(|_| channel(1)).unzip();
    for lock in &locks {
        let Some(orders) = receivers.pop() else { break };
        let theirs = if faulty { Some(senders.remove(0)) } else { None };
        tokio::spawn(holds(lock.clone().lock_owned().await, orders, theirs));
    }
    for lock in locks.iter().cycle().take(tasks - resources) {
        tokio::spawn(queues(lock.clone()));
    }
    drop(locks);
    while WAITING.load(Relaxed) < tasks {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("control {}", control.local_addr()?);
    std::future::pending::<()>().await;
    drop(senders);
    Ok(())
}
