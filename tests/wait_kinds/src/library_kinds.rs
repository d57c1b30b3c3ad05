//! Kinds of waiting beyond tokio's plain primitives: channels of other crates, locks, sinks, wrappers.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::{OnceCell, Semaphore, broadcast, mpsc, watch};
use tower::{Service as _, ServiceExt as _};

use crate::cases::Cases;

const DAY: Duration = Duration::from_secs(86_400);

/// One task of every kind.
pub(crate) fn spawn(cases: &Cases) {
    tokio_kinds(cases);
    futures_kinds(cases);
    other_crates(cases);
}

fn tokio_kinds(cases: &Cases) {
    cases.spawn(once_cell_of_another);
    #[cfg(not(feature = "old-tokio"))]
    cases.spawn(set_once);
    #[cfg(not(feature = "old-tokio"))]
    cases.spawn(broadcast_closed);
    cases.spawn(watch_closed);
    cases.spawn(mpsc_closed_unbounded);
    cases.spawn(cancelled_owned);
    cases.spawn(join_set_of_blocking);
    cases.spawn(delay_queue);
    cases.spawn(poll_semaphore);
    cases.spawn(reusable_box);
    cases.spawn(poll_sender);
    cases.spawn(receiver_stream);
    cases.spawn(broadcast_stream);
    cases.spawn(watch_stream);
    cases.spawn(interval_stream);
    cases.spawn(signal_stream);
    cases.spawn(stream_map);
}

async fn never() {
    std::future::pending::<()>().await;
}

async fn once_cell_of_another(cases: Cases) {
    let cell = OnceCell::new();
    let mut first = std::pin::pin!(cell.get_or_init(never));
    assert!(first.as_mut().now_or_never().is_none());
    cases.waits_for("once_cell_of_another", json!({ "kind": "once_cell", "wanted": 1, "available": 0 }));
    cell.get_or_init(never).await;
}

#[cfg(not(feature = "old-tokio"))]
async fn set_once(cases: Cases) {
    let cell = tokio::sync::SetOnce::<u8>::new();
    cases.waits("set_once", "set_once");
    cell.wait().await;
}

#[cfg(not(feature = "old-tokio"))]
async fn broadcast_closed(cases: Cases) {
    let (tx, _rx) = broadcast::channel::<u8>(1);
    cases.waits("broadcast_closed", "closed");
    tx.closed().await;
}

async fn watch_closed(cases: Cases) {
    let (tx, _rx) = watch::channel(1);
    cases.waits("watch_closed", "closed");
    tx.closed().await;
}

async fn mpsc_closed_unbounded(cases: Cases) {
    let (tx, _rx) = mpsc::unbounded_channel::<u8>();
    cases.waits("mpsc_closed_unbounded", "closed");
    tx.closed().await;
}

async fn cancelled_owned(cases: Cases) {
    let token = tokio_util::sync::CancellationToken::new();
    let child = token.child_token();
    cases.waits("cancelled_owned", "cancellation");
    child.cancelled_owned().await;
}

async fn join_set_of_blocking(cases: Cases) {
    let (_tx, rx) = std::sync::mpsc::channel::<()>();
    let mut set = tokio::task::JoinSet::new();
    set.spawn_blocking(move || rx.recv());
    cases.waits("join_set_of_blocking", "join");
    set.join_next().await;
}

async fn delay_queue(cases: Cases) {
    let mut queue = tokio_util::time::DelayQueue::new();
    queue.insert("late", DAY);
    cases.waits("delay_queue", "timer");
    queue.next().await;
}

async fn poll_semaphore(cases: Cases) {
    let mut semaphore = tokio_util::sync::PollSemaphore::new(Arc::new(Semaphore::new(0)));
    cases.waits("poll_semaphore", "semaphore");
    std::future::poll_fn(|cx| semaphore.poll_acquire(cx)).await;
}

async fn reusable_box(cases: Cases) {
    let future = tokio_util::sync::ReusableBoxFuture::new(never());
    cases.waits("reusable_box", "never");
    future.await;
}

