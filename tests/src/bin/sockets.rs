//! Tasks that wait for sockets of several kinds.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream, unix};

#[delouse::main(worker_threads = 1)]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?;
    let (client, accepted) = tokio::join!(TcpStream::connect(server), listener.accept());
    let (client, (accepted, from)) = (client?, accepted?);
    let udp = UdpSocket::bind("127.0.0.1:0").await?;
    let (local, _other) = UnixStream::pair()?;
    let (_sender, pipe) = unix::pipe::pipe()?;
    println!("server {server} client {from} udp {}", udp.local_addr()?);
    let (full, accepted_full) = tokio::join!(TcpStream::connect(server), listener.accept());
    let (full, (unread, _)) = (full?, accepted_full?);
    let (half_closed, accepted_half) = tokio::join!(TcpStream::connect(server), listener.accept());
    let (mut half_closed, (accepted_half, _)) = (half_closed?, accepted_half?);
    half_closed.shutdown().await?;
    let tasks = [
        tokio::spawn(asks(client)),
        tokio::spawn(fills(full)),
        tokio::spawn(answers_after_the_end(accepted_half)),
        tokio::spawn(accepts(listener)),
        tokio::spawn(serves(accepted)),
        tokio::spawn(listens(udp)),
        tokio::spawn(talks(local)),
        tokio::spawn(pipes(pipe)),
    ];
    // All of them have been polled when this one has: there is one worker.
    let _done = tokio::spawn(tokio::task::yield_now()).await;
    println!("ready");
    for task in tasks {
        let _never = task.await;
    }
    drop((unread, half_closed));
    Ok(())
}

async fn accepts(listener: TcpListener) {
    let _accepted = listener.accept().await;
}

async fn serves(mut connection: TcpStream) {
    let _read = connection.read_u8().await;
}

async fn asks(mut connection: TcpStream) {
    let _read = connection.read_u8().await;
}

/// More than the kernel keeps for a connection whose other end does not read.
const TOO_MUCH: usize = 64 << 20;

async fn fills(mut connection: TcpStream) {
    let _written = connection.write_all(&vec![0; TOO_MUCH]).await;
}

async fn answers_after_the_end(mut connection: TcpStream) {
    let _end = connection.read_u8().await;
    let _written = connection.write_all(&vec![0; TOO_MUCH]).await;
}

async fn listens(socket: UdpSocket) {
    let _received = socket.recv(&mut [0; 8]).await;
}

async fn talks(mut connection: UnixStream) {
    let _read = connection.read_u8().await;
}

async fn pipes(mut pipe: unix::pipe::Receiver) {
    let _read = pipe.read_u8().await;
}
