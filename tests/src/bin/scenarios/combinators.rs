//! Futures that are kept in a stream whose own combinator does not poll them while it runs the body for an item.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, FuturesUnordered};
use futures::{SinkExt, StreamExt, TryStreamExt};
use tokio::sync::{Mutex, Semaphore, mpsc};

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(permits_of_buffer_unordered: "futurelock", says "does not poll", "select_item"),
    faulty!(lock_of_buffered_in_fold: "futurelock"),
    faulty!(lock_of_buffered_in_then: "futurelock"),
    faulty!(permits_in_try_for_each: "futurelock"),
    faulty!(lock_of_unordered_in_a_loop: "futurelock"),
    faulty!(lock_of_a_filter: "futurelock"),
    faulty!(futures_channel_of_its_own_select: "deadlock"),
    faulty!(tokio_channel_of_its_own_select: "deadlock"),
    faulty!(flume_channels_in_a_ring: "deadlock"),
    healthy!(flume_with_a_receiver_that_is_alive),
    healthy!(permits_of_buffer_unordered_with_a_spare),
    healthy!(permits_in_for_each_concurrent),
    healthy!(lock_that_the_body_waits_for_elsewhere),
    healthy!(lock_of_futures_that_are_polled),
    healthy!(filter_that_waits_for_the_clock),
    healthy!(channel_of_another_select),
];

async fn select_item(n: u32, database: Arc<Semaphore>) -> u32 {
    let _permit = database.acquire().await.unwrap();
    tokio::time::sleep(Duration::from_millis(10 + 50 * u64::from(n))).await;
    n
}

async fn process(database: Arc<Semaphore>) {
    harness::affected("process");
    let _permit = database.acquire().await.unwrap();
}

/// The first item is ready, and its body waits for a permit: the others have them, and are not polled.
async fn permits_of_buffer_unordered() {
    let database = Arc::new(Semaphore::new(3));
    tokio::spawn(async move {
        stream::iter(0..20)
            .map(|n| select_item(n, database.clone()))
            .buffer_unordered(5)
            .for_each(|_| process(database.clone()))
            .await;
    });
    harness::ready(1).await;
}

async fn takes(lock: Arc<Mutex<u32>>, first: bool) -> u32 {
    if first {
        return 0;
    }
    let mut guard = lock.lock().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    *guard += 1;
    *guard
}

async fn adds(sum: u32, lock: Arc<Mutex<u32>>) -> u32 {
    tokio::time::sleep(Duration::from_millis(20)).await;
    harness::affected("adds");
    let guard = lock.lock().await;
    sum + *guard
}

async fn lock_of_buffered_in_fold() {
    let lock = Arc::new(Mutex::new(0));
    tokio::spawn(async move {
        let items = stream::iter(0..6).map(|n| takes(lock.clone(), n == 0)).buffered(3);
        items.fold(0, |sum, _| adds(sum, lock.clone())).await;
    });
    harness::ready(1).await;
}

async fn lock_of_buffered_in_then() {
    let lock = Arc::new(Mutex::new(0));
    tokio::spawn(async move {
        let items = stream::iter(0..6).map(|n| takes(lock.clone(), n == 0)).buffered(3);
        let mut sums = std::pin::pin!(items.then(|item| adds(item, lock.clone())));
        while sums.next().await.is_some() {}
    });
    harness::ready(1).await;
}

async fn permits_in_try_for_each() {
    let database = Arc::new(Semaphore::new(3));
    tokio::spawn(async move {
        let items = stream::iter(0..20).map(|n| select_item(n, database.clone())).buffer_unordered(5);
        let body = |_| async {
            process(database.clone()).await;
            Ok(())
        };
        let _: Result<(), ()> = items.map(Ok).try_for_each(body).await;
    });
    harness::ready(1).await;
}

/// The loop is written by hand: its body does not poll the stream.
async fn lock_of_unordered_in_a_loop() {
    let lock = Arc::new(Mutex::new(0));
    tokio::spawn(async move {
        let mut all: FuturesUnordered<_> = (0..6).map(|n| takes(lock.clone(), n == 5)).collect();
        while let Some(item) = all.next().await {
            adds(item, lock.clone()).await;
        }
    });
    harness::ready(1).await;
}

async fn lock_of_a_filter() {
    let lock = Arc::new(Mutex::new(0));
    tokio::spawn(async move {
        let items = stream::iter(0..6).map(|n| takes(lock.clone(), n == 0)).buffered(3);
        let odd = items.filter(|item| {
            let (item, lock) = (*item, lock.clone());
            async move { adds(item, lock).await % 2 == 1 }
        });
        odd.collect::<Vec<_>>().await;
    });
    harness::ready(1).await;
}

/// The other branch of the same loop would make room.
async fn futures_channel_of_its_own_select() {
    let (imports, blocks) = futures::channel::mpsc::unbounded::<u32>();
    for n in 0..10 {
        imports.unbounded_send(n).unwrap();
    }
    tokio::spawn(feeds(blocks));
    harness::ready(1).await;
    drop(imports);
}

async fn feeds(mut blocks: futures::channel::mpsc::UnboundedReceiver<u32>) {
    let (mut sender, mut receiver) = futures::channel::mpsc::channel::<u32>(2);
    let mut fed = 0;
    loop {
        tokio::select! {
            biased;
            Some(block) = blocks.next() => {
                fed += 1;
                if fed == 4 {
                    feeds_one(&mut sender, block).await;
                } else {
                    sender.feed(block).await.unwrap();
                }
            }
            Some(_) = receiver.next() => {}
        }
    }
}

