//! tokio's own primitives.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use tokio::sync::{Barrier, Mutex, Notify, OnceCell, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cases::Cases;

const AGES: Duration = Duration::from_secs(86_400);

/// One task of every kind.
pub(crate) fn spawn(cases: &Cases) {
    sync(cases);
    time(cases);
    io(cases);
    tasks(cases);
}

fn sync(cases: &Cases) {
    cases.spawn(mutex_lock);
    cases.spawn(mutex_lock_owned);
    cases.spawn(rwlock_read);
    cases.spawn(rwlock_write);
    cases.spawn(semaphore);
    cases.spawn(semaphore_many);
    cases.spawn(mpsc_recv);
    cases.spawn(mpsc_recv_unbounded);
    cases.spawn(mpsc_send);
    cases.spawn(mpsc_reserve);
    cases.spawn(mpsc_closed);
    cases.spawn(oneshot_recv);
    cases.spawn(oneshot_closed);
    cases.spawn(watch_changed);
    cases.spawn(watch_wait_for);
    cases.spawn(broadcast_recv);
    cases.spawn(notified);
    #[cfg(not(feature = "old-tokio"))]
    cases.spawn(notified_owned);
    cases.spawn(barrier);
    cases.spawn(once_cell);
    cases.spawn(cancelled);
}

async fn mutex_lock(cases: Cases) {
    let mutex = Mutex::new(());
    let _held = mutex.lock().await;
    cases.waits("mutex_lock", "mutex");
    let _never = mutex.lock().await;
}

async fn mutex_lock_owned(cases: Cases) {
    let mutex = Arc::new(Mutex::new(String::new()));
    let _held = mutex.clone().lock_owned().await;
    cases.waits("mutex_lock_owned", "mutex");
    let _never = mutex.lock_owned().await;
}

async fn rwlock_read(cases: Cases) {
    let lock = RwLock::new(7);
    let _held = lock.write().await;
    cases.waits("rwlock_read", "rwlock");
    let _never = lock.read().await;
}

async fn rwlock_write(cases: Cases) {
    let lock = RwLock::new(7);
    let _held = lock.read().await;
    cases.waits("rwlock_write", "rwlock");
    let _never = lock.write().await;
}

async fn semaphore(cases: Cases) {
    let semaphore = Semaphore::new(0);
    cases.waits("semaphore", "semaphore");
    let _never = semaphore.acquire().await;
}

async fn semaphore_many(cases: Cases) {
    let semaphore = Arc::new(Semaphore::new(2));
    cases.waits("semaphore_many", "semaphore");
    let _never = semaphore.acquire_many_owned(5).await;
}

async fn mpsc_recv(cases: Cases) {
    let (_tx, mut rx) = mpsc::channel::<u8>(4);
    cases.waits("mpsc_recv", "channel_recv");
    rx.recv().await;
}

async fn mpsc_recv_unbounded(cases: Cases) {
    let (_tx, mut rx) = mpsc::unbounded_channel::<String>();
    cases.waits("mpsc_recv_unbounded", "channel_recv");
    rx.recv().await;
}

async fn mpsc_send(cases: Cases) {
    let (tx, _rx) = mpsc::channel::<u8>(1);
    let _ = tx.send(1).await;
    cases.waits("mpsc_send", "channel_send");
    let _ = tx.send(2).await;
}

async fn mpsc_reserve(cases: Cases) {
    let (tx, _rx) = mpsc::channel::<u8>(1);
    let _ = tx.send(1).await;
    cases.waits("mpsc_reserve", "channel_send");
    let _ = tx.reserve().await;
}

async fn mpsc_closed(cases: Cases) {
    let (tx, _rx) = mpsc::channel::<u8>(1);
    cases.waits("mpsc_closed", "closed");
    tx.closed().await;
}

async fn oneshot_recv(cases: Cases) {
    let (_tx, rx) = oneshot::channel::<u32>();
    cases.waits("oneshot_recv", "oneshot");
    let _ = rx.await;
}

async fn oneshot_closed(cases: Cases) {
    let (mut tx, _rx) = oneshot::channel::<u32>();
    cases.waits("oneshot_closed", "closed");
    tx.closed().await;
}

async fn watch_changed(cases: Cases) {
    let (_tx, mut rx) = watch::channel(1);
    cases.waits("watch_changed", "watch");
    let _ = rx.changed().await;
}

async fn watch_wait_for(cases: Cases) {
    let (_tx, mut rx) = watch::channel(1);
    cases.waits("watch_wait_for", "watch");
    let _ = rx.wait_for(|value| *value > 1).await;
}

