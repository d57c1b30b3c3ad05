//! Tasks that keep one another alive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(one_websocket: "leaked_tasks"),
    faulty!(ten_websockets: "leaked_tasks"),
    faulty!(ten_thousand_websockets: "leaked_tasks"),
    faulty!(sender_in_a_hub: "leaked_tasks"),
    faulty!(reply_that_its_asker_holds: "leaked_tasks"),
    faulty!(permits_forgotten: "leaked_tasks"),
    faulty!(main_that_hears_only_itself: "leaked_tasks"),
    healthy!(main_that_hears_from_a_thread),
    healthy!(main_that_is_busy),
];

/// The sender that is dropped too late.
async fn main_that_hears_only_itself() {
    tokio::spawn(harness::ready(1));
    let (sender, mut receiver) = channel::<u8>(1);
    harness::affected("main_that_hears_only_itself");
    while receiver.recv().await.is_some() {}
    drop(sender);
}

async fn main_that_hears_from_a_thread() {
    tokio::spawn(harness::ready(1));
    let (sender, mut receiver) = channel::<u8>(1);
    std::thread::spawn(move || {
        std::thread::sleep(DAY);
        drop(sender);
    });
    harness::waits();
    let _ = receiver.recv().await;
}

/// The wait for the message is over: the main future holds the last sender now, and will send.
async fn main_that_is_busy() {
    tokio::spawn(harness::ready(1));
    let (sender, mut receiver) = channel::<u8>(1);
    let first = sender.clone();
    tokio::spawn(async move { first.send(1).await });
    let _ = receiver.recv().await;
    harness::waits();
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(tokio::time::sleep(DAY)));
    let _ = sender.send(2).await;
}

async fn one_websocket() {
    websockets(1).await;
}

async fn ten_websockets() {
    websockets(10).await;
}

async fn ten_thousand_websockets() {
    websockets(10_000).await;
}

/// Connections that ended long ago: each of the two tasks of a connection holds the sender that the other one waits for.
async fn websockets(connections: usize) {
    for _ in 0..connections {
        let (to_reader, from_writer) = channel(8);
        let (to_writer, from_reader) = channel(8);
        tokio::spawn(read_half(from_writer, to_writer));
        tokio::spawn(write_half(from_reader, to_reader));
    }
    harness::ready(2 * connections).await;
}

async fn read_half(mut replies: Receiver<String>, requests: Sender<String>) {
    harness::affected("read_half");
    while let Some(reply) = replies.recv().await {
        if requests.send(reply).await.is_err() {
            return;
        }
    }
}

async fn write_half(mut requests: Receiver<String>, replies: Sender<String>) {
    harness::affected("write_half");
    while let Some(request) = requests.recv().await {
        if replies.send(request).await.is_err() {
            return;
        }
    }
}

/// The senders of all sessions, by number.
#[derive(Default)]
struct Hub {
    sessions: Mutex<HashMap<u32, UnboundedSender<String>>>,
}

async fn sender_in_a_hub() {
    open_sessions();
    harness::ready(5).await;
}

fn open_sessions() {
    let hub = Arc::new(Hub::default());
    for number in 0..5 {
        let (sender, inbox) = unbounded_channel();
        hub.sessions.lock().unwrap().insert(number, sender);
        tokio::spawn(session(number, hub.clone(), inbox));
    }
}

async fn session(number: u32, hub: Arc<Hub>, mut inbox: UnboundedReceiver<String>) {
    harness::affected("session");
    while let Some(message) = inbox.recv().await {
        for (other, sender) in &*hub.sessions.lock().unwrap() {
            if *other != number {
                let _ = sender.send(message.clone());
            }
        }
    }
}

async fn reply_that_its_asker_holds() {
    tokio::spawn(asks());
    harness::ready(1).await;
}

/// Should have passed the sender on.
async fn asks() {
    let (reply, answer) = oneshot::channel::<u32>();
    harness::affected("asks");
    let answer = answer.await;
    drop(reply);
    println!("{answer:?}");
}

async fn permits_forgotten() {
    start_using_up(&Arc::new(Semaphore::new(2)));
    harness::ready(2).await;
}

fn start_using_up(permits: &Arc<Semaphore>) {
    for _ in 0..2 {
        tokio::spawn(uses_up(permits.clone()));
    }
}

/// Forgets a permit in each iteration.
async fn uses_up(permits: Arc<Semaphore>) {
    while permits.available_permits() > 0 {
        if let Ok(permit) = permits.try_acquire() {
            permit.forget();
        }
    }
    harness::affected("uses_up");
    let _permit = permits.acquire().await;
}
