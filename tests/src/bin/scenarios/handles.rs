//! Healthy channels: something outside of the waiting tasks can still send, or close the channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use tokio::net::UdpSocket;
use tokio::sync::mpsc::{
    self, Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel,
};
use tokio::sync::{Barrier, Notify, broadcast, oneshot, watch};
use tokio::time::sleep;

use crate::harness::{self, Case, DAY, healthy};

pub(crate) const CASES: &[Case] = &[
    healthy!(hub_in_a_static),
    healthy!(hub_of_a_listener),
    healthy!(sender_of_a_thread),
    healthy!(sender_of_a_blocking_task),
    healthy!(sender_of_main),
    healthy!(weak_senders_in_a_hub),
    healthy!(websockets_that_can_be_cancelled),
    healthy!(notify_in_a_static),
    healthy!(actor_and_askers),
    healthy!(full_channel_of_a_slow_reader),
    healthy!(watch_fan_out),
    healthy!(broadcast_fan_out),
    healthy!(sender_in_a_queued_message),
];

type Sessions = Mutex<HashMap<u32, UnboundedSender<String>>>;

static SESSIONS: OnceLock<Arc<Sessions>> = OnceLock::new();

/// The hub that leaks in another case, in a static here.
async fn hub_in_a_static() {
    let hub = SESSIONS.get_or_init(Arc::default);
    sessions(hub);
    harness::ready(5).await;
}

fn sessions(hub: &Arc<Sessions>) {
    for number in 0..5 {
        let (sender, inbox) = unbounded_channel();
        hub.lock().unwrap().insert(number, sender);
        tokio::spawn(session(hub.clone(), inbox));
    }
}

async fn session(hub: Arc<Sessions>, mut inbox: UnboundedReceiver<String>) {
    harness::waits();
    while let Some(message) = inbox.recv().await {
        for sender in hub.lock().unwrap().values() {
            let _ = sender.send(message.clone());
        }
    }
}

/// The hub, and a task that forwards datagrams to all sessions.
async fn hub_of_a_listener() {
    let hub = Arc::new(Sessions::default());
    sessions(&hub);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 64];
        harness::waits();
        while let Ok(length) = socket.recv(&mut datagram).await {
            for sender in hub.lock().unwrap().values() {
                let _ = sender.send(String::from_utf8_lossy(&datagram[..length]).into_owned());
            }
        }
    });
    harness::ready(6).await;
}

async fn listens(mut inbox: Receiver<u32>) {
    harness::waits();
    while let Some(number) = inbox.recv().await {
        println!("{number}");
    }
}

async fn sender_of_a_thread() {
    let (sender, inbox) = channel(1);
    tokio::spawn(listens(inbox));
    thread::spawn(move || {
        thread::sleep(DAY);
        let _ = sender.blocking_send(1);
    });
    harness::ready(1).await;
}

async fn sender_of_a_blocking_task() {
    let (sender, inbox) = channel(1);
    tokio::spawn(listens(inbox));
    tokio::task::spawn_blocking(move || {
        thread::sleep(DAY);
        let _ = sender.blocking_send(1);
    });
    harness::ready(1).await;
}

async fn sender_of_main() {
    let (sender, inbox) = channel(1);
    tokio::spawn(listens(inbox));
    harness::ready(1).await;
    let _ = sender.send(1).await;
}

/// Tasks that hold senders to one another that do not keep a channel open, and main that does.
async fn weak_senders_in_a_hub() {
    let hub = Arc::new(Mutex::new(Vec::<mpsc::WeakSender<u32>>::new()));
    let mut strong = Vec::new();
    for _ in 0..5 {
        let (sender, mut inbox) = channel(1);
        hub.lock().unwrap().push(sender.downgrade());
        strong.push(sender);
        let hub = hub.clone();
        tokio::spawn(async move {
            harness::waits();
            while let Some(number) = inbox.recv().await {
                println!("{number} to {}", hub.lock().unwrap().len());
            }
        });
    }
    drop(hub);
    harness::ready(5).await;
    drop(strong);
}