async fn poll_sender(cases: Cases) {
    let (tx, _rx) = mpsc::channel::<u8>(1);
    let mut sender = tokio_util::sync::PollSender::new(tx);
    sender.send(1).await.expect("room");
    cases.waits("poll_sender", "channel_send");
    let _ = sender.send(2).await;
}

async fn receiver_stream(cases: Cases) {
    let (_tx, rx) = mpsc::channel::<u8>(1);
    let mut stream = tokio_stream::wrappers::ReceiverStream::new(rx);
    cases.waits("receiver_stream", "channel_recv");
    stream.next().await;
}

async fn broadcast_stream(cases: Cases) {
    let (_tx, rx) = broadcast::channel::<u8>(1);
    let mut stream = tokio_stream::wrappers::BroadcastStream::new(rx);
    cases.waits("broadcast_stream", "broadcast");
    stream.next().await;
}

async fn watch_stream(cases: Cases) {
    let (_tx, rx) = watch::channel(1);
    let mut stream = tokio_stream::wrappers::WatchStream::from_changes(rx);
    cases.waits("watch_stream", "watch");
    stream.next().await;
}

async fn interval_stream(cases: Cases) {
    let mut stream = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(DAY));
    stream.next().await;
    cases.waits("interval_stream", "timer");
    stream.next().await;
}

async fn signal_stream(cases: Cases) {
    let kind = tokio::signal::unix::SignalKind::window_change();
    let signal = tokio::signal::unix::signal(kind).expect("free");
    let mut stream = tokio_stream::wrappers::SignalStream::new(signal);
    cases.waits_for("signal_stream", json!({ "kind": "signal", "signal": 28 }));
    stream.next().await;
}

async fn stream_map(cases: Cases) {
    let (_tx, rx) = mpsc::channel::<u8>(1);
    let mut map = tokio_stream::StreamMap::new();
    map.insert("only", tokio_stream::wrappers::ReceiverStream::new(rx));
    cases.waits("stream_map", "channel_recv");
    map.next().await;
}

fn futures_kinds(cases: &Cases) {
    cases.spawn(futures_pending);
    cases.spawn(pending_stream);
    cases.spawn(futures_mutex_owned);
    cases.spawn(futures_send);
    cases.spawn(futures_feed);
    cases.spawn(futures_flush);
    cases.spawn(futures_forward);
    cases.spawn(futures_cancellation);
    cases.spawn(futures_unbounded_recv);
}

async fn futures_pending(cases: Cases) {
    cases.waits("futures_pending", "never");
    futures::future::pending::<()>().await;
}

async fn pending_stream(cases: Cases) {
    let mut stream = futures::stream::pending::<u8>();
    cases.waits("pending_stream", "never");
    stream.next().await;
}

async fn futures_mutex_owned(cases: Cases) {
    let mutex = Arc::new(futures::lock::Mutex::new(()));
    let _held = mutex.clone().lock_owned().await;
    cases.waits_for("futures_mutex_owned", json!({ "kind": "mutex", "available": 0 }));
    let _never = mutex.lock_owned().await;
}

/// A channel that has no room left. Every sender has a place of its own.
async fn full() -> (futures::channel::mpsc::Sender<u8>, futures::channel::mpsc::Receiver<u8>) {
    let (mut tx, rx) = futures::channel::mpsc::channel(0);
    tx.try_send(1).expect("room");
    (tx, rx)
}

async fn futures_send(cases: Cases) {
    let (mut tx, _rx) = full().await;
    cases.waits("futures_send", "channel_send");
    let _ = tx.send(2).await;
}

async fn futures_feed(cases: Cases) {
    let (mut tx, _rx) = full().await;
    cases.waits("futures_feed", "channel_send");
    let _ = tx.feed(2).await;
}

async fn futures_flush(cases: Cases) {
    let (mut tx, _rx) = full().await;
    cases.waits("futures_flush", "channel_send");
    let _ = futures::SinkExt::<u8>::flush(&mut tx).await;
}

async fn futures_forward(cases: Cases) {
    let (tx, _rx) = full().await;
    let stream = futures::stream::iter([Ok(2), Ok(3)]);
    cases.waits("futures_forward", "channel_send");
    let _ = stream.forward(tx).await;
}

