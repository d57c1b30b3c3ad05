//! More programs with something to look at: permits that nothing has, tasks that yield for ever, children that wait for us,
//! results that nothing takes; and their healthy twins.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use crate::harness::{self, Case, DAY, healthy, observed};

pub(crate) const CASES: &[Case] = &[
    observed!(more_permits_than_there_are: "no_permits", says "for 5 permits of a semaphore"),
    observed!(forgotten_permits: "no_permits", says "0 are free, and no task was found that holds one"),
    healthy!(permits_that_come_back),
    observed!(yields_until_a_flag_is_set: "busy"),
    healthy!(yields_now_and_then),
    observed!(child_that_nothing_reads: "blocked_child", says "waits until something reads from a pipe"),
    healthy!(child_that_is_read),
    observed!(results_that_nothing_takes: "finished_tasks", says "250 tasks of `"),
    healthy!(results_that_are_taken),
];

async fn more_permits_than_there_are() {
    let permits = Arc::new(Semaphore::new(4));
    tokio::spawn(takes(permits.clone(), 5));
    harness::ready(1).await;
}

async fn takes(permits: Arc<Semaphore>, count: u32) {
    harness::affected("takes");
    let _permits = permits.acquire_many(count).await;
}

/// Each request takes a permit and forgets it where it fails.
async fn forgotten_permits() {
    let permits = Arc::new(Semaphore::new(2));
    for _ in 0..2 {
        permits.acquire().await.unwrap().forget();
    }
    for _ in 0..3 {
        tokio::spawn(takes(permits.clone(), 1));
    }
    harness::ready(3).await;
}

async fn permits_that_come_back() {
    let permits = Arc::new(Semaphore::new(4));
    let theirs = permits.clone();
    tokio::spawn(async move {
        let permit = theirs.acquire().await;
        sleep(DAY).await;
        drop(permit);
    });
    sleep(Duration::from_millis(100)).await;
    harness::waits();
    tokio::spawn(async move {
        let _permits = permits.acquire_many(4).await;
    });
    harness::ready(1).await;
}

static FLAG: AtomicBool = AtomicBool::new(false);

async fn yields_until_a_flag_is_set() {
    tokio::spawn(waits_for_the_flag());
    harness::ready(1).await;
}

async fn waits_for_the_flag() {
    harness::waits();
    while !FLAG.load(Ordering::Relaxed) {
        yield_now().await;
    }
}

async fn yields_now_and_then() {
    harness::waits();
    tokio::spawn(async {
        loop {
            yield_now().await;
            sleep(Duration::from_millis(5)).await;
        }
    });
    harness::ready(1).await;
}

async fn child_that_nothing_reads() {
    tokio::spawn(runs());
    harness::ready(1).await;
}

async fn runs() {
    let mut child = Command::new("head")
        .args(["-c", "1000000", "/dev/zero"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    harness::affected("runs");
    child.wait().await.unwrap();
}

async fn child_that_is_read() {
    harness::waits();
    tokio::spawn(async {
        let command = "while sleep 0.05; do head -c 1000 /dev/zero || exit; done";
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::sink()).await });
        child.wait().await
    });
    harness::ready(1).await;
}

async fn results_that_nothing_takes() {
    let mut set = JoinSet::new();
    for number in 0..250 {
        set.spawn(async move { vec![number; 100] });
    }
    harness::waits();
    harness::ready(1).await;
    drop(set);
}

async fn results_that_are_taken() {
    harness::waits();
    tokio::spawn(async {
        let mut set = JoinSet::new();
        loop {
            for number in 0..50 {
                set.spawn(async move { vec![number; 100] });
            }
            while set.join_next().await.is_some() {}
            sleep(Duration::from_millis(20)).await;
        }
    });
    harness::ready(1).await;
}
