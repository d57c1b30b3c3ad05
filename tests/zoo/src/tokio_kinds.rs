//! tokio's own primitives.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use tokio::sync::{Barrier, Mutex, Notify, OnceCell, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::keeper::Keeper;

const AGES: Duration = Duration::from_secs(86_400);

/// One task of every kind.
pub(crate) fn spawn(keeper: &Keeper) {
    sync(keeper);
    time(keeper);
    io(keeper);
    tasks(keeper);
}

fn sync(keeper: &Keeper) {
    keeper.spawn(mutex_lock);
    keeper.spawn(mutex_lock_owned);
    keeper.spawn(rwlock_read);
    keeper.spawn(rwlock_write);
    keeper.spawn(semaphore);
    keeper.spawn(semaphore_many);
    keeper.spawn(mpsc_recv);
    keeper.spawn(mpsc_recv_unbounded);
    keeper.spawn(mpsc_send);
    keeper.spawn(mpsc_reserve);
    keeper.spawn(mpsc_closed);
    keeper.spawn(oneshot_recv);
    keeper.spawn(oneshot_closed);
    keeper.spawn(watch_changed);
    keeper.spawn(watch_wait_for);
    keeper.spawn(broadcast_recv);
    keeper.spawn(notified);
    #[cfg(not(feature = "old-tokio"))]
    keeper.spawn(notified_owned);
    keeper.spawn(barrier);
    keeper.spawn(once_cell);
    keeper.spawn(cancelled);
}

async fn mutex_lock(zoo: Keeper) {
    let mutex = Mutex::new(());
    let _held = mutex.lock().await;
    zoo.waits("mutex_lock", "mutex");
    let _never = mutex.lock().await;
}

async fn mutex_lock_owned(zoo: Keeper) {
    let mutex = Arc::new(Mutex::new(String::new()));
    let _held = mutex.clone().lock_owned().await;
    zoo.waits("mutex_lock_owned", "mutex");
    let _never = mutex.lock_owned().await;
}

async fn rwlock_read(zoo: Keeper) {
    let lock = RwLock::new(7);
    let _held = lock.write().await;
    zoo.waits("rwlock_read", "rwlock");
    let _never = lock.read().await;
}

async fn rwlock_write(zoo: Keeper) {
    let lock = RwLock::new(7);
    let _held = lock.read().await;
    zoo.waits("rwlock_write", "rwlock");
    let _never = lock.write().await;
}

async fn semaphore(zoo: Keeper) {
    let semaphore = Semaphore::new(0);
    zoo.waits("semaphore", "semaphore");
    let _never = semaphore.acquire().await;
}

async fn semaphore_many(zoo: Keeper) {
    let semaphore = Arc::new(Semaphore::new(2));
    zoo.waits("semaphore_many", "semaphore");
    let _never = semaphore.acquire_many_owned(5).await;
}

async fn mpsc_recv(zoo: Keeper) {
    let (_tx, mut rx) = mpsc::channel::<u8>(4);
    zoo.waits("mpsc_recv", "channel_recv");
    rx.recv().await;
}

async fn mpsc_recv_unbounded(zoo: Keeper) {
    let (_tx, mut rx) = mpsc::unbounded_channel::<String>();
    zoo.waits("mpsc_recv_unbounded", "channel_recv");
    rx.recv().await;
}

async fn mpsc_send(zoo: Keeper) {
    let (tx, _rx) = mpsc::channel::<u8>(1);
    let _ = tx.send(1).await;
    zoo.waits("mpsc_send", "channel_send");
    let _ = tx.send(2).await;
}

async fn mpsc_reserve(zoo: Keeper) {
    let (tx, _rx) = mpsc::channel::<u8>(1);
    let _ = tx.send(1).await;
    zoo.waits("mpsc_reserve", "channel_send");
    let _ = tx.reserve().await;
}

async fn mpsc_closed(zoo: Keeper) {
    let (tx, _rx) = mpsc::channel::<u8>(1);
    zoo.waits("mpsc_closed", "closed");
    tx.closed().await;
}

async fn oneshot_recv(zoo: Keeper) {
    let (_tx, rx) = oneshot::channel::<u32>();
    zoo.waits("oneshot_recv", "oneshot");
    let _ = rx.await;
}

async fn oneshot_closed(zoo: Keeper) {
    let (mut tx, _rx) = oneshot::channel::<u32>();
    zoo.waits("oneshot_closed", "closed");
    tx.closed().await;
}

async fn watch_changed(zoo: Keeper) {
    let (_tx, mut rx) = watch::channel(1);
    zoo.waits("watch_changed", "watch");
    let _ = rx.changed().await;
}

