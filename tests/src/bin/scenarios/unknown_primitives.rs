//! Tasks that wait for one another through primitives that no table of delouse's names.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use event_listener::Event;
use futures::StreamExt;
use futures_intrusive::channel::shared as intrusive;
use tokio::sync::mpsc;

use crate::harness::{self, Case, faulty};

pub(crate) const CASES: &[Case] = &[
    faulty!(circle_of_kanal: "leaked_tasks", says "keep one another alive", "not certain: delouse does not know"),
    faulty!(circle_of_full_kanal: "leaked_tasks", says "`kanal::future::SendFuture"),
    faulty!(circle_of_events: "leaked_tasks"),
    faulty!(circle_of_async_broadcast: "leaked_tasks"),
    faulty!(circle_of_futures_intrusive: "leaked_tasks"),
    faulty!(circle_of_tachyonix: "leaked_tasks"),
    faulty!(circle_of_gates: "leaked_tasks", says "where their wakers are"),
    faulty!(gate_that_only_its_waiter_has: "leaked_tasks", says "a task keeps itself alive"),
    faulty!(gate_and_a_channel: "leaked_tasks"),
    faulty!(gate_and_a_mutex: "deadlock"),
    faulty!(three_gates_in_a_ring: "leaked_tasks", says "3 tasks keep one another alive"),
    faulty!(gate_in_a_select: "leaked_tasks"),
];

/// A primitive of the program's own: waiters are kept in a queue behind an `Arc`.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    open: bool,
    waiters: VecDeque<Waker>,
}

impl Gate {
    pub(crate) fn passed(&self) -> impl Future<Output = ()> + use<> {
        let gate = self.clone();
        let mut listed = false;
        poll_fn(move |context| {
            let mut state = gate.0.lock().unwrap();
            if state.open {
                return Poll::Ready(());
            }
            if !listed {
                listed = true;
                state.waiters.push_back(context.waker().clone());
            }
            Poll::Pending
        })
    }

    pub(crate) fn open(&self) {
        let mut state = self.0.lock().unwrap();
        state.open = true;
        state.waiters.drain(..).for_each(Waker::wake);
    }
}

async fn circle_of_kanal() {
    let (to_one, from_two) = kanal::bounded_async::<u32>(1);
    let (to_two, from_one) = kanal::bounded_async::<u32>(1);
    tokio::spawn(asks_kanal(to_two, from_two));
    tokio::spawn(asks_kanal(to_one, from_one));
    harness::ready(2).await;
}

async fn asks_kanal(other: kanal::AsyncSender<u32>, own: kanal::AsyncReceiver<u32>) {
    harness::affected("asks_kanal");
    let received = own.recv().await;
    let _ = other.send(received.unwrap_or_default()).await;
}

async fn circle_of_full_kanal() {
    let (to_one, of_one) = kanal::bounded_async::<u32>(1);
    let (to_two, of_two) = kanal::bounded_async::<u32>(1);
    tokio::spawn(fills_kanal(to_two, of_one));
    tokio::spawn(fills_kanal(to_one, of_two));
    harness::ready(2).await;
}

async fn fills_kanal(other: kanal::AsyncSender<u32>, own: kanal::AsyncReceiver<u32>) {
    other.send(1).await.unwrap();
    tokio::task::yield_now().await;
    harness::affected("fills_kanal");
    other.send(2).await.unwrap();
    let _ = own.recv().await;
}

async fn circle_of_events() {
    let [first, second] = both_ways(Arc::new(Event::new()), Arc::new(Event::new()));
    tokio::spawn(listens(first));
    tokio::spawn(listens(second));
    harness::ready(2).await;
}

/// What each of two tasks has: its own, and the other's. Variables of the caller that were moved after they were borrowed
/// could not be distinguished from handles.
fn both_ways<T: Clone>(one: T, two: T) -> [(T, T); 2] {
    [(one.clone(), two.clone()), (two, one)]
}

async fn listens((own, other): (Arc<Event>, Arc<Event>)) {
    let heard = own.listen();
    harness::affected("listens");
    heard.await;
    other.notify(1);
}

async fn circle_of_async_broadcast() {
    let (to_one, from_two) = async_broadcast::broadcast::<u32>(4);
    let (to_two, from_one) = async_broadcast::broadcast::<u32>(4);
    tokio::spawn(asks_broadcast(to_two, from_two));
    tokio::spawn(asks_broadcast(to_one, from_one));
    harness::ready(2).await;
}

async fn asks_broadcast(other: async_broadcast::Sender<u32>, mut own: async_broadcast::Receiver<u32>) {
    harness::affected("asks_broadcast");
    let received = own.recv().await;
    let _ = other.broadcast(received.unwrap_or_default()).await;
}

