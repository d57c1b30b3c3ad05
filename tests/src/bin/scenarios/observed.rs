//! Programs in which nothing is proven wrong, with something that a person should look at, and their healthy twins.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::sleep;

use crate::harness::{self, Case, DAY, faulty, healthy, observed};

pub(crate) const CASES: &[Case] = &[
    faulty!(relay_that_forwards_no_end: "deadlock", says "3 connections are in CLOSE_WAIT", "observed::relay at"),
    observed!(handler_that_outlives_its_client: "closed_by_peer", says "keeps it in"),
    healthy!(clients_come_and_go),
    observed!(client_that_does_not_read: "unread_data", says "that does not read"),
    healthy!(client_that_reads_slowly),
    observed!(lock_held_during_io: "contention" | "long_wait", says "holds it, and waits for input or output"),
    observed!(lock_held_for_long: "long_wait", says "waited for a mutex"),
    observed!(request_without_an_answer: "long_wait", says "waited for the message of a oneshot"),
    healthy!(lock_that_is_passed_on),
];

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A client on a thread, which is another program as far as tasks are concerned.
fn client(address: SocketAddr, body: impl FnOnce(std::net::TcpStream) + Send + 'static) {
    thread::spawn(move || body(std::net::TcpStream::connect(address).unwrap()));
}

/// Reads the end of one side and does not shut the other side down, which waits for that.
async fn relay_that_forwards_no_end() {
    let (front, address) = listener().await;
    let (back, behind) = listener().await;
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = back.accept().await.unwrap();
            tokio::spawn(async move { tokio::io::copy(&mut socket, &mut tokio::io::sink()).await });
        }
    });
    for _ in 0..3 {
        client(address, |stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            thread::sleep(DAY);
        });
        let (inbound, _) = front.accept().await.unwrap();
        let outbound = TcpStream::connect(behind).await.unwrap();
        tokio::spawn(relay(inbound, outbound));
    }
    harness::ready(3).await;
}

async fn relay(mut inbound: TcpStream, mut outbound: TcpStream) {
    tokio::io::copy(&mut inbound, &mut outbound).await.unwrap();
    harness::waits();
    tokio::io::copy(&mut outbound, &mut inbound).await.unwrap();
}

/// Waits for work to be done, and does not notice that its client has gone.
async fn handler_that_outlives_its_client() {
    let (listener, address) = listener().await;
    client(address, |mut stream| stream.write_all(b"x").unwrap());
    let (mut socket, _) = listener.accept().await.unwrap();
    tokio::spawn(async move {
        let mut byte = [0];
        socket.read_exact(&mut byte).await.unwrap();
        while socket.read(&mut byte).await.unwrap() > 0 {}
        harness::waits();
        sleep(DAY).await;
        drop(socket);
    });
    harness::ready(1).await;
}

async fn clients_come_and_go() {
    let (listener, address) = listener().await;
    thread::spawn(move || {
        loop {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(b"x").unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).unwrap() > 0 {}
            thread::sleep(Duration::from_millis(2));
        }
    });
    harness::waits();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut byte = [0];
                socket.read_exact(&mut byte).await.unwrap();
                socket.write_all(&byte).await.unwrap();
            });
        }
    });
    harness::ready(1).await;
}

async fn client_that_does_not_read() {
    let (listener, address) = listener().await;
    client(address, |_stream| thread::sleep(DAY));
    let (socket, _) = listener.accept().await.unwrap();
    tokio::spawn(sends(socket));
    harness::ready(1).await;
}

async fn sends(mut socket: TcpStream) {
    let data = vec![0; 64 << 20];
    harness::affected("sends");
    socket.write_all(&data).await.unwrap();
}

async fn client_that_reads_slowly() {
    let (listener, address) = listener().await;
    client(address, |mut stream| {
        let mut bytes = vec![0; 256 << 10];
        while stream.read(&mut bytes).unwrap() > 0 {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let (mut socket, _) = listener.accept().await.unwrap();
    harness::waits();
    tokio::spawn(async move {
        loop {
            socket.write_all(&[0; 64 << 10]).await.unwrap();
        }
    });
    harness::ready(1).await;
}

/// The holder of a lock that many want waits for a client that sends nothing.
async fn lock_held_during_io() {
    let (listener, address) = listener().await;
    client(address, |_stream| thread::sleep(DAY));
    let (mut socket, _) = listener.accept().await.unwrap();
    let lock = Arc::new(Mutex::new([0]));
    let theirs = lock.clone();
    let (held, is_held) = oneshot::channel();
    tokio::spawn(async move {
        let mut byte = theirs.lock().await;
        held.send(()).unwrap();
        socket.read_exact(&mut *byte).await.unwrap();
    });
    is_held.await.unwrap();
    for _ in 0..12 {
        let lock = lock.clone();
        harness::waits();
        tokio::spawn(async move { drop(lock.lock().await) });
    }
    harness::ready(12).await;
}

/// The holder may be done at any time: it waits for a timer.
async fn lock_held_for_long() {
    let lock = Arc::new(Mutex::new(()));
    let theirs = lock.clone();
    let (held, is_held) = oneshot::channel();
    tokio::spawn(async move {
        let _guard = theirs.lock().await;
        held.send(()).unwrap();
        sleep(DAY).await;
    });
    is_held.await.unwrap();
    tokio::spawn(takes(lock));
    harness::ready(1).await;
}

async fn takes(lock: Arc<Mutex<()>>) {
    harness::affected("takes");
    let _guard = lock.lock().await;
}

/// The request is kept by a task that reads requests and never answers this one.
async fn request_without_an_answer() {
    let (requests, mut queue) = mpsc::channel::<oneshot::Sender<()>>(4);
    tokio::spawn(async move {
        let mut pending = Vec::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                Some(request) = queue.recv() => pending.push(request),
                _ = ticks.tick() => {}
            }
        }
    });
    tokio::spawn(asks(requests));
    harness::ready(1).await;
}

async fn asks(requests: mpsc::Sender<oneshot::Sender<()>>) {
    let (answer, answered) = oneshot::channel();
    requests.send(answer).await.unwrap();
    harness::affected("asks");
    let _closed = answered.await;
}

async fn lock_that_is_passed_on() {
    let lock = Arc::new(Mutex::new(()));
    for _ in 0..4 {
        let lock = lock.clone();
        harness::waits();
        tokio::spawn(async move {
            loop {
                let _guard = lock.lock().await;
                sleep(Duration::from_millis(30)).await;
            }
        });
    }
    harness::ready(4).await;
}
