//! Tasks whose wakers are gone, each held in a state that lasts for some microseconds: its future has been polled and will
//! not be polled again.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::cases::Cases;
use crate::tokio_kinds::connected;

/// One task of every kind.
pub(crate) fn spawn(cases: &Cases) {
    cases.spawn(tcp_connect);
    cases.spawn(yielded);
    cases.spawn(no_signal);
    cases.spawn(reader_about_to_be_woken);
    cases.spawn(copy_about_to_be_woken);
    #[cfg(not(feature = "old-tokio"))]
    cases.spawn(budget_consumed);
    #[cfg(not(feature = "old-tokio"))]
    cases.spawn(budget_used_up);
}

/// Has a future, and never polls it.
#[expect(dead_code, reason = "it is found in memory")]
struct Held<F>(Pin<Box<F>>);

impl<F> Future for Held<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// Polls it once, with a waker that wakes nothing.
fn held<F: Future>(future: F) -> Held<F> {
    let mut future = Box::pin(future);
    assert!(future.as_mut().now_or_never().is_none());
    Held(future)
}

/// A future of a program's own that says by its being empty that there is none.
struct Optional<F>(Option<F>);

impl<F: Future<Output = ()> + Unpin> Future for Optional<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Pending, |future| Pin::new(future).poll(cx))
    }
}

/// tonic's server without a signal to end it.
async fn no_signal(cases: Cases) {
    let mut signal = Optional::<std::future::Ready<()>>(None);
    let (_sender, mut receiver) = tokio::sync::mpsc::channel::<()>(1);
    cases.waits("no_signal", "channel_recv");
    tokio::select! {
        () = &mut signal => {}
        _ = receiver.recv() => {}
    }
}

/// The listener's queue is full.
async fn tcp_connect(cases: Cases) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
    let listener = socket.listen(0).expect("bound");
    let address = listener.local_addr().expect("bound");
    let _first = TcpStream::connect(address).await.expect("room for one");
    cases.waits_for("tcp_connect", json!({ "kind": "io", "io": { "direction": "write" } }));
    let _ = TcpStream::connect(address).await;
}

async fn yielded(cases: Cases) {
    let yields = held(tokio::task::yield_now());
    cases.waits("yielded", "yield");
    yields.await;
}

/// Reads, of which the driver has taken the waker.
async fn reader_about_to_be_woken(cases: Cases) {
    let (here, mut there) = connected().await;
    let (mut reader, writer) = here.into_split();
    let reads = held(async move { reader.read(&mut [0; 8]).await });
    there.write_all(b"bytes").await.expect("room");
    writer.as_ref().readable().await.expect("open");
    let ready = json!({ "kind": "io", "io": { "direction": "read", "ready": true } });
    cases.waits_for("reader_about_to_be_woken", ready);
    reads.await;
}

/// The same of a copy between two streams: it would write to the other one only later.
async fn copy_about_to_be_woken(cases: Cases) {
    let (here, mut there) = connected().await;
    let (mut reader, writer) = here.into_split();
    let (_other, other) = connected().await;
    let (_, mut other) = tokio::io::split(other);
    let copies = held(async move { tokio::io::copy(&mut reader, &mut other).await });
    there.write_all(b"bytes").await.expect("room");
    writer.as_ref().readable().await.expect("open");
    let ready = json!({ "kind": "io", "io": { "direction": "read", "ready": true } });
    cases.waits_for("copy_about_to_be_woken", ready);
    copies.await;
}

#[cfg(not(feature = "old-tokio"))]
async fn budget_consumed(cases: Cases) {
    use_up_budget().await;
    let consumes = held(tokio::task::consume_budget());
    cases.waits("budget_consumed", "yield");
    consumes.await;
}

/// Reads what has not arrived, and has no budget to find that out.
#[cfg(not(feature = "old-tokio"))]
async fn budget_used_up(cases: Cases) {
    let (mut here, _there) = connected().await;
    use_up_budget().await;
    let reads = held(async move { here.read(&mut [0; 8]).await });
    cases.waits("budget_used_up", "yield");
    reads.await;
}

#[cfg(not(feature = "old-tokio"))]
async fn use_up_budget() {
    while tokio::task::coop::has_budget_remaining() {
        pin!(tokio::task::consume_budget()).now_or_never().expect("there is budget");
    }
}