async fn circle_of_futures_intrusive() {
    let (to_one, from_two) = intrusive::channel::<u32>(4);
    let (to_two, from_one) = intrusive::channel::<u32>(4);
    tokio::spawn(asks_intrusive(to_two, from_two));
    tokio::spawn(asks_intrusive(to_one, from_one));
    harness::ready(2).await;
}

async fn asks_intrusive(other: intrusive::Sender<u32>, own: intrusive::Receiver<u32>) {
    harness::affected("asks_intrusive");
    let received = own.receive().await;
    let _ = other.send(received.unwrap_or_default()).await;
}

async fn circle_of_tachyonix() {
    let (to_one, from_two) = tachyonix::channel::<u32>(4);
    let (to_two, from_one) = tachyonix::channel::<u32>(4);
    tokio::spawn(asks_tachyonix(to_two, from_two));
    tokio::spawn(asks_tachyonix(to_one, from_one));
    harness::ready(2).await;
}

async fn asks_tachyonix(other: tachyonix::Sender<u32>, mut own: tachyonix::Receiver<u32>) {
    harness::affected("asks_tachyonix");
    let received = own.recv().await;
    let _ = other.send(received.unwrap_or_default()).await;
}

async fn circle_of_gates() {
    let [first, second] = both_ways(Gate::default(), Gate::default());
    tokio::spawn(passes(first));
    tokio::spawn(passes(second));
    harness::ready(2).await;
}

async fn passes((own, other): (Gate, Gate)) {
    harness::affected("passes");
    own.passed().await;
    other.open();
}

async fn gate_that_only_its_waiter_has() {
    tokio::spawn(async {
        let gate = Gate::default();
        passes_alone(&gate).await;
        gate.open();
    });
    harness::ready(1).await;
}

async fn passes_alone(gate: &Gate) {
    harness::affected("passes_alone");
    gate.passed().await;
}

/// One task waits for the gate, the other for a message of the first.
async fn gate_and_a_channel() {
    let (sender, mut receiver) = mpsc::channel::<u32>(1);
    let [(gate, _), (_, opens)] = both_ways(Gate::default(), Gate::default());
    tokio::spawn(async move {
        sends_behind(&gate, sender).await;
    });
    tokio::spawn(async move {
        opens_behind(&mut receiver).await;
        opens.open();
    });
    harness::ready(2).await;
}

async fn sends_behind(gate: &Gate, sender: mpsc::Sender<u32>) {
    harness::affected("sends_behind");
    gate.passed().await;
    let _ = sender.send(1).await;
}

async fn opens_behind(receiver: &mut mpsc::Receiver<u32>) {
    harness::affected("opens_behind");
    receiver.recv().await;
}

/// The lock's holder waits for the gate, and the task that will open it for the lock.
async fn gate_and_a_mutex() {
    let [(gate, _), (_, opens)] = both_ways(Gate::default(), Gate::default());
    let lock = Arc::new(tokio::sync::Mutex::new(0));
    let locked = lock.clone();
    let guard = lock.lock_owned().await;
    tokio::spawn(holds_and_passes(guard, gate));
    tokio::spawn(locks_and_opens(locked, opens));
    harness::ready(2).await;
}

async fn holds_and_passes(mut guard: tokio::sync::OwnedMutexGuard<i32>, gate: Gate) {
    harness::affected("holds_and_passes");
    gate.passed().await;
    *guard += 1;
}

async fn locks_and_opens(lock: Arc<tokio::sync::Mutex<i32>>, gate: Gate) {
    harness::affected("locks_and_opens");
    *lock.lock().await += 1;
    gate.open();
}

async fn three_gates_in_a_ring() {
    for pair in ring() {
        tokio::spawn(passes(pair));
    }
    harness::ready(3).await;
}

fn ring() -> Vec<(Gate, Gate)> {
    let gates = [Gate::default(), Gate::default(), Gate::default()];
    (0..3).map(|n| (gates[n].clone(), gates[(n + 1) % 3].clone())).collect()
}

/// Beside the gate, each task waits for a message that only the other could send.
async fn gate_in_a_select() {
    let [first, second] = both_ways(Gate::default(), Gate::default());
    let (to_one, from_two) = mpsc::channel::<u32>(1);
    let (to_two, from_one) = mpsc::channel::<u32>(1);
    tokio::spawn(selects(first, to_two, from_two));
    tokio::spawn(selects(second, to_one, from_one));
    harness::ready(2).await;
}

async fn selects((own, other): (Gate, Gate), sender: mpsc::Sender<u32>, mut receiver: mpsc::Receiver<u32>) {
    harness::affected("selects");
    tokio::select! {
        () = own.passed() => other.open(),
        _ = receiver.recv() => drop(sender.send(1).await),
    }
}

/// A stream of gates, for the healthy cases.
pub(crate) async fn passes_all(gates: Vec<Gate>) {
    futures::stream::iter(gates).for_each_concurrent(None, |gate| async move { gate.passed().await }).await;
}