async fn broadcast_recv(cases: Cases) {
    let (_tx, mut rx) = broadcast::channel::<u8>(2);
    cases.waits("broadcast_recv", "broadcast");
    let _ = rx.recv().await;
}

async fn notified(cases: Cases) {
    let notify = Notify::new();
    cases.waits("notified", "notify");
    notify.notified().await;
}

#[cfg(not(feature = "old-tokio"))]
async fn notified_owned(cases: Cases) {
    let notify = Arc::new(Notify::new());
    cases.waits("notified_owned", "notify");
    notify.notified_owned().await;
}

async fn barrier(cases: Cases) {
    let barrier = Barrier::new(2);
    cases.waits_for("barrier", json!({ "kind": "barrier", "wanted": 2, "arrived": 1 }));
    barrier.wait().await;
}

async fn once_cell(cases: Cases) {
    let cell = OnceCell::new();
    cases.waits("once_cell", "notify");
    cell.get_or_init(forever).await;
}

async fn forever() {
    Notify::new().notified().await;
}

async fn cancelled(cases: Cases) {
    let token = CancellationToken::new();
    cases.waits("cancelled", "cancellation");
    token.cancelled().await;
}

fn time(cases: &Cases) {
    cases.spawn(sleep);
    cases.spawn(sleep_until);
    cases.spawn(interval);
    cases.spawn(timeout);
}

async fn sleep(cases: Cases) {
    cases.waits("sleep", "timer");
    tokio::time::sleep(AGES).await;
}

async fn sleep_until(cases: Cases) {
    let deadline = Instant::now() + AGES;
    cases.waits("sleep_until", "timer");
    tokio::time::sleep_until(deadline).await;
}

async fn interval(cases: Cases) {
    let mut interval = tokio::time::interval(AGES);
    interval.tick().await;
    cases.waits("interval", "timer");
    interval.tick().await;
}

async fn timeout(cases: Cases) {
    let (_tx, rx) = oneshot::channel::<u32>();
    cases.waits("timeout", "oneshot");
    let _ = tokio::time::timeout(AGES, rx).await;
}

fn io(cases: &Cases) {
    cases.spawn(tcp_accept);
    cases.spawn(tcp_read);
    cases.spawn(tcp_write);
    cases.spawn(tcp_readable);
    cases.spawn(tcp_read_line);
    cases.spawn(half_of_tcp_read_line);
    cases.spawn(half_of_tcp_write);
    cases.spawn(borrowed_half_of_tcp_read);
    cases.spawn(half_of_unix_read);
    cases.spawn(half_of_a_stream_read_line);
    cases.spawn(udp_recv);
    cases.spawn(unix_accept);
    cases.spawn(unix_read);
    cases.spawn(unix_datagram_recv);
    cases.spawn(duplex_read);
    cases.spawn(child_wait);
    cases.spawn(child_output);
    cases.spawn(signal);
    cases.spawn(ctrl_c);
}

pub(crate) async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (here, there) = tokio::join!(TcpStream::connect(address), listener.accept());
    (here.expect("connected"), there.expect("accepted").0)
}

fn io_to(direction: &str) -> Value {
    json!({ "kind": "io", "io": { "direction": direction } })
}

async fn tcp_accept(cases: Cases) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    cases.waits_for("tcp_accept", io_to("read"));
    let _ = listener.accept().await;
}

async fn tcp_read(cases: Cases) {
    let (mut here, _there) = connected().await;
    let mut buffer = [0; 64];
    cases.waits_for("tcp_read", io_to("read"));
    let _ = here.read(&mut buffer).await;
}

async fn tcp_write(cases: Cases) {
    let (mut here, _there) = connected().await;
    let block = vec![0; 64 << 20];
    cases.waits_for("tcp_write", io_to("write"));
    let _ = here.write_all(&block).await;
}

async fn tcp_readable(cases: Cases) {
    let (here, _there) = connected().await;
    cases.waits_for("tcp_readable", io_to("read"));
    let _ = here.readable().await;
}

async fn tcp_read_line(cases: Cases) {
    let (here, _there) = connected().await;
    let mut lines = BufReader::new(here).lines();
    cases.waits_for("tcp_read_line", io_to("read"));
    let _ = lines.next_line().await;
}

async fn half_of_tcp_read_line(cases: Cases) {
    let (here, _there) = connected().await;
    let (reader, _writer) = here.into_split();
    let mut lines = BufReader::new(reader).lines();
    cases.waits_for("half_of_tcp_read_line", io_to("read"));
    let _ = lines.next_line().await;
}

