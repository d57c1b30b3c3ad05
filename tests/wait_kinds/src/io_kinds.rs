//! Input and output: to read or to write, by every kind of descriptor and of stream around it.

use std::io::Write as _;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream, unix};
use tokio_util::codec::{Framed, LinesCodec};

use crate::cases::Cases;

/// One task of every kind.
pub(crate) fn spawn(cases: &Cases) {
    sockets(cases);
    streams(cases);
    blocking(cases);
}

fn sockets(cases: &Cases) {
    cases.spawn(half_reads_while_half_writes);
    cases.spawn(copies_between_halves);
    cases.spawn(writes_in_a_select);
    cases.spawn(reads_in_a_set);
    cases.spawn(unix_writes);
    cases.spawn(udp_readable);
    cases.spawn(tcp_writable);
    cases.spawn(pipe_reads);
    cases.spawn(pipe_writes);
    cases.spawn(listener_stream);
    cases.spawn(flushes);
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (here, there) = tokio::join!(TcpStream::connect(address), listener.accept());
    (here.expect("connected"), there.expect("accepted").0)
}

/// A connection that takes no more bytes.
async fn full() -> (TcpStream, TcpStream) {
    let (mut here, there) = connected().await;
    let block = vec![0; 1 << 20];
    while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(100), here.write(&block)).await {}
    (here, there)
}

/// Two tasks have one connection: each waits for its own direction.
async fn half_reads_while_half_writes(cases: Cases) {
    let (here, _there) = connected().await;
    let (mut reader, mut writer) = here.into_split();
    let other = cases.clone();
    cases.announce();
    tokio::spawn(async move {
        let block = vec![0; 64 << 20];
        other.waits_for("half_of_it_writes", json!({ "kind": "io", "io": { "direction": "write" } }));
        let _ = writer.write_all(&block).await;
    });
    let mut buffer = [0; 64];
    cases.waits_for("half_of_it_reads", json!({ "kind": "io", "io": { "direction": "read" } }));
    let _ = reader.read(&mut buffer).await;
}

/// The socket that it would write to is not waited for.
async fn copies_between_halves(cases: Cases) {
    let (from, _there) = connected().await;
    let (to, _elsewhere) = connected().await;
    let (mut from, mut to) = (from.into_split().0, to.into_split().1);
    cases.waits_for("copies_between_halves", json!({ "kind": "io", "io": { "direction": "read" } }));
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

async fn writes_in_a_select(cases: Cases) {
    let (mut here, _there) = full().await;
    cases.waits_for("writes_in_a_select", json!({ "kind": "io", "io": { "direction": "write" } }));
    tokio::select! {
        _ = here.write_all(b"more") => {}
        () = std::future::pending() => {}
    }
}

/// The waker that tokio has is that of the collection.
async fn reads_in_a_set(cases: Cases) {
    let (mut here, _there) = connected().await;
    let mut set: futures::stream::FuturesUnordered<_> = [here.read_u8()].into_iter().collect();
    cases.waits_for("reads_in_a_set", json!({ "kind": "io", "io": { "direction": "read" } }));
    set.next().await;
}

async fn unix_writes(cases: Cases) {
    let (mut here, _there) = UnixStream::pair().expect("a pair");
    let block = vec![0; 64 << 20];
    cases.waits_for("unix_writes", json!({ "kind": "io", "io": { "direction": "write" } }));
    let _ = here.write_all(&block).await;
}

async fn udp_readable(cases: Cases) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    cases.waits_for("udp_readable", json!({ "kind": "io", "io": { "direction": "read" } }));
    let _ = socket.readable().await;
}

async fn tcp_writable(cases: Cases) {
    let (here, _there) = full().await;
    cases.waits_for("tcp_writable", json!({ "kind": "io", "io": { "direction": "write" } }));
    let _ = here.writable().await;
}

async fn pipe_reads(cases: Cases) {
    let (_writer, mut reader) = unix::pipe::pipe().expect("a pipe");
    cases.waits_for("pipe_reads", json!({ "kind": "io", "io": { "direction": "read" } }));
    let _ = reader.read_u8().await;
}

async fn pipe_writes(cases: Cases) {
    let (mut writer, _reader) = unix::pipe::pipe().expect("a pipe");
    let block = vec![0; 1 << 20];
    cases.waits_for("pipe_writes", json!({ "kind": "io", "io": { "direction": "write" } }));
    let _ = writer.write_all(&block).await;
}

async fn listener_stream(cases: Cases) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let mut stream = tokio_stream::wrappers::TcpListenerStream::new(listener);
    cases.waits_for("listener_stream", json!({ "kind": "io", "io": { "direction": "read" } }));
    stream.next().await;
}

