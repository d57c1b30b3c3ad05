//! Kinds of waiting beyond tokio's plain primitives: channels of other crates, locks, sinks, wrappers.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::{OnceCell, Semaphore, broadcast, mpsc, watch};
use tower::{Service as _, ServiceExt as _};

use crate::keeper::Keeper;

const DAY: Duration = Duration::from_secs(86_400);

/// One task of every kind.
pub(crate) fn spawn(keeper: &Keeper) {
    tokio_kinds(keeper);
    futures_kinds(keeper);
    other_crates(keeper);
}

fn tokio_kinds(keeper: &Keeper) {
    keeper.spawn(once_cell_of_another);
    #[cfg(not(feature = "old-tokio"))]
    keeper.spawn(set_once);
    #[cfg(not(feature = "old-tokio"))]
    keeper.spawn(broadcast_closed);
    keeper.spawn(watch_closed);
    keeper.spawn(mpsc_closed_unbounded);
    keeper.spawn(cancelled_owned);
    keeper.spawn(join_set_of_blocking);
    keeper.spawn(delay_queue);
    keeper.spawn(poll_semaphore);
    keeper.spawn(reusable_box);
    keeper.spawn(poll_sender);
    keeper.spawn(receiver_stream);
    keeper.spawn(broadcast_stream);
    keeper.spawn(watch_stream);
    keeper.spawn(interval_stream);
    keeper.spawn(signal_stream);
    keeper.spawn(stream_map);
}

async fn never() {
    std::future::pending::<()>().await;
}

async fn once_cell_of_another(zoo: Keeper) {
    let cell = OnceCell::new();
    let mut first = std::pin::pin!(cell.get_or_init(never));
    assert!(first.as_mut().now_or_never().is_none());
    zoo.waits_for("once_cell_of_another", json!({ "kind": "once_cell", "wanted": 1, "available": 0 }));
    cell.get_or_init(never).await;
}

#[cfg(not(feature = "old-tokio"))]
async fn set_once(zoo: Keeper) {
    let cell = tokio::sync::SetOnce::<u8>::new();
    zoo.waits("set_once", "set_once");
    cell.wait().await;
}

#[cfg(not(feature = "old-tokio"))]
async fn broadcast_closed(zoo: Keeper) {
    let (tx, _rx) = broadcast::channel::<u8>(1);
    zoo.waits("broadcast_closed", "closed");
    tx.closed().await;
}

async fn watch_closed(zoo: Keeper) {
    let (tx, _rx) = watch::channel(1);
    zoo.waits("watch_closed", "closed");
    tx.closed().await;
}

async fn mpsc_closed_unbounded(zoo: Keeper) {
    let (tx, _rx) = mpsc::unbounded_channel::<u8>();
    zoo.waits("mpsc_closed_unbounded", "closed");
    tx.closed().await;
}

async fn cancelled_owned(zoo: Keeper) {
    let token = tokio_util::sync::CancellationToken::new();
    let child = token.child_token();
    zoo.waits("cancelled_owned", "cancellation");
    child.cancelled_owned().await;
}

async fn join_set_of_blocking(zoo: Keeper) {
    let (_tx, rx) = std::sync::mpsc::channel::<()>();
    let mut set = tokio::task::JoinSet::new();
    set.spawn_blocking(move || rx.recv());
    zoo.waits("join_set_of_blocking", "join");
    set.join_next().await;
}

async fn delay_queue(zoo: Keeper) {
    let mut queue = tokio_util::time::DelayQueue::new();
    queue.insert("late", DAY);
    zoo.waits("delay_queue", "timer");
    queue.next().await;
}

async fn poll_semaphore(zoo: Keeper) {
    let mut semaphore = tokio_util::sync::PollSemaphore::new(Arc::new(Semaphore::new(0)));
    zoo.waits("poll_semaphore", "semaphore");
    std::future::poll_fn(|cx| semaphore.poll_acquire(cx)).await;
}

async fn reusable_box(zoo: Keeper) {
    let future = tokio_util::sync::ReusableBoxFuture::new(never());
    zoo.waits("reusable_box", "never");
    future.await;
}

async fn poll_sender(zoo: Keeper) {
    let (tx, _rx) = mpsc::channel::<u8>(1);
    let mut sender = tokio_util::sync::PollSender::new(tx);
    sender.send(1).await.expect("room");
    zoo.waits("poll_sender", "channel_send");
    let _ = sender.send(2).await;
}