async fn half_of_tcp_write(cases: Cases) {
    let (here, _there) = connected().await;
    let (_reader, mut writer) = here.into_split();
    let block = vec![0; 64 << 20];
    cases.waits_for("half_of_tcp_write", io_to("write"));
    let _ = writer.write_all(&block).await;
}

async fn borrowed_half_of_tcp_read(cases: Cases) {
    let (mut here, _there) = connected().await;
    let (mut reader, _writer) = here.split();
    let mut buffer = [0; 64];
    cases.waits_for("borrowed_half_of_tcp_read", io_to("read"));
    let _ = reader.read(&mut buffer).await;
}

async fn half_of_unix_read(cases: Cases) {
    let (here, _there) = UnixStream::pair().expect("a pair");
    let (mut reader, _writer) = here.into_split();
    let mut text = String::new();
    cases.waits_for("half_of_unix_read", io_to("read"));
    let _ = reader.read_to_string(&mut text).await;
}

async fn half_of_a_stream_read_line(cases: Cases) {
    let (here, _there) = connected().await;
    let (reader, _writer) = tokio::io::split(here);
    let mut lines = BufReader::new(reader).lines();
    cases.waits_for("half_of_a_stream_read_line", io_to("read"));
    let _ = lines.next_line().await;
}

async fn udp_recv(cases: Cases) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let mut buffer = [0; 64];
    cases.waits_for("udp_recv", io_to("read"));
    let _ = socket.recv_from(&mut buffer).await;
}

async fn unix_accept(cases: Cases) {
    let path = std::env::temp_dir().join(format!("cases-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a fresh path");
    let _ = std::fs::remove_file(&path);
    cases.waits_for("unix_accept", io_to("read"));
    let _ = listener.accept().await;
}

async fn unix_read(cases: Cases) {
    let (mut here, _there) = UnixStream::pair().expect("a pair");
    let mut text = String::new();
    cases.waits_for("unix_read", io_to("read"));
    let _ = here.read_to_string(&mut text).await;
}

async fn unix_datagram_recv(cases: Cases) {
    let (here, _there) = UnixDatagram::pair().expect("a pair");
    let mut buffer = [0; 64];
    cases.waits_for("unix_datagram_recv", io_to("read"));
    let _ = here.recv(&mut buffer).await;
}

async fn duplex_read(cases: Cases) {
    let (mut here, _there) = tokio::io::duplex(64);
    cases.waits_for("duplex_read", io_to("read"));
    let _ = here.read_u8().await;
}

/// A child that lives as long as we hold its stdin, and no longer than we do.
fn child() -> tokio::process::Child {
    use std::process::Stdio;
    let mut cat = tokio::process::Command::new("cat");
    cat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("cat")
}

async fn child_wait(cases: Cases) {
    let mut child = child();
    let _stdin = child.stdin.take();
    let pid = json!({ "kind": "process", "pid": child.id() });
    cases.waits_for("child_wait", pid);
    let _ = child.wait().await;
}

async fn child_output(cases: Cases) {
    let mut child = child();
    let mut stdout = child.stdout.take().expect("piped");
    let mut text = String::new();
    cases.waits_for("child_output", io_to("read"));
    let _ = stdout.read_to_string(&mut text).await;
}

async fn signal(cases: Cases) {
    let kind = tokio::signal::unix::SignalKind::user_defined2();
    let mut signal = tokio::signal::unix::signal(kind).expect("free");
    cases.waits_for("signal", json!({ "kind": "signal", "signal": 12 }));
    signal.recv().await;
}

async fn ctrl_c(cases: Cases) {
    cases.waits_for("ctrl_c", json!({ "kind": "signal", "signal": 2 }));
    let _ = tokio::signal::ctrl_c().await;
}

fn tasks(cases: &Cases) {
    cases.spawn(join_handle);
    cases.spawn(join_set);
    cases.spawn(join_blocking);
}

async fn join_handle(cases: Cases) {
    let other = tokio::spawn(forever());
    cases.waits("join_handle", "join");
    let _ = other.await;
}

async fn join_set(cases: Cases) {
    let mut set = tokio::task::JoinSet::new();
    set.spawn(forever());
    set.spawn(forever());
    cases.waits("join_set", "join");
    set.join_next().await;
}

async fn join_blocking(cases: Cases) {
    let (_tx, rx) = std::sync::mpsc::channel::<()>();
    let blocking = tokio::task::spawn_blocking(move || rx.recv());
    cases.waits("join_blocking", "join");
    let _ = blocking.await;
}
