//! A service with much to do and nothing wrong: pairs of tasks that play ping-pong as fast as they can.
//!
//! ```text
//! cargo run --features debug --bin busy
//! curl -s 'localhost:7132/stacktrace/tokio?format=text'
//! ```
//!
//! Shows the pairs, most of them in `recv`. The rate that it prints once a second must not fall for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};

const PAIRS: usize = 16;

#[delouse::main]
async fn main() {
    let strokes = Arc::new(AtomicU64::new(0));
    for _ in 0..PAIRS {
        let (ping, pinged) = channel(1);
        let (pong, ponged) = channel(1);
        tokio::spawn(play(ponged, ping.clone(), Arc::clone(&strokes)));
        tokio::spawn(play(pinged, pong, Arc::clone(&strokes)));
        let _served = ping.send(()).await;
    }
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("{} strokes a second", strokes.swap(0, Ordering::Relaxed));
    }
}

async fn play(mut balls: Receiver<()>, over_the_net: Sender<()>, strokes: Arc<AtomicU64>) {
    while let Some(ball) = balls.recv().await {
        strokes.fetch_add(1, Ordering::Relaxed);
        if over_the_net.send(ball).await.is_err() {
            return;
        }
    }
}
