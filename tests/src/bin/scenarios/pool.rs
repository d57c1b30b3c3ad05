//! Pools for blocking calls: full of calls that wait, and healthy ones with long queues.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::harness::{self, Case, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(own pool_of_converters_without_feeders: "blocking_pool" | "deadlock",
        says "pool::convert", "pool::pipeline at"),
    faulty!(own pool_of_endless_consumers: "blocking_pool", says "pool::consume", "is in the queue"),
    faulty!(own pool_of_calls_that_make_calls: "blocking_pool" | "deadlock", says "pool::outer"),
    faulty!(own pool_behind_a_lock: "blocking_pool" | "deadlock", says "pool::stores"),
    healthy!(own pool_with_room),
    healthy!(own pool_with_short_calls_and_a_long_queue),
    healthy!(own pool_that_computes),
    healthy!(own pool_of_calls_that_wait_for_a_short_time),
];

/// Runs a service with a pool of that many threads, and the `fault`.
fn service<F: Future<Output = ()>>(threads: usize, fault: fn() -> F) {
    let runtime =
        Builder::new_multi_thread().worker_threads(2).max_blocking_threads(threads).enable_all().build();
    runtime.unwrap().block_on(async {
        let _ = delouse::init();
        tokio::spawn(serves());
        fault().await;
    });
}

/// The rest of the service goes on.
async fn serves() {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        tokio::spawn(async { sleep(Duration::from_millis(5)).await });
    }
}

fn convert(input: &mpsc::Receiver<Vec<u8>>) -> usize {
    harness::waits();
    input.recv().map_or(0, |data| data.len())
}

#[expect(clippy::needless_pass_by_value, reason = "it ends with the call")]
fn feed(output: mpsc::Sender<Vec<u8>>) {
    let _ = output.send(vec![1; 10]);
}

async fn pipeline() {
    let (output, input) = mpsc::channel();
    let converter = spawn_blocking(move || convert(&input));
    sleep(Duration::from_millis(200)).await;
    let feeder = spawn_blocking(move || feed(output));
    harness::affected("pipeline");
    feeder.await.unwrap();
    converter.await.unwrap();
}

fn pool_of_converters_without_feeders() {
    service(3, || async {
        for _ in 0..3 {
            tokio::spawn(pipeline());
        }
        harness::ready(6).await;
    });
}

fn consume(jobs: &mpsc::Receiver<u64>) {
    harness::waits();
    for job in jobs {
        println!("{job}");
    }
}

async fn status() {
    harness::affected("status");
    let _ = tokio::fs::read_to_string("/proc/self/status").await;
}

fn pool_of_endless_consumers() {
    service(2, || async {
        let mut keep = Vec::new();
        for _ in 0..2 {
            let (sender, jobs) = mpsc::channel();
            keep.push(sender);
            spawn_blocking(move || consume(&jobs));
        }
        sleep(Duration::from_millis(100)).await;
        tokio::spawn(status());
        harness::ready(3).await;
        drop(keep);
    });
}

fn outer(handle: &Handle) -> u64 {
    thread::sleep(Duration::from_millis(100));
    harness::waits();
    handle.block_on(async { spawn_blocking(inner).await.unwrap() })
}

fn inner() -> u64 {
    7
}

fn pool_of_calls_that_make_calls() {
    service(4, || async {
        for _ in 0..4 {
            let handle = Handle::current();
            spawn_blocking(move || outer(&handle));
        }
        harness::ready(4).await;
    });
}

fn stores(lock: &Mutex<u64>, handle: &Handle) {
    let mut count = lock.lock().unwrap();
    *count += 1;
    thread::sleep(Duration::from_millis(200));
    harness::waits();
    let _ = handle.block_on(tokio::fs::write("/dev/null", "data"));
}

fn pool_behind_a_lock() {
    service(3, || async {
        let lock = Arc::new(Mutex::new(0));
        for _ in 0..3 {
            let (lock, handle) = (lock.clone(), Handle::current());
            spawn_blocking(move || stores(&lock, &handle));
        }
        harness::ready(1).await;
    });
}

fn pool_with_room() {
    service(4, || async {
        let mut keep = Vec::new();
        for _ in 0..3 {
            let (sender, jobs) = mpsc::channel();
            keep.push(sender);
            spawn_blocking(move || consume(&jobs));
        }
        tokio::spawn(async {
            loop {
                let _ = tokio::fs::read_to_string("/proc/self/status").await;
                sleep(Duration::from_millis(3)).await;
            }
        });
        harness::ready(3).await;
        drop(keep);
    });
}

fn pool_with_short_calls_and_a_long_queue() {
    service(2, || async {
        for _ in 0..100_000 {
            spawn_blocking(|| thread::sleep(Duration::from_millis(20)));
        }
        harness::waits();
        harness::ready(1).await;
    });
}

fn computes() -> u64 {
    let (end, mut number) = (Instant::now() + Duration::from_secs(3), 1_u64);
    while Instant::now() < end {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    number
}

fn pool_that_computes() {
    service(2, || async {
        for _ in 0..1000 {
            spawn_blocking(computes);
        }
        harness::waits();
        harness::ready(1).await;
    });
}

fn pool_of_calls_that_wait_for_a_short_time() {
    service(2, || async {
        let (sender, jobs) = mpsc::channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..100_000 {
            let jobs = jobs.clone();
            spawn_blocking(move || jobs.lock().unwrap().recv());
        }
        thread::spawn(move || {
            for number in 0_u64.. {
                thread::sleep(Duration::from_millis(50));
                let _ = sender.send(number);
            }
        });
        harness::waits();
        harness::ready(1).await;
    });
}