async fn receiver_stream(zoo: Keeper) {
    let (_tx, rx) = mpsc::channel::<u8>(1);
    let mut stream = tokio_stream::wrappers::ReceiverStream::new(rx);
    zoo.waits("receiver_stream", "channel_recv");
    stream.next().await;
}

async fn broadcast_stream(zoo: Keeper) {
    let (_tx, rx) = broadcast::channel::<u8>(1);
    let mut stream = tokio_stream::wrappers::BroadcastStream::new(rx);
    zoo.waits("broadcast_stream", "broadcast");
    stream.next().await;
}

async fn watch_stream(zoo: Keeper) {
    let (_tx, rx) = watch::channel(1);
    let mut stream = tokio_stream::wrappers::WatchStream::from_changes(rx);
    zoo.waits("watch_stream", "watch");
    stream.next().await;
}

async fn interval_stream(zoo: Keeper) {
    let mut stream = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(DAY));
    stream.next().await;
    zoo.waits("interval_stream", "timer");
    stream.next().await;
}

async fn signal_stream(zoo: Keeper) {
    let kind = tokio::signal::unix::SignalKind::window_change();
    let signal = tokio::signal::unix::signal(kind).expect("free");
    let mut stream = tokio_stream::wrappers::SignalStream::new(signal);
    zoo.waits_for("signal_stream", json!({ "kind": "signal", "signal": 28 }));
    stream.next().await;
}

async fn stream_map(zoo: Keeper) {
    let (_tx, rx) = mpsc::channel::<u8>(1);
    let mut map = tokio_stream::StreamMap::new();
    map.insert("only", tokio_stream::wrappers::ReceiverStream::new(rx));
    zoo.waits("stream_map", "channel_recv");
    map.next().await;
}

fn futures_kinds(keeper: &Keeper) {
    keeper.spawn(futures_pending);
    keeper.spawn(pending_stream);
    keeper.spawn(futures_mutex_owned);
    keeper.spawn(futures_send);
    keeper.spawn(futures_feed);
    keeper.spawn(futures_flush);
    keeper.spawn(futures_forward);
    keeper.spawn(futures_cancellation);
    keeper.spawn(futures_unbounded_recv);
}

async fn futures_pending(zoo: Keeper) {
    zoo.waits("futures_pending", "never");
    futures::future::pending::<()>().await;
}

async fn pending_stream(zoo: Keeper) {
    let mut stream = futures::stream::pending::<u8>();
    zoo.waits("pending_stream", "never");
    stream.next().await;
}

async fn futures_mutex_owned(zoo: Keeper) {
    let mutex = Arc::new(futures::lock::Mutex::new(()));
    let _held = mutex.clone().lock_owned().await;
    zoo.waits_for("futures_mutex_owned", json!({ "kind": "mutex", "available": 0 }));
    let _never = mutex.lock_owned().await;
}

/// A channel that has no room left. Every sender has a place of its own.
async fn full() -> (futures::channel::mpsc::Sender<u8>, futures::channel::mpsc::Receiver<u8>) {
    let (mut tx, rx) = futures::channel::mpsc::channel(0);
    tx.try_send(1).expect("room");
    (tx, rx)
}

async fn futures_send(zoo: Keeper) {
    let (mut tx, _rx) = full().await;
    zoo.waits("futures_send", "channel_send");
    let _ = tx.send(2).await;
}

async fn futures_feed(zoo: Keeper) {
    let (mut tx, _rx) = full().await;
    zoo.waits("futures_feed", "channel_send");
    let _ = tx.feed(2).await;
}

async fn futures_flush(zoo: Keeper) {
    let (mut tx, _rx) = full().await;
    zoo.waits("futures_flush", "channel_send");
    let _ = futures::SinkExt::<u8>::flush(&mut tx).await;
}

async fn futures_forward(zoo: Keeper) {
    let (tx, _rx) = full().await;
    let stream = futures::stream::iter([Ok(2), Ok(3)]);
    zoo.waits("futures_forward", "channel_send");
    let _ = stream.forward(tx).await;
}