/// Two tasks that hold one another's senders, and a way out.
async fn websockets_that_can_be_cancelled() {
    let (stop, stopped) = watch::channel(false);
    for _ in 0..10 {
        let (to_reader, from_writer) = channel(8);
        let (to_writer, from_reader) = channel(8);
        tokio::spawn(half(from_writer, to_writer, stopped.clone()));
        tokio::spawn(half(from_reader, to_reader, stopped.clone()));
    }
    harness::ready(20).await;
    let _ = stop.send(true);
}

async fn half(mut inbox: Receiver<String>, other: Sender<String>, mut stopped: watch::Receiver<bool>) {
    harness::waits();
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            message = inbox.recv() => match message {
                Some(message) => drop(other.send(message).await),
                None => return,
            },
        }
    }
}

static SHUTDOWN: Notify = Notify::const_new();

async fn notify_in_a_static() {
    for _ in 0..5 {
        tokio::spawn(async {
            harness::waits();
            SHUTDOWN.notified().await;
        });
    }
    harness::ready(5).await;
}

/// Each asker waits for a reply. The actor holds the senders of the replies, and waits for a timer.
async fn actor_and_askers() {
    let (questions, mut asked) = channel::<oneshot::Sender<u32>>(16);
    tokio::spawn(async move {
        while let Some(reply) = asked.recv().await {
            harness::waits();
            sleep(DAY).await;
            let _ = reply.send(1);
        }
    });
    for _ in 0..8 {
        tokio::spawn(asks(questions.clone()));
    }
    drop(questions);
    harness::ready(9).await;
}

async fn asks(questions: Sender<oneshot::Sender<u32>>) {
    let (reply, answer) = oneshot::channel();
    let _ = questions.send(reply).await;
    harness::waits();
    let _ = answer.await;
}

async fn full_channel_of_a_slow_reader() {
    let (sender, mut inbox) = channel::<u32>(1);
    tokio::spawn(async move {
        harness::waits();
        sleep(DAY).await;
        let _ = inbox.recv().await;
    });
    for number in 0..10 {
        tokio::spawn(sends(sender.clone(), number));
    }
    drop(sender);
    harness::ready(11).await;
}

async fn sends(sender: Sender<u32>, number: u32) {
    harness::waits();
    let _ = sender.send(number).await;
    let _ = sender.send(number).await;
}

async fn watch_fan_out() {
    let (settings, changes) = watch::channel(0);
    for _ in 0..100 {
        let mut changes = changes.clone();
        tokio::spawn(async move {
            harness::waits();
            while changes.changed().await.is_ok() {}
        });
    }
    tokio::spawn(async move {
        harness::waits();
        sleep(DAY).await;
        let _ = settings.send(1);
    });
    harness::ready(101).await;
}

async fn broadcast_fan_out() {
    let (news, _) = broadcast::channel::<u32>(16);
    for _ in 0..100 {
        let mut inbox = news.subscribe();
        tokio::spawn(async move {
            harness::waits();
            while inbox.recv().await.is_ok() {}
        });
    }
    harness::ready(100).await;
    let _ = news.send(1);
}

/// The sender of a reply is in a channel's buffer, while the task that will receive it waits for a timer.
async fn sender_in_a_queued_message() {
    let (questions, mut asked) = channel::<oneshot::Sender<u32>>(16);
    let queued = Arc::new(Barrier::new(2));
    let seen = queued.clone();
    tokio::spawn(async move {
        seen.wait().await;
        harness::waits();
        sleep(DAY).await;
        while let Some(reply) = asked.recv().await {
            let _ = reply.send(1);
        }
    });
    tokio::spawn(async move {
        let (reply, answer) = oneshot::channel();
        let _ = questions.send(reply).await;
        queued.wait().await;
        harness::waits();
        let _ = answer.await;
    });
    harness::ready(2).await;
}
