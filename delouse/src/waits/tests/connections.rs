//! Connections of which the program has both ends.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

async fn exchange(mut end: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let mut all = vec![7; 8 << 20];
    end.write_all(&all).await.unwrap();
    end.read_exact(&mut all).await.unwrap();
}

async fn asks(mut end: impl AsyncReadExt + Unpin) {
    let _ = end.read_u8().await;
}

fn sockets(runtime: &Runtime) -> (TcpStream, TcpStream) {
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.unwrap(), other.unwrap().0)
    })
}

#[test]
fn both_ends_of_a_socket_are_written_first() {
    isolated!();
    let runtime = runtime();
    let (one, other) = sockets(&runtime);
    let tasks = vec![spawn(&runtime, exchange(one)), spawn(&runtime, exchange(other))];
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Suspected, tasks)],
        "{}",
        text(&analysis)
    );
    let said = sentences(&analysis).join("\n");
    assert!(said.contains("the other end of connection-"), "{said}");
    assert!(said.contains("nothing had arrived in either direction"), "{said}");
}

#[test]
fn a_duplicate_of_a_descriptor_may_be_used() {
    isolated!();
    let runtime = runtime();
    let (one, other) = sockets(&runtime);
    let one = one.into_std().unwrap();
    let duplicate = one.try_clone().unwrap();
    let one = runtime.block_on(async { TcpStream::from_std(one).unwrap() });
    spawn(&runtime, asks(one));
    spawn(&runtime, asks(other));
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    drop(duplicate);
}

#[test]
fn an_end_of_main_may_be_used() {
    isolated!();
    let runtime = runtime();
    let (one, other) = sockets(&runtime);
    spawn(&runtime, asks(other));
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    drop(one);
}

async fn holds(end: DuplexStream, and: impl Future<Output = ()>) {
    and.await;
    drop(end);
}

#[test]
fn both_ends_of_a_pipe_in_memory_wait() {
    isolated!();
    let runtime = runtime();
    let (one, other) = tokio::io::duplex(64);
    spawn(&runtime, exchange(one));
    spawn(&runtime, reads_slowly(other));
    assert_eq!(kinds(&analysis(&runtime)), []);
    let (one, other) = tokio::io::duplex(64);
    let stuck = vec![spawn(&runtime, exchange(one)), spawn(&runtime, exchange(other))];
    let analysis = analysis(&runtime);
    assert_eq!(kinds(&analysis), [(FindingKind::Deadlock, stuck)], "{}", text(&analysis));
}

async fn reads_slowly(mut end: DuplexStream) {
    loop {
        let _ = end.read_u8().await;
        tokio::time::sleep(HOUR).await;
    }
}

#[test]
fn an_end_of_a_pipe_with_a_living_task() {
    isolated!();
    let runtime = runtime();
    let (one, other) = tokio::io::duplex(64);
    spawn(&runtime, asks(one));
    let timer = async { tokio::time::sleep(HOUR).await };
    spawn(&runtime, holds(other, timer));
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}