async fn watch_wait_for(zoo: Keeper) {
    let (_tx, mut rx) = watch::channel(1);
    zoo.waits("watch_wait_for", "watch");
    let _ = rx.wait_for(|value| *value > 1).await;
}

async fn broadcast_recv(zoo: Keeper) {
    let (_tx, mut rx) = broadcast::channel::<u8>(2);
    zoo.waits("broadcast_recv", "broadcast");
    let _ = rx.recv().await;
}

async fn notified(zoo: Keeper) {
    let notify = Notify::new();
    zoo.waits("notified", "notify");
    notify.notified().await;
}

#[cfg(not(feature = "old-tokio"))]
async fn notified_owned(zoo: Keeper) {
    let notify = Arc::new(Notify::new());
    zoo.waits("notified_owned", "notify");
    notify.notified_owned().await;
}

async fn barrier(zoo: Keeper) {
    let barrier = Barrier::new(2);
    zoo.waits_for("barrier", json!({ "kind": "barrier", "wanted": 2, "arrived": 1 }));
    barrier.wait().await;
}

async fn once_cell(zoo: Keeper) {
    let cell = OnceCell::new();
    zoo.waits("once_cell", "notify");
    cell.get_or_init(forever).await;
}

async fn forever() {
    Notify::new().notified().await;
}

async fn cancelled(zoo: Keeper) {
    let token = CancellationToken::new();
    zoo.waits("cancelled", "cancellation");
    token.cancelled().await;
}

fn time(keeper: &Keeper) {
    keeper.spawn(sleep);
    keeper.spawn(sleep_until);
    keeper.spawn(interval);
    keeper.spawn(timeout);
}

async fn sleep(zoo: Keeper) {
    zoo.waits("sleep", "timer");
    tokio::time::sleep(AGES).await;
}

async fn sleep_until(zoo: Keeper) {
    let deadline = Instant::now() + AGES;
    zoo.waits("sleep_until", "timer");
    tokio::time::sleep_until(deadline).await;
}

async fn interval(zoo: Keeper) {
    let mut interval = tokio::time::interval(AGES);
    interval.tick().await;
    zoo.waits("interval", "timer");
    interval.tick().await;
}

async fn timeout(zoo: Keeper) {
    let (_tx, rx) = oneshot::channel::<u32>();
    zoo.waits("timeout", "oneshot");
    let _ = tokio::time::timeout(AGES, rx).await;
}

fn io(keeper: &Keeper) {
    keeper.spawn(tcp_accept);
    keeper.spawn(tcp_read);
    keeper.spawn(tcp_write);
    keeper.spawn(tcp_readable);
    keeper.spawn(tcp_read_line);
    keeper.spawn(half_of_tcp_read_line);
    keeper.spawn(half_of_tcp_write);
    keeper.spawn(borrowed_half_of_tcp_read);
    keeper.spawn(half_of_unix_read);
    keeper.spawn(half_of_a_stream_read_line);
    keeper.spawn(udp_recv);
    keeper.spawn(unix_accept);
    keeper.spawn(unix_read);
    keeper.spawn(unix_datagram_recv);
    keeper.spawn(duplex_read);
    keeper.spawn(child_wait);
    keeper.spawn(child_output);
    keeper.spawn(signal);
    keeper.spawn(ctrl_c);
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

async fn tcp_accept(zoo: Keeper) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    zoo.waits_for("tcp_accept", io_to("read"));
    let _ = listener.accept().await;
}

async fn tcp_read(zoo: Keeper) {
    let (mut here, _there) = connected().await;
    let mut buffer = [0; 64];
    zoo.waits_for("tcp_read", io_to("read"));
    let _ = here.read(&mut buffer).await;
}

async fn tcp_write(zoo: Keeper) {
    let (mut here, _there) = connected().await;
    let block = vec![0; 64 << 20];
    zoo.waits_for("tcp_write", io_to("write"));
    let _ = here.write_all(&block).await;
}

async fn tcp_readable(zoo: Keeper) {
    let (here, _there) = connected().await;
    zoo.waits_for("tcp_readable", io_to("read"));
    let _ = here.readable().await;
}

async fn tcp_read_line(zoo: Keeper) {
    let (here, _there) = connected().await;
    let mut lines = BufReader::new(here).lines();
    zoo.waits_for("tcp_read_line", io_to("read"));
    let _ = lines.next_line().await;
}

async fn half_of_tcp_read_line(zoo: Keeper) {
    let (here, _there) = connected().await;
    let (reader, _writer) = here.into_split();
    let mut lines = BufReader::new(reader).lines();
    zoo.waits_for("half_of_tcp_read_line", io_to("read"));
    let _ = lines.next_line().await;
}

