//! The same primitives in programs that are healthy: something that is alive can wake the tasks.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use event_listener::Event;
use futures_intrusive::channel::shared as intrusive;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{self, Case, DAY, healthy};
use crate::unknown_primitives::{Gate, passes_all};

pub(crate) const CASES: &[Case] = &[
    healthy!(kanal_with_a_third_sender),
    healthy!(kanal_of_a_task_that_reads_a_socket),
    healthy!(events_that_a_thread_notifies),
    healthy!(event_of_main),
    healthy!(async_broadcast_of_a_ticker),
    healthy!(futures_intrusive_of_a_blocking_task),
    healthy!(tachyonix_of_main),
    healthy!(gates_that_a_thread_opens),
    healthy!(gate_in_a_static),
    healthy!(gate_that_is_leaked),
    healthy!(gate_behind_a_weak_pointer),
    healthy!(gate_behind_a_raw_pointer),
    healthy!(gate_and_a_socket_by_hand),
    healthy!(many_gates_of_one_task),
    healthy!(gate_in_a_callback),
];

async fn asks_kanal(other: kanal::AsyncSender<u32>, own: kanal::AsyncReceiver<u32>) {
    harness::waits();
    let received = own.recv().await;
    let _ = other.send(received.unwrap_or_default()).await;
}

/// It looks like a circle; but the third task can send to one of them.
async fn kanal_with_a_third_sender() {
    let (to_one, from_two) = kanal::bounded_async::<u32>(1);
    let (to_two, from_one) = kanal::bounded_async::<u32>(1);
    let third = to_one.clone();
    tokio::spawn(asks_kanal(to_two, from_two));
    tokio::spawn(asks_kanal(to_one, from_one));
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        let _ = third.send(1).await;
    });
    harness::ready(2).await;
}

async fn kanal_of_a_task_that_reads_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let server = listener.accept().await.unwrap();
    let (sender, receiver) = kanal::bounded_async::<u32>(1);
    tokio::spawn(async move {
        let byte = client.read_u8().await.unwrap_or_default();
        let _ = sender.send(u32::from(byte)).await;
    });
    for _ in 0..2 {
        let receiver = receiver.clone();
        tokio::spawn(async move {
            harness::waits();
            let _ = receiver.recv().await;
        });
    }
    drop(receiver);
    harness::ready(2).await;
    drop(server);
}

async fn listens(own: Arc<Event>, other: Arc<Event>) {
    let heard = own.listen();
    harness::waits();
    heard.await;
    other.notify(1);
}

async fn events_that_a_thread_notifies() {
    let (one, two) = (Arc::new(Event::new()), Arc::new(Event::new()));
    let of_thread = one.clone();
    thread::spawn(move || {
        thread::sleep(DAY);
        of_thread.notify(1);
    });
    tokio::spawn(listens(one.clone(), two.clone()));
    tokio::spawn(listens(two, one));
    harness::ready(2).await;
}

async fn event_of_main() {
    let (one, two) = (Arc::new(Event::new()), Arc::new(Event::new()));
    tokio::spawn(listens(one.clone(), two.clone()));
    tokio::spawn(listens(two.clone(), one));
    harness::ready(2).await;
    two.notify(1);
}

async fn async_broadcast_of_a_ticker() {
    let (sender, receiver) = async_broadcast::broadcast::<u32>(4);
    for _ in 0..3 {
        let mut receiver = receiver.clone();
        tokio::spawn(async move {
            harness::waits();
            let _ = receiver.recv().await;
        });
    }
    drop(receiver);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(DAY).await;
            let _ = sender.broadcast(1).await;
        }
    });
    harness::ready(3).await;
}

