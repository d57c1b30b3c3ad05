//! A healthy suite, each test twice: with `#[delouse::test]` and with `#[tokio::test]`. `tests/tests/healthy_suite.rs` runs one
//! after the other, and compares.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, Notify, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet, spawn_blocking, spawn_local};
use tokio::time::{sleep, timeout};

/// Each test in the modules `with_delouse` and `with_tokio`.
macro_rules! tests {
    ($($name:ident ($($argument:ident = $value:tt),*) $body:block)*) => {
        mod with_delouse {
            use super::*;
            $(
                #[delouse::test($($argument = $value),*)]
                async fn $name() $body
            )*
        }
        mod with_tokio {
            use super::*;
            $(
                #[tokio::test($($argument = $value),*)]
                async fn $name() $body
            )*
        }
    };
}

const BRIEFLY: Duration = Duration::from_millis(2);

async fn counts(number: u64) -> u64 {
    let (sender, mut receiver) = mpsc::channel(4);
    let sends = tokio::spawn(async move {
        for number in 0..number {
            sender.send(number).await.expect("it is received");
        }
    });
    let mut sum = 0;
    while let Some(number) = receiver.recv().await {
        sum += number;
    }
    sends.await.expect("it ends");
    sum
}

async fn echoes(times: usize) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let (mut reader, mut writer) = socket.split();
        tokio::io::copy(&mut reader, &mut writer).await.expect("a connection")
    });
    let mut client = tokio::net::TcpStream::connect(address).await.expect("it listens");
    for _ in 0..times {
        client.write_all(b"echo").await.expect("a connection");
        let mut back = [0; 4];
        client.read_exact(&mut back).await.expect("a connection");
        assert_eq!(&back, b"echo");
    }
    drop(client);
    assert_eq!(server.await.expect("it ends"), 4 * times as u64);
}

async fn shares_a_lock(tasks: usize) {
    let lock = Arc::new(Mutex::new(0));
    let mut set = JoinSet::new();
    for _ in 0..tasks {
        let lock = Arc::clone(&lock);
        set.spawn(async move {
            let mut number = lock.lock().await;
            tokio::task::yield_now().await;
            *number += 1;
        });
    }
    while let Some(end) = set.join_next().await {
        end.expect("it ends");
    }
    assert_eq!(*lock.lock().await, tasks);
}

async fn waits_for_a_thread() {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::spawn(move || sender.send(7).expect("it is received"));
    assert_eq!(receiver.await, Ok(7));
    thread.join().expect("it ends");
}

async fn limits() {
    let limit = Arc::new(Semaphore::new(2));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let limit = Arc::clone(&limit);
            tokio::spawn(async move {
                let _permit = limit.acquire().await.expect("it is open");
                sleep(BRIEFLY).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("it ends");
    }
}

async fn notifies() {
    let (notify, (sender, mut receiver)) = (Arc::new(Notify::new()), watch::channel(0));
    let theirs = Arc::clone(&notify);
    let task = tokio::spawn(async move {
        theirs.notified().await;
        sender.send(1).expect("it is received");
    });
    notify.notify_one();
    receiver.changed().await.expect("it is sent");
    task.await.expect("it ends");
}

async fn broadcasts() {
    let (sender, mut receiver) = broadcast::channel(4);
    let mut other = sender.subscribe();
    let task = tokio::spawn(async move { other.recv().await });
    sender.send(7).expect("it is received");
    assert_eq!((receiver.recv().await, task.await.expect("it ends")), (Ok(7), Ok(7)));
}

tests! {
    counts_on_one_thread () { assert_eq!(counts(100).await, 4950); }
    counts_on_two_threads (flavor = "multi_thread", worker_threads = 2) { assert_eq!(counts(100).await, 4950); }
    echoes_on_one_thread () { echoes(20).await; }
    echoes_on_two_threads (flavor = "multi_thread", worker_threads = 2) { echoes(20).await; }
    shares_a_lock_on_one_thread () { shares_a_lock(20).await; }
    shares_a_lock_on_four_threads (flavor = "multi_thread", worker_threads = 4) { shares_a_lock(20).await; }
    waits_for_a_thread_on_one_thread () { waits_for_a_thread().await; }
    waits_for_a_thread_on_two_threads (flavor = "multi_thread", worker_threads = 2) { waits_for_a_thread().await; }
    limits_on_one_thread () { limits().await; }
    limits_on_two_threads (flavor = "multi_thread", worker_threads = 2) { limits().await; }
    notifies_on_one_thread () { notifies().await; }
    notifies_on_two_threads (flavor = "multi_thread", worker_threads = 2) { notifies().await; }
    broadcasts_on_one_thread () { broadcasts().await; }
    broadcasts_on_two_threads (flavor = "multi_thread", worker_threads = 2) { broadcasts().await; }
    an_hour_of_a_paused_clock (start_paused = true) { sleep(Duration::from_secs(3600)).await; }
    a_timeout_of_a_paused_clock (start_paused = true) {
        timeout(Duration::from_secs(60), std::future::pending::<()>()).await.expect_err("it is over");
    }
    nothing_to_do () {}
    nothing_to_do_on_two_threads (flavor = "multi_thread", worker_threads = 2) {}
    sleeps () { sleep(BRIEFLY).await; }
    blocks_a_thread_of_the_pool () {
        spawn_blocking(|| std::thread::sleep(BRIEFLY)).await.expect("it ends");
    }
    blocks_in_place (flavor = "multi_thread", worker_threads = 2) {
        tokio::task::block_in_place(|| std::thread::sleep(BRIEFLY));
    }
    blocks_its_own_thread () { std::thread::sleep(BRIEFLY); }
    leaves_tasks_to_the_shutdown (flavor = "multi_thread", worker_threads = 2) {
        tokio::spawn(std::future::pending::<()>());
        spawn_blocking(|| std::thread::sleep(BRIEFLY));
    }
    local_tasks () {
        let number = std::rc::Rc::new(std::cell::Cell::new(0));
        let theirs = number.clone();
        LocalSet::new()
            .run_until(async { spawn_local(async move { theirs.set(1) }).await.expect("it ends") })
            .await;
        assert_eq!(number.get(), 1);
    }
}