async fn feeds_one(sender: &mut futures::channel::mpsc::Sender<u32>, block: u32) {
    harness::affected("feeds_one");
    sender.feed(block).await.unwrap();
}

async fn tokio_channel_of_its_own_select() {
    let (imports, blocks) = mpsc::unbounded_channel::<u32>();
    for n in 0..10 {
        imports.send(n).unwrap();
    }
    tokio::spawn(sends(blocks));
    harness::ready(1).await;
    drop(imports);
}

async fn sends(mut blocks: mpsc::UnboundedReceiver<u32>) {
    let (sender, mut receiver) = mpsc::channel::<u32>(2);
    loop {
        tokio::select! {
            biased;
            Some(block) = blocks.recv() => {
                if sender.capacity() == 0 {
                    sends_one(&sender, block).await;
                } else {
                    sender.send(block).await.unwrap();
                }
            }
            Some(_) = receiver.recv() => {}
        }
    }
}

async fn sends_one(sender: &mpsc::Sender<u32>, block: u32) {
    harness::affected("sends_one");
    sender.send(block).await.unwrap();
}

/// Another task has a permit, and will give it back.
async fn permits_of_buffer_unordered_with_a_spare() {
    let database = Arc::new(Semaphore::new(4));
    let other = database.clone();
    tokio::spawn(async move {
        let _permit = other.acquire().await.unwrap();
        tokio::time::sleep(DAY).await;
    });
    tokio::task::yield_now().await;
    tokio::spawn(async move {
        stream::iter(0..20)
            .map(|n| select_item(n, database.clone()))
            .buffer_unordered(5)
            .for_each(|_| async {
                harness::waits();
                let _permit = database.acquire().await.unwrap();
            })
            .await;
    });
    harness::ready(1).await;
}

/// `for_each_concurrent` polls the stream beside the bodies.
async fn permits_in_for_each_concurrent() {
    let database = Arc::new(Semaphore::new(3));
    tokio::spawn(async move {
        stream::iter(0..20)
            .map(|n| holds_long(n, database.clone()))
            .buffer_unordered(5)
            .for_each_concurrent(None, |_| async {
                harness::waits();
                let _permit = database.acquire().await.unwrap();
            })
            .await;
    });
    harness::ready(1).await;
}

async fn holds_long(n: u32, database: Arc<Semaphore>) -> u32 {
    if n > 0 {
        let _permit = database.acquire().await.unwrap();
        tokio::time::sleep(DAY).await;
    }
    n
}

/// The futures that are not polled have nothing that the body waits for.
async fn lock_that_the_body_waits_for_elsewhere() {
    let (own, other) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let held = other.clone().lock_owned().await;
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        drop(held);
    });
    tokio::spawn(async move {
        let items = stream::iter(0..6).map(|n| takes(own.clone(), n == 0)).buffered(3);
        items
            .for_each(|_| async {
                harness::waits();
                drop(other.lock().await);
            })
            .await;
    });
    harness::ready(1).await;
}

/// The stream itself waits: all of its futures are polled.
async fn lock_of_futures_that_are_polled() {
    let lock = Arc::new(Mutex::new(0));
    tokio::spawn(async move {
        let items = stream::iter(0..4).map(|_| keeps(lock.clone())).buffer_unordered(4);
        items.for_each(|_| async { drop(lock.lock().await) }).await;
    });
    harness::ready(4).await;
}

async fn keeps(lock: Arc<Mutex<u32>>) {
    harness::waits();
    let guard = lock.lock().await;
    tokio::time::sleep(DAY).await;
    drop(guard);
}

async fn filter_that_waits_for_the_clock() {
    let lock = Arc::new(Mutex::new(0));
    tokio::spawn(async move {
        let items = stream::iter(0..6).map(|n| takes(lock.clone(), n == 0)).buffered(3);
        let slow = items.filter(|_| async {
            harness::waits();
            tokio::time::sleep(DAY).await;
            true
        });
        slow.collect::<Vec<_>>().await;
    });
    harness::ready(1).await;
}

/// Its channel is full; but another task receives.
async fn channel_of_another_select() {
    let (sender, mut receiver) = mpsc::channel::<u32>(1);
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        while receiver.recv().await.is_some() {}
    });
    tokio::spawn(async move {
        for n in 0..2 {
            harness::waits();
            sender.send(n).await.unwrap();
        }
    });
    harness::ready(2).await;
}

async fn flume_channels_in_a_ring() {
    let (to_one, of_one) = flume::bounded::<u32>(1);
    let (to_two, of_two) = flume::bounded::<u32>(1);
    tokio::spawn(fills_flume(to_two, of_one));
    tokio::spawn(fills_flume(to_one, of_two));
    harness::ready(2).await;
}

async fn fills_flume(other: flume::Sender<u32>, own: flume::Receiver<u32>) {
    other.send_async(1).await.unwrap();
    tokio::task::yield_now().await;
    harness::affected("fills_flume");
    other.send_async(2).await.unwrap();
    let _ = own.recv_async().await;
}

/// Both channels are full; but a third task takes from one of them.
async fn flume_with_a_receiver_that_is_alive() {
    let (to_one, of_one) = flume::bounded::<u32>(1);
    let (to_two, of_two) = flume::bounded::<u32>(1);
    let third = of_one.clone();
    for (other, own) in [(to_two, of_one), (to_one, of_two)] {
        tokio::spawn(async move {
            other.send_async(1).await.unwrap();
            harness::waits();
            other.send_async(2).await.unwrap();
            let _ = own.recv_async().await;
        });
    }
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        while third.recv_async().await.is_ok() {}
    });
    harness::ready(2).await;
}