async fn flushes(cases: Cases) {
    let (here, _there) = full().await;
    let mut buffered = tokio::io::BufWriter::new(here);
    buffered.write_all(b"more").await.expect("room in the buffer");
    cases.waits_for("flushes", json!({ "kind": "io", "io": { "direction": "write" } }));
    let _ = buffered.flush().await;
}

fn streams(cases: &Cases) {
    cases.spawn(split_stream);
    cases.spawn(split_sink);
    cases.spawn(framed_send);
    cases.spawn(duplex_writes);
    cases.spawn(duplex_reads);
    cases.spawn(simplex_reads);
    cases.spawn(simplex_writes);
    cases.spawn(futures_split_reads);
}

/// As every websocket: `StreamExt::split`.
async fn split_stream(cases: Cases) {
    let (here, _there) = connected().await;
    let (_sink, mut stream) = Framed::new(here, LinesCodec::new()).split::<String>();
    cases.waits_for("split_stream", json!({ "kind": "io", "io": { "direction": "read" } }));
    stream.next().await;
}

async fn split_sink(cases: Cases) {
    let (here, _there) = connected().await;
    let (mut sink, _stream) = Framed::new(here, LinesCodec::new()).split::<String>();
    let line = "x".repeat(64 << 20);
    cases.waits_for("split_sink", json!({ "kind": "io", "io": { "direction": "write" } }));
    let _ = sink.send(line).await;
}

async fn framed_send(cases: Cases) {
    let (here, _there) = connected().await;
    let mut framed = Framed::new(here, LinesCodec::new());
    let line = "x".repeat(64 << 20);
    cases.waits_for("framed_send", json!({ "kind": "io", "io": { "direction": "write" } }));
    let _ = framed.send(line).await;
}

async fn duplex_writes(cases: Cases) {
    let (mut here, _there) = tokio::io::duplex(4);
    cases.waits_for("duplex_writes", json!({ "kind": "io", "io": { "direction": "write" } }));
    let _ = here.write_all(b"more than four").await;
}

async fn duplex_reads(cases: Cases) {
    let (mut here, _there) = tokio::io::duplex(4);
    cases.waits_for("duplex_reads", json!({ "kind": "io", "io": { "direction": "read" } }));
    let _ = here.read_u8().await;
}

async fn simplex_reads(cases: Cases) {
    let (mut reader, _writer) = tokio::io::simplex(4);
    cases.waits_for("simplex_reads", json!({ "kind": "io", "io": { "direction": "read" } }));
    let _ = reader.read_u8().await;
}

async fn simplex_writes(cases: Cases) {
    let (_reader, mut writer) = tokio::io::simplex(4);
    cases.waits_for("simplex_writes", json!({ "kind": "io", "io": { "direction": "write" } }));
    let _ = writer.write_all(b"more than four").await;
}

async fn futures_split_reads(cases: Cases) {
    use futures::AsyncReadExt as _;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;
    let (here, _there) = connected().await;
    let (mut reader, _writer) = here.compat().split();
    let mut buffer = [0; 4];
    cases.waits_for("futures_split_reads", json!({ "kind": "io", "io": { "direction": "read" } }));
    let _ = reader.read(&mut buffer).await;
}

fn blocking(cases: &Cases) {
    cases.spawn(reads_stdin);
    cases.spawn(reads_a_file);
    cases.spawn(writes_a_file);
    cases.spawn(reads_a_whole_file);
}

async fn reads_stdin(cases: Cases) {
    let mut stdin = tokio::io::stdin();
    let expected = json!({ "kind": "join", "io": { "direction": "read", "file": "stdin" } });
    let mut buffer = [0; 4];
    cases.waits_for("reads_stdin", expected);
    let _ = stdin.read(&mut buffer).await;
}

/// A file whose reads block: one end of a pipe.
async fn reads_a_file(cases: Cases) {
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let mut file = tokio::fs::File::from_std(std::os::fd::OwnedFd::from(reader).into());
    let expected = json!({ "kind": "join", "io": { "direction": "read", "file": "file" } });
    let mut buffer = [0; 4];
    cases.waits_for("reads_a_file", expected);
    let _ = file.read(&mut buffer).await;
}

async fn writes_a_file(cases: Cases) {
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&[0; 1 << 16]).expect("room");
    let mut file = tokio::fs::File::from_std(std::os::fd::OwnedFd::from(writer).into());
    let expected = json!({ "kind": "join", "io": { "direction": "write", "file": "file" } });
    file.write_all(b"more").await.expect("goes to the blocking pool");
    cases.waits_for("writes_a_file", expected);
    let _ = file.flush().await;
}

async fn reads_a_whole_file(cases: Cases) {
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    cases.waits("reads_a_whole_file", "join");
    let _ = tokio::fs::read(path).await;
}