async fn half_of_tcp_write(zoo: Keeper) {
    let (here, _there) = connected().await;
    let (_reader, mut writer) = here.into_split();
    let block = vec![0; 64 << 20];
    zoo.waits_for("half_of_tcp_write", io_to("write"));
    let _ = writer.write_all(&block).await;
}

async fn borrowed_half_of_tcp_read(zoo: Keeper) {
    let (mut here, _there) = connected().await;
    let (mut reader, _writer) = here.split();
    let mut buffer = [0; 64];
    zoo.waits_for("borrowed_half_of_tcp_read", io_to("read"));
    let _ = reader.read(&mut buffer).await;
}

async fn half_of_unix_read(zoo: Keeper) {
    let (here, _there) = UnixStream::pair().expect("a pair");
    let (mut reader, _writer) = here.into_split();
    let mut text = String::new();
    zoo.waits_for("half_of_unix_read", io_to("read"));
    let _ = reader.read_to_string(&mut text).await;
}

async fn half_of_a_stream_read_line(zoo: Keeper) {
    let (here, _there) = connected().await;
    let (reader, _writer) = tokio::io::split(here);
    let mut lines = BufReader::new(reader).lines();
    zoo.waits_for("half_of_a_stream_read_line", io_to("read"));
    let _ = lines.next_line().await;
}

async fn udp_recv(zoo: Keeper) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let mut buffer = [0; 64];
    zoo.waits_for("udp_recv", io_to("read"));
    let _ = socket.recv_from(&mut buffer).await;
}

async fn unix_accept(zoo: Keeper) {
    let path = std::env::temp_dir().join(format!("zoo-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a fresh path");
    let _ = std::fs::remove_file(&path);
    zoo.waits_for("unix_accept", io_to("read"));
    let _ = listener.accept().await;
}

async fn unix_read(zoo: Keeper) {
    let (mut here, _there) = UnixStream::pair().expect("a pair");
    let mut text = String::new();
    zoo.waits_for("unix_read", io_to("read"));
    let _ = here.read_to_string(&mut text).await;
}

async fn unix_datagram_recv(zoo: Keeper) {
    let (here, _there) = UnixDatagram::pair().expect("a pair");
    let mut buffer = [0; 64];
    zoo.waits_for("unix_datagram_recv", io_to("read"));
    let _ = here.recv(&mut buffer).await;
}

async fn duplex_read(zoo: Keeper) {
    let (mut here, _there) = tokio::io::duplex(64);
    zoo.waits_for("duplex_read", io_to("read"));
    let _ = here.read_u8().await;
}

/// A child that lives as long as we hold its stdin, and no longer than we do.
fn child() -> tokio::process::Child {
    use std::process::Stdio;
    let mut cat = tokio::process::Command::new("cat");
    cat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("cat")
}

async fn child_wait(zoo: Keeper) {
    let mut child = child();
    let _stdin = child.stdin.take();
    let pid = json!({ "kind": "process", "pid": child.id() });
    zoo.waits_for("child_wait", pid);
    let _ = child.wait().await;
}

async fn child_output(zoo: Keeper) {
    let mut child = child();
    let mut stdout = child.stdout.take().expect("piped");
    let mut text = String::new();
    zoo.waits_for("child_output", io_to("read"));
    let _ = stdout.read_to_string(&mut text).await;
}

async fn signal(zoo: Keeper) {
    let kind = tokio::signal::unix::SignalKind::user_defined2();
    let mut signal = tokio::signal::unix::signal(kind).expect("free");
    zoo.waits_for("signal", json!({ "kind": "signal", "signal": 12 }));
    signal.recv().await;
}

async fn ctrl_c(zoo: Keeper) {
    zoo.waits_for("ctrl_c", json!({ "kind": "signal", "signal": 2 }));
    let _ = tokio::signal::ctrl_c().await;
}

fn tasks(keeper: &Keeper) {
    keeper.spawn(join_handle);
    keeper.spawn(join_set);
    keeper.spawn(join_blocking);
}

async fn join_handle(zoo: Keeper) {
    let other = tokio::spawn(forever());
    zoo.waits("join_handle", "join");
    let _ = other.await;
}

async fn join_set(zoo: Keeper) {
    let mut set = tokio::task::JoinSet::new();
    set.spawn(forever());
    set.spawn(forever());
    zoo.waits("join_set", "join");
    set.join_next().await;
}

async fn join_blocking(zoo: Keeper) {
    let (_tx, rx) = std::sync::mpsc::channel::<()>();
    let blocking = tokio::task::spawn_blocking(move || rx.recv());
    zoo.waits("join_blocking", "join");
    let _ = blocking.await;
}
