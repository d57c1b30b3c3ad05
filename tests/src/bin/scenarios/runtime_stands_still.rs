//! Runtimes whose only thread blocks, and runtimes whose drop waits; with healthy ones that look like them.

use std::io::Read;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(own timers_behind_a_blocked_worker: "blocked_worker",
        says "nothing else waits for the I/O and timers of", "timers are overdue"),
    faulty!(own timers_behind_a_main_future: "blocked_worker",
        says "the main future has not yielded"),
    faulty!(own main_future_that_reads_a_channel: "deadlock" | "blocked_worker"),
    faulty!(own exit_behind_a_pipe: "shutdown", says "runtime_stands_still::asks at"),
    faulty!(own exit_behind_a_channel: "shutdown", says "runtime_stands_still::drains at"),
    faulty!(own exit_behind_a_lock: "shutdown", says "runtime_stands_still::flushes at"),
    healthy!(own exit_behind_a_computation),
    healthy!(own runtimes_that_come_and_go),
    healthy!(own timers_beside_short_computations),
];

/// A few timers, and a socket that is listened on.
async fn ticks() {
    for _ in 0..3 {
        tokio::spawn(async {
            loop {
                sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(async move {
        loop {
            let _ = listener.accept().await;
        }
    });
    sleep(Duration::from_millis(50)).await;
}

#[delouse::main(worker_threads = 1)]
async fn timers_behind_a_blocked_worker() {
    harness::ready_on_a_thread(1);
    ticks().await;
    tokio::spawn(async {
        sleep(Duration::from_millis(50)).await;
        // What was woken at the same time starts its next sleep first.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        harness::affected("timers_behind_a_blocked_worker");
        thread::sleep(DAY);
    });
    sleep(DAY).await;
}

#[delouse::main(flavor = "current_thread")]
async fn timers_behind_a_main_future() {
    harness::ready_on_a_thread(1);
    ticks().await;
    harness::affected("timers_behind_a_main_future");
    thread::sleep(DAY);
}

#[delouse::main(flavor = "current_thread")]
async fn main_future_that_reads_a_channel() {
    harness::ready_on_a_thread(1);
    ticks().await;
    let (sender, receiver) = mpsc::channel::<u64>();
    tokio::spawn(async move {
        sleep(Duration::from_millis(10)).await;
        let _ = sender.send(7);
    });
    harness::affected("main_future_that_reads_a_channel");
    let _ = receiver.recv();
}

fn asks(mut pipe: std::io::PipeReader) -> usize {
    let mut answer = [0];
    harness::waits();
    pipe.read(&mut answer).unwrap_or(0)
}

#[delouse::main(worker_threads = 2)]
async fn exit_behind_a_pipe() {
    harness::ready_on_a_thread(1);
    let (reader, writer) = std::io::pipe().unwrap();
    std::mem::forget(writer);
    let answer = spawn_blocking(move || asks(reader));
    let _ = tokio::time::timeout(Duration::from_millis(100), answer).await;
}

fn drains(jobs: &mpsc::Receiver<u64>) -> u64 {
    harness::waits();
    jobs.iter().sum()
}

fn exit_behind_a_channel() {
    let (sender, jobs) = mpsc::channel();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    harness::ready_on_a_thread(1);
    runtime.block_on(async {
        let _ = delouse::init();
        spawn_blocking(move || drains(&jobs));
        sleep(Duration::from_millis(50)).await;
    });
    drop(runtime);
    drop(sender);
}

fn flushes(log: &Mutex<u64>) {
    harness::waits();
    *log.lock().unwrap() += 1;
}

fn exit_behind_a_lock() {
    let log = Arc::new(Mutex::new(0));
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    harness::ready_on_a_thread(1);
    let own = log.lock().unwrap();
    let theirs = log.clone();
    runtime.block_on(async {
        let _ = delouse::init();
        spawn_blocking(move || flushes(&theirs));
        sleep(Duration::from_millis(50)).await;
    });
    drop(runtime);
    drop(own);
}

fn computes(time: Duration) -> u64 {
    let (end, mut number) = (Instant::now() + time, 1_u64);
    while Instant::now() < end {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    number
}

#[delouse::main(worker_threads = 2)]
async fn exit_behind_a_computation() {
    harness::ready_on_a_thread(1);
    spawn_blocking(|| {
        harness::waits();
        computes(DAY)
    });
    sleep(Duration::from_millis(50)).await;
}

#[delouse::main(worker_threads = 2)]
async fn runtimes_that_come_and_go() {
    harness::ready_on_a_thread(1);
    thread::spawn(|| {
        harness::waits();
        loop {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                spawn_blocking(|| thread::sleep(Duration::from_millis(60)));
                sleep(Duration::from_millis(20)).await;
            });
        }
    });
    ticks().await;
    sleep(DAY).await;
}

#[delouse::main(worker_threads = 1)]
async fn timers_beside_short_computations() {
    harness::ready_on_a_thread(1);
    ticks().await;
    tokio::spawn(async {
        harness::waits();
        loop {
            computes(Duration::from_millis(15));
            sleep(Duration::from_millis(5)).await;
        }
    });
    sleep(DAY).await;
}
