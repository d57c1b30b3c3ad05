//! Tasks that nothing will wake, futures that are no longer polled, groups that grow, limits that are reached.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{Mutex, oneshot};

use crate::harness::{self, Case, DAY, faulty};

pub(crate) const CASES: &[Case] = &[
    faulty!(future_that_is_not_polled: "futurelock"),
    faulty!(waker_dropped: "unwakeable_task"),
    faulty!(more_and_more_tasks: "growing_group", query "?seconds=2"),
    faulty!(too_many_sockets: "file_descriptors"),
];

/// The case of Oxide's RFD 609.
async fn future_that_is_not_polled() {
    let lock = Arc::new(Mutex::new(0));
    let guard = lock.clone().lock_owned().await;
    let (queued, wait) = oneshot::channel();
    tokio::spawn(does_one_or_the_other(lock, queued));
    let _ = wait.await;
    // The lock goes to the first in the queue: the future that is no longer polled.
    drop(guard);
    harness::ready(1).await;
}

async fn does_one_or_the_other(lock: Arc<Mutex<i32>>, queued: oneshot::Sender<()>) {
    let mut first = pin!(increments(lock.clone()));
    tokio::select! {
        biased;
        () = &mut first => {}
        () = std::future::ready(()) => {
            let _ = queued.send(());
            harness::affected("does_one_or_the_other");
            *lock.lock().await += 1;
        }
    }
}

async fn increments(lock: Arc<Mutex<i32>>) {
    *lock.lock().await += 1;
}

async fn waker_dropped() {
    tokio::spawn(waits_for_a_future_without_waker());
    harness::ready(1).await;
}

async fn waits_for_a_future_without_waker() {
    let forgetful = poll_fn(|_| Poll::<()>::Pending);
    harness::affected("waits_for_a_future_without_waker");
    forgetful.await;
}

async fn more_and_more_tasks() {
    tokio::spawn(accepts());
    harness::ready(1).await;
}

async fn accepts() {
    harness::waits();
    loop {
        tokio::spawn(lingers());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn lingers() {
    tokio::time::sleep(DAY).await;
}

async fn too_many_sockets() {
    const LIMIT: usize = 512;
    crate::services::limit_files(LIMIT);
    // The program has a dozen other files open; delouse needs a few, and leaves some to the program.
    let sockets = LIMIT * 89 / 100;
    for _ in 0..sockets {
        tokio::spawn(listens());
    }
    harness::ready(sockets).await;
}

async fn listens() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut datagram = [0; 16];
    harness::waits();
    let _ = socket.recv(&mut datagram).await;
}
