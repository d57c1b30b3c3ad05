//! Connections whose two tasks keep one another alive: each holds the sender that the other waits on.
//!
//! ```text
//! cargo run --features debug --bin leak
//! curl -s 'localhost:7132/diagnosis?format=text'
//! ```
//!
//! Names the two groups in its first line: `read_half` and `write_half`, all at their `recv`, all of connections
//! that ended long ago. With `?seconds=10`, how many came in that time.

use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};

#[delouse::main]
async fn main() {
    for connection in 1u64.. {
        serve();
        println!("connection {connection} came and went");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// One connection: two halves that tell one another what they did. The peer is gone at once, yet neither half
/// ever sees its channel closed, for the other one's handle is kept by the task that waits.
fn serve() {
    let (to_reader, from_writer) = channel(8);
    let (to_writer, from_reader) = channel(8);
    tokio::spawn(read_half(from_writer, to_writer));
    tokio::spawn(write_half(from_reader, to_reader));
}

async fn read_half(mut replies: Receiver<String>, requests: Sender<String>) {
    while let Some(reply) = replies.recv().await {
        if requests.send(reply).await.is_err() {
            return;
        }
    }
}

async fn write_half(mut requests: Receiver<String>, replies: Sender<String>) {
    while let Some(request) = requests.recv().await {
        if replies.send(request).await.is_err() {
            return;
        }
    }
}