async fn futures_cancellation(cases: Cases) {
    let (mut tx, _rx) = futures::channel::oneshot::channel::<u8>();
    cases.waits("futures_cancellation", "closed");
    tx.cancellation().await;
}

async fn futures_unbounded_recv(cases: Cases) {
    let (_tx, mut rx) = futures::channel::mpsc::unbounded::<u8>();
    cases.waits_for("futures_unbounded_recv", json!({ "kind": "channel_recv", "senders": 1 }));
    rx.next().await;
}

fn other_crates(cases: &Cases) {
    cases.spawn(event_listener);
    cases.spawn(async_channel_send);
    cases.spawn(async_channel_stream);
    cases.spawn(async_mutex);
    cases.spawn(async_mutex_arc);
    cases.spawn(async_rwlock_read);
    cases.spawn(async_rwlock_write);
    cases.spawn(async_semaphore);
    cases.spawn(async_barrier);
    cases.spawn(tower_buffer);
    cases.spawn(tower_buffer_response);
}

async fn event_listener(cases: Cases) {
    let event: event_listener::Event = event_listener::Event::new();
    let listener = event.listen();
    cases.waits("event_listener", "notify");
    listener.await;
}

async fn async_channel_send(cases: Cases) {
    let (tx, _rx) = async_channel::bounded::<u8>(1);
    let _ = tx.send(1).await;
    cases.waits("async_channel_send", "channel_send");
    let _ = tx.send(2).await;
}

async fn async_channel_stream(cases: Cases) {
    let (_tx, rx) = async_channel::bounded::<u8>(1);
    let mut rx = std::pin::pin!(rx);
    cases.waits_for("async_channel_stream", json!({ "kind": "channel_recv", "senders": 1 }));
    rx.next().await;
}

async fn async_mutex(cases: Cases) {
    let mutex = async_lock::Mutex::new(());
    let _held = mutex.lock().await;
    cases.waits_for("async_mutex", json!({ "kind": "mutex", "available": 0 }));
    let _never = mutex.lock().await;
}

async fn async_mutex_arc(cases: Cases) {
    let mutex = Arc::new(async_lock::Mutex::new(()));
    let _held = mutex.lock_arc().await;
    cases.waits_for("async_mutex_arc", json!({ "kind": "mutex", "available": 0 }));
    let _never = mutex.lock_arc().await;
}

async fn async_rwlock_read(cases: Cases) {
    let lock = async_lock::RwLock::new(7);
    let _held = lock.write().await;
    cases.waits("async_rwlock_read", "rwlock");
    let _never = lock.read().await;
}

async fn async_rwlock_write(cases: Cases) {
    let lock = async_lock::RwLock::new(7);
    let _held = lock.read().await;
    cases.waits("async_rwlock_write", "rwlock");
    let _never = lock.write().await;
}

async fn async_semaphore(cases: Cases) {
    let semaphore = async_lock::Semaphore::new(0);
    cases.waits("async_semaphore", "semaphore");
    let _never = semaphore.acquire().await;
}

async fn async_barrier(cases: Cases) {
    let barrier = async_lock::Barrier::new(2);
    cases.waits("async_barrier", "barrier");
    barrier.wait().await;
}

async fn tower_buffer(cases: Cases) {
    let service = tower::service_fn(|_: u8| never().map(Ok::<(), tower::BoxError>));
    let mut buffer = tower::buffer::Buffer::new(tower::limit::ConcurrencyLimit::new(service, 1), 1);
    // One request is being answered, one is with the buffer's task, one is in the channel.
    let mut responses = Vec::new();
    for request in 0..3 {
        responses.push(buffer.ready().await.expect("open").call(request));
    }
    cases.waits("tower_buffer", "channel_send");
    let _ = buffer.ready().await;
}

async fn tower_buffer_response(cases: Cases) {
    let service = tower::service_fn(|_: u8| never().map(Ok::<(), tower::BoxError>));
    let mut buffer = tower::buffer::Buffer::new(tower::limit::ConcurrencyLimit::new(service, 1), 1);
    let _first = buffer.ready().await.expect("open").call(1);
    let second = buffer.ready().await.expect("open").call(2);
    cases.waits("tower_buffer_response", "oneshot");
    let _ = second.await;
}
