//! Pools whose objects are asked for by calls that block the thread, and tasks that wait for a cancellation.

use std::io;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::{self, Case, DAY, faulty, healthy, observed};

pub(crate) const CASES: &[Case] = &[
    observed!(two_connections_of_r2d2_for_each: "blocked_threads", says "object of a pool", "blocking_pools::audits at"),
    observed!(connection_of_r2d2_across_an_await: "blocked_threads", says "object of a pool", "blocking_pools::counts at"),
    healthy!(connections_of_r2d2_that_come_back),
    faulty!(workers_that_are_cancelled_too_late: "deadlock", says "can cancel"),
    healthy!(workers_that_a_signal_cancels),
];

struct Manager;

impl r2d2::ManageConnection for Manager {
    type Connection = u8;
    type Error = io::Error;

    fn connect(&self) -> io::Result<u8> {
        Ok(0)
    }

    fn is_valid(&self, _: &mut u8) -> io::Result<()> {
        Ok(())
    }

    fn has_broken(&self, _: &mut u8) -> bool {
        false
    }
}

type Pool = r2d2::Pool<Manager>;

fn pool(size: u32) -> Pool {
    r2d2::Pool::builder().max_size(size).connection_timeout(DAY).build(Manager).unwrap()
}

fn audits(pool: &Pool) {
    harness::waits();
    drop(pool.get().unwrap());
}

fn transfers(pool: &Pool, both: &Barrier) {
    let outer = pool.get().unwrap();
    both.wait();
    audits(pool);
    drop(outer);
}

async fn two_connections_of_r2d2_for_each() {
    let (pool, both) = (pool(2), Arc::new(Barrier::new(2)));
    for _ in 0..2 {
        let (pool, both) = (pool.clone(), both.clone());
        tokio::task::spawn_blocking(move || transfers(&pool, &both));
    }
    drop(pool);
    harness::ready(2).await;
}

fn counts(pool: &Pool) {
    drop(pool.get().unwrap());
}

async fn reports(pool: Pool) {
    let outer = pool.get().unwrap();
    let inner = tokio::task::spawn_blocking(move || counts(&pool));
    harness::waits();
    inner.await.unwrap();
    drop(outer);
}

async fn connection_of_r2d2_across_an_await() {
    tokio::spawn(reports(pool(1)));
    harness::ready(1).await;
}

async fn connections_of_r2d2_that_come_back() {
    let pool = pool(2);
    for _ in 0..4 {
        let pool = pool.clone();
        tokio::task::spawn_blocking(move || {
            loop {
                let connection = pool.get().unwrap();
                thread::sleep(Duration::from_millis(250));
                drop(connection);
            }
        });
    }
    harness::waits();
    harness::ready(1).await;
}

async fn works(stop: CancellationToken) {
    harness::affected("works");
    stop.cancelled().await;
}

async fn supervises() {
    let stop = CancellationToken::new();
    let mut workers = JoinSet::new();
    for _ in 0..3 {
        workers.spawn(works(stop.child_token()));
    }
    while workers.join_next().await.is_some() {}
    stop.cancel();
}

async fn workers_that_are_cancelled_too_late() {
    tokio::spawn(supervises());
    harness::ready(3).await;
}

async fn ends_with(stop: CancellationToken) {
    harness::waits();
    stop.cancelled().await;
}

async fn workers_that_a_signal_cancels() {
    let stop = CancellationToken::new();
    let mut workers = JoinSet::new();
    for _ in 0..3 {
        workers.spawn(ends_with(stop.child_token()));
    }
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    tokio::spawn(async move { while workers.join_next().await.is_some() {} });
    harness::ready(3).await;
}
