//! A server that sends back what it receives: a task for each connection, and 20 idle tasks. Prints `ready ADDRESS`.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    for _ in 0..20 {
        tokio::spawn(rests());
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ready {}", listener.local_addr()?);
    tokio::spawn(accepts(listener)).await?
}

async fn rests() {
    std::future::pending::<()>().await;
}

async fn accepts(listener: TcpListener) -> std::io::Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        tokio::spawn(echoes(connection));
    }
}

async fn echoes(mut connection: TcpStream) {
    let mut message = [0; 64];
    while connection.read_exact(&mut message).await.is_ok() {
        if connection.write_all(&message).await.is_err() {
            return;
        }
    }
}