async fn futures_cancellation(zoo: Keeper) {
    let (mut tx, _rx) = futures::channel::oneshot::channel::<u8>();
    zoo.waits("futures_cancellation", "closed");
    tx.cancellation().await;
}

async fn futures_unbounded_recv(zoo: Keeper) {
    let (_tx, mut rx) = futures::channel::mpsc::unbounded::<u8>();
    zoo.waits_for("futures_unbounded_recv", json!({ "kind": "channel_recv", "senders": 1 }));
    rx.next().await;
}

fn other_crates(keeper: &Keeper) {
    keeper.spawn(event_listener);
    keeper.spawn(async_channel_send);
    keeper.spawn(async_channel_stream);
    keeper.spawn(async_mutex);
    keeper.spawn(async_mutex_arc);
    keeper.spawn(async_rwlock_read);
    keeper.spawn(async_rwlock_write);
    keeper.spawn(async_semaphore);
    keeper.spawn(async_barrier);
    keeper.spawn(tower_buffer);
    keeper.spawn(tower_buffer_response);
}

async fn event_listener(zoo: Keeper) {
    let event: event_listener::Event = event_listener::Event::new();
    let listener = event.listen();
    zoo.waits("event_listener", "notify");
    listener.await;
}

async fn async_channel_send(zoo: Keeper) {
    let (tx, _rx) = async_channel::bounded::<u8>(1);
    let _ = tx.send(1).await;
    zoo.waits("async_channel_send", "channel_send");
    let _ = tx.send(2).await;
}

async fn async_channel_stream(zoo: Keeper) {
    let (_tx, rx) = async_channel::bounded::<u8>(1);
    let mut rx = std::pin::pin!(rx);
    zoo.waits_for("async_channel_stream", json!({ "kind": "channel_recv", "senders": 1 }));
    rx.next().await;
}

async fn async_mutex(zoo: Keeper) {
    let mutex = async_lock::Mutex::new(());
    let _held = mutex.lock().await;
    zoo.waits_for("async_mutex", json!({ "kind": "mutex", "available": 0 }));
    let _never = mutex.lock().await;
}

async fn async_mutex_arc(zoo: Keeper) {
    let mutex = Arc::new(async_lock::Mutex::new(()));
    let _held = mutex.lock_arc().await;
    zoo.waits_for("async_mutex_arc", json!({ "kind": "mutex", "available": 0 }));
    let _never = mutex.lock_arc().await;
}

async fn async_rwlock_read(zoo: Keeper) {
    let lock = async_lock::RwLock::new(7);
    let _held = lock.write().await;
    zoo.waits("async_rwlock_read", "rwlock");
    let _never = lock.read().await;
}

async fn async_rwlock_write(zoo: Keeper) {
    let lock = async_lock::RwLock::new(7);
    let _held = lock.read().await;
    zoo.waits("async_rwlock_write", "rwlock");
    let _never = lock.write().await;
}

async fn async_semaphore(zoo: Keeper) {
    let semaphore = async_lock::Semaphore::new(0);
    zoo.waits("async_semaphore", "semaphore");
    let _never = semaphore.acquire().await;
}

async fn async_barrier(zoo: Keeper) {
    let barrier = async_lock::Barrier::new(2);
    zoo.waits("async_barrier", "barrier");
    barrier.wait().await;
}

async fn tower_buffer(zoo: Keeper) {
    let service = tower::service_fn(|_: u8| never().map(Ok::<(), tower::BoxError>));
    let mut buffer = tower::buffer::Buffer::new(tower::limit::ConcurrencyLimit::new(service, 1), 1);
    // One request is being answered, one is with the buffer's task, one is in the channel.
    let mut responses = Vec::new();
    for request in 0..3 {
        responses.push(buffer.ready().await.expect("open").call(request));
    }
    zoo.waits("tower_buffer", "channel_send");
    let _ = buffer.ready().await;
}

async fn tower_buffer_response(zoo: Keeper) {
    let service = tower::service_fn(|_: u8| never().map(Ok::<(), tower::BoxError>));
    let mut buffer = tower::buffer::Buffer::new(tower::limit::ConcurrencyLimit::new(service, 1), 1);
    let _first = buffer.ready().await.expect("open").call(1);
    let second = buffer.ready().await.expect("open").call(2);
    zoo.waits("tower_buffer_response", "oneshot");
    let _ = second.await;
}
