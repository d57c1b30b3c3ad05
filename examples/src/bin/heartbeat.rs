//! A healthy service that prints a line at regular intervals.
//!
//! ```text
//! cargo run --features debug
//! curl -s localhost:7132/stacktrace/tokio | jq -r .stacktrace
//! ```
//!
//! Shows one task, in `beat` at the line of its `sleep`, and the main future, which waits for it.

use std::time::Duration;

#[delouse::main]
async fn main() {
    let heart = tokio::spawn(beat());
    if let Err(stopped) = heart.await {
        eprintln!("the heart stopped: {stopped}");
    }
}

async fn beat() {
    for count in 1u64.. {
        println!("heartbeat {count}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
