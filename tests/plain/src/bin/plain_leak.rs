//! Pairs of tasks, each of which holds the sender that the other waits on. One more pair every 100 ms.

use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};

#[tokio::main]
async fn main() {
    for pairs in 1u64.. {
        let (to_reader, from_writer) = channel(8);
        let (to_writer, from_reader) = channel(8);
        tokio::spawn(forward(from_writer, to_writer));
        tokio::spawn(forward(from_reader, to_reader));
        if pairs == 8 {
            println!("ready");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn forward(mut from: Receiver<String>, to: Sender<String>) {
    while let Some(message) = from.recv().await {
        if to.send(message).await.is_err() {
            return;
        }
    }
}
