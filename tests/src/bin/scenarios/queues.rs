//! What is in the queue of a channel belongs to its receiver: answers that wait there come when the receiver reads on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(actors_that_ask_each_other: "deadlock", says "wait for each other"),
    faulty!(three_actors_in_a_ring: "deadlock"),
    faulty!(futures_actors_that_ask_each_other: "deadlock"),
    faulty!(actor_that_asks_itself: "deadlock"),
    healthy!(actor_that_is_slow),
    healthy!(actor_that_asks_a_slow_one),
    healthy!(actors_that_ask_each_other_in_turn),
    healthy!(hand_written_receiver),
];

enum Message {
    /// Ask the other actor, then answer.
    Forward(oneshot::Sender<u32>),
    /// Answer.
    Get(oneshot::Sender<u32>),
}

/// Asks `next` while it handles a message, so that it reads no other one meanwhile.
async fn actor(mut inbox: mpsc::Receiver<Message>, next: mpsc::Sender<Message>) {
    while let Some(message) = inbox.recv().await {
        match message {
            Message::Get(answer) => {
                let _closed = answer.send(1);
            }
            Message::Forward(answer) => {
                let value = ask(&next).await;
                let _closed = answer.send(value);
            }
        }
    }
}

async fn ask(next: &mpsc::Sender<Message>) -> u32 {
    let (answer, answered) = oneshot::channel();
    // All of them have begun before one of them asks.
    sleep(Duration::from_millis(300)).await;
    next.send(Message::Get(answer)).await.ok().unwrap();
    harness::affected("ask");
    answered.await.unwrap()
}

async fn client(to: mpsc::Sender<Message>) {
    let (answer, answered) = oneshot::channel();
    to.send(Message::Forward(answer)).await.ok().unwrap();
    drop(to);
    drop(answered.await);
}

async fn actors_that_ask_each_other() {
    ring(2).await;
}

async fn three_actors_in_a_ring() {
    ring(3).await;
}

async fn actor_that_asks_itself() {
    ring(1).await;
}

async fn ring(size: usize) {
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..size).map(|_| mpsc::channel(8)).unzip();
    for (number, inbox) in inboxes.into_iter().enumerate() {
        tokio::spawn(actor(inbox, senders[(number + 1) % size].clone()));
    }
    for to in senders {
        tokio::spawn(client(to));
    }
    harness::ready(size).await;
}

/// The same through the channels of another crate.
async fn futures_actors_that_ask_each_other() {
    use futures::channel::mpsc;
    let (to_one, inbox_of_one) = mpsc::channel(8);
    let (to_two, inbox_of_two) = mpsc::channel(8);
    tokio::spawn(futures_actor(inbox_of_one, to_two));
    tokio::spawn(futures_actor(inbox_of_two, to_one));
    harness::ready(2).await;
}

type Request = futures::channel::oneshot::Sender<u32>;

async fn futures_actor(
    mut inbox: futures::channel::mpsc::Receiver<Request>,
    mut next: futures::channel::mpsc::Sender<Request>,
) {
    use futures::{SinkExt as _, StreamExt as _};
    loop {
        let (answer, answered) = futures::channel::oneshot::channel();
        next.send(answer).await.unwrap();
        harness::affected("futures_actor");
        answered.await.unwrap();
        if let Some(request) = inbox.next().await {
            request.send(1).unwrap();
        }
    }
}

/// Its answers wait in its queue, and it will read on.
async fn actor_that_is_slow() {
    let (to, mut inbox) = mpsc::channel::<Message>(8);
    for _ in 0..3 {
        harness::waits();
        tokio::spawn(client(to.clone()));
    }
    drop(to);
    tokio::spawn(async move {
        while let Some(Message::Forward(answer) | Message::Get(answer)) = inbox.recv().await {
            sleep(DAY).await;
            let _closed = answer.send(1);
        }
    });
    harness::ready(3).await;
}

/// One waits for the other, which waits for a timer.
async fn actor_that_asks_a_slow_one() {
    let (to_slow, mut inbox) = mpsc::channel::<Message>(8);
    let (to, asking) = mpsc::channel(8);
    tokio::spawn(actor(asking, to_slow));
    tokio::spawn(client(to));
    tokio::spawn(async move {
        sleep(DAY).await;
        drop(inbox.recv().await);
    });
    harness::ready(1).await;
}

/// They wait for one another's messages, and a timer makes one of them ask.
async fn actors_that_ask_each_other_in_turn() {
    let (to_one, inbox_of_one) = mpsc::channel(8);
    let (to_two, inbox_of_two) = mpsc::channel(8);
    tokio::spawn(actor(inbox_of_one, to_two));
    tokio::spawn(actor(inbox_of_two, to_one.clone()));
    harness::waits();
    tokio::spawn(async move {
        loop {
            client(to_one.clone()).await;
            sleep(Duration::from_millis(10)).await;
        }
    });
    harness::ready(1).await;
}

/// A future of an unknown type, whose waker is in the channel: what sends wakes it.
struct NextMessage(mpsc::UnboundedReceiver<u32>);

impl Future for NextMessage {
    type Output = Option<u32>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_recv(context)
    }
}

async fn hand_written_receiver() {
    let (to, inbox) = mpsc::unbounded_channel();
    harness::waits();
    tokio::spawn(NextMessage(inbox));
    tokio::spawn(async move {
        sleep(DAY).await;
        to.send(1).unwrap();
    });
    harness::ready(1).await;
}