async fn futures_intrusive_of_a_blocking_task() {
    let (sender, receiver) = intrusive::channel::<u32>(4);
    tokio::task::spawn_blocking(move || {
        thread::sleep(DAY);
        let _ = sender.try_send(1);
    });
    for _ in 0..2 {
        let receiver = receiver.clone();
        tokio::spawn(async move {
            harness::waits();
            receiver.receive().await;
        });
    }
    drop(receiver);
    harness::ready(2).await;
}

async fn tachyonix_of_main() {
    let (sender, mut receiver) = tachyonix::channel::<u32>(4);
    tokio::spawn(async move {
        harness::waits();
        while receiver.recv().await.is_ok() {}
    });
    harness::ready(1).await;
    let _ = sender.send(1).await;
}

async fn passes(own: Gate, other: Gate) {
    harness::waits();
    own.passed().await;
    other.open();
}

async fn gates_that_a_thread_opens() {
    let (one, two) = (Gate::default(), Gate::default());
    let of_thread = one.clone();
    thread::spawn(move || {
        thread::sleep(DAY);
        of_thread.open();
    });
    tokio::spawn(passes(one.clone(), two.clone()));
    tokio::spawn(passes(two, one));
    harness::ready(2).await;
}

static GATES: Mutex<Vec<Gate>> = Mutex::new(Vec::new());
static LEAKED: OnceLock<&'static Gate> = OnceLock::new();

async fn gate_in_a_static() {
    let (one, two) = (Gate::default(), Gate::default());
    GATES.lock().unwrap().push(one.clone());
    tokio::spawn(passes(one.clone(), two.clone()));
    tokio::spawn(passes(two, one));
    harness::ready(2).await;
}

async fn gate_that_is_leaked() {
    let gate: &'static Gate = Box::leak(Box::default());
    LEAKED.set(gate).ok().unwrap();
    tokio::spawn(async move {
        harness::waits();
        gate.passed().await;
    });
    harness::ready(1).await;
}

/// A thread can make a strong pointer of its weak one.
async fn gate_behind_a_weak_pointer() {
    let gate = Arc::new(Gate::default());
    let weak: Weak<Gate> = Arc::downgrade(&gate);
    thread::spawn(move || {
        thread::sleep(DAY);
        weak.upgrade().iter().for_each(|gate| gate.open());
    });
    tokio::spawn(async move {
        harness::waits();
        gate.passed().await;
    });
    harness::ready(1).await;
}

/// A library written in C has the address, as user data of a callback.
async fn gate_behind_a_raw_pointer() {
    let gate = Arc::new(Gate::default());
    let user_data = Arc::into_raw(gate.clone()) as usize;
    tokio::spawn(async move {
        harness::waits();
        gate.passed().await;
    });
    harness::ready(1).await;
    std::hint::black_box(user_data);
}

/// One future polls a gate and a socket.
async fn gate_and_a_socket_by_hand() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let server = listener.accept().await.unwrap();
    tokio::spawn(async move {
        let mut passed = Box::pin(Gate::default().passed());
        harness::waits();
        std::future::poll_fn(|context| match client.poll_read_ready(context) {
            Poll::Pending => passed.as_mut().poll(context),
            Poll::Ready(_) => Poll::Ready(()),
        })
        .await;
    });
    harness::ready(1).await;
    drop(server);
}

async fn many_gates_of_one_task() {
    let gates: Vec<Gate> = (0..40).map(|_| Gate::default()).collect();
    let opens = gates.clone();
    tokio::spawn(async move {
        harness::waits();
        passes_all(gates).await;
    });
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        opens.iter().for_each(Gate::open);
    });
    harness::ready(1).await;
}

/// The callback belongs to a task that waits for a timer.
async fn gate_in_a_callback() {
    let (one, two) = (Gate::default(), Gate::default());
    let of_callback = one.clone();
    let callback: Box<dyn Fn() + Send + Sync> = Box::new(move || of_callback.open());
    tokio::spawn(passes(one.clone(), two.clone()));
    tokio::spawn(passes(two, one));
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        callback();
    });
    harness::ready(2).await;
}
