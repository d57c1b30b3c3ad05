//! A program in which nothing is wrong: a task that sleeps and wakes.

use std::time::Duration;

#[tokio::main]
async fn main() {
    let heart = tokio::spawn(beat());
    println!("ready");
    let _ends = heart.await;
}

async fn beat() {
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
