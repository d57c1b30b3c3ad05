//! Tasks that wait for sockets of several kinds.

use tokio::io::AsyncReadExt as _;
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
    let tasks = [
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
    drop(client);
    Ok(())
}

async fn accepts(listener: TcpListener) {
    let _accepted = listener.accept().await;
}

async fn serves(mut connection: TcpStream) {
    let _read = connection.read_u8().await;
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
