//! Finished tasks whose results nothing takes, and those that are taken.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::{self, Case, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(set_that_is_never_drained: "finished_tasks", says "finished.rs:42", "finished::job", "handles in `jobs`", "finished::never_drains", query "?seconds=2"),
    faulty!(handles_that_are_kept: "finished_tasks", says "finished.rs:55", "finished::job", "handles in `handles`", "finished::keeps_handles", query "?seconds=2"),
    healthy!(set_that_is_drained, query "?seconds=2"),
    healthy!(handles_that_are_joined_in_order, query "?seconds=2"),
    healthy!(tasks_without_handles, query "?seconds=2"),
];

async fn job(n: usize) -> Vec<u8> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    vec![n as u8; 64]
}

fn requests() -> mpsc::Receiver<usize> {
    let (sender, requests) = mpsc::channel(16);
    tokio::spawn(async move {
        for n in 0.. {
            if sender.send(n).await.is_err() {
                return;
            }
            if n == 200 {
                harness::waits();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    requests
}

async fn never_drains(mut requests: mpsc::Receiver<usize>) {
    let mut jobs = JoinSet::new();
    while let Some(request) = requests.recv().await {
        jobs.spawn(job(request));
    }
    while jobs.join_next().await.is_some() {}
}

async fn set_that_is_never_drained() {
    tokio::spawn(never_drains(requests()));
    harness::ready(1).await;
}

async fn keeps_handles(mut requests: mpsc::Receiver<usize>) {
    let mut handles: Vec<JoinHandle<Vec<u8>>> = Vec::new();
    while let Some(request) = requests.recv().await {
        handles.push(tokio::spawn(job(request)));
    }
    for handle in handles {
        let _ = handle.await;
    }
}

async fn handles_that_are_kept() {
    tokio::spawn(keeps_handles(requests()));
    harness::ready(1).await;
}

async fn drains(mut requests: mpsc::Receiver<usize>) {
    let mut jobs = JoinSet::new();
    loop {
        tokio::select! {
            Some(request) = requests.recv() => { jobs.spawn(job(request)); }
            Some(_) = jobs.join_next() => {}
        }
    }
}

async fn set_that_is_drained() {
    tokio::spawn(drains(requests()));
    harness::ready(1).await;
}

/// Finished tasks wait for their turn: none of them for long.
async fn joins_in_order() {
    let mut handles = std::collections::VecDeque::new();
    for n in 0.. {
        handles.push_back(tokio::spawn(job(n)));
        if handles.len() > 500 {
            for _ in 0..2 {
                let _ = handles.pop_front().unwrap().await;
            }
        }
        if n == 600 {
            harness::waits();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn handles_that_are_joined_in_order() {
    tokio::spawn(joins_in_order());
    harness::ready(1).await;
}

async fn tasks_without_handles() {
    let mut requests = requests();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            tokio::spawn(job(request));
        }
    });
    harness::ready(1).await;
}
