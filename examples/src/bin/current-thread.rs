//! One thread for everything, and sometimes one task that keeps it to itself.
//!
//! ```text
//! cargo run --features debug --bin current-thread
//! curl -s 'localhost:7132/stacktrace/tokio?format=text'
//! ```
//!
//! Shows `tick` and `hog`. While the hog computes, every fourth second, it is running, with the line that it is at,
//! and the answer takes no longer than usual.

use std::time::{Duration, Instant};

#[delouse::main(flavor = "current_thread")]
async fn main() {
    let tick = tokio::spawn(tick());
    let hog = tokio::spawn(hog());
    let _ends = tokio::join!(tick, hog);
}

async fn tick() {
    loop {
        println!("tick");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn hog() {
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            std::hint::spin_loop();
        }
    }
}
