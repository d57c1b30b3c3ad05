//! Loops of spawn, yield and ping-pong. Prints a line for each: its name, and nanoseconds for one round.
//!
//! `loops NAME ROUNDS` runs one of them once, for a count of its instructions.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

const ROUNDS: u32 = 200_000;
/// Runs of each loop, of which the fastest counts: nothing makes a loop faster than it is.
const RUNS: usize = 5;

fn main() {
    #[cfg(feature = "console")]
    {
        // Any free port.
        console_subscriber::Builder::default().server_addr(([127, 0, 0, 1], 0)).init();
    }
    run();
}

#[delouse::main(worker_threads = 1)]
async fn run() {
    let mut arguments = std::env::args().skip(1);
    if let (Some(name), Some(Ok(rounds))) = (arguments.next(), arguments.next().map(|text| text.parse())) {
        let _took = match name.as_str() {
            "spawn" => tokio::spawn(spawn(rounds)).await,
            "yield" => tokio::spawn(yields(rounds)).await,
            _ => tokio::spawn(ping_pong(rounds)).await,
        };
        return;
    }
    report("spawn", spawn).await;
    report("yield", yields).await;
    report("ping-pong", ping_pong).await;
}

async fn report<F: Future<Output = Duration> + Send + 'static>(name: &str, run: fn(u32) -> F) {
    let mut fastest = Duration::MAX;
    for _ in 0..RUNS {
        // On the worker, not in the main future: that is where programs work.
        if let Ok(took) = tokio::spawn(run(ROUNDS)).await {
            fastest = fastest.min(took);
        }
    }
    println!("{name} {:.1}", fastest.as_nanos() as f64 / f64::from(ROUNDS));
}

/// Spawns a task and waits for its end.
async fn spawn(rounds: u32) -> Duration {
    let begun = Instant::now();
    for round in 0..rounds {
        let _ended = tokio::spawn(async move { std::hint::black_box(round) }).await;
    }
    begun.elapsed()
}

async fn yields(rounds: u32) -> Duration {
    let begun = Instant::now();
    for _ in 0..rounds {
        tokio::task::yield_now().await;
    }
    begun.elapsed()
}

/// A message to another task, and its answer.
async fn ping_pong(rounds: u32) -> Duration {
    let (ping, mut pinged) = mpsc::channel::<u32>(1);
    let (pong, mut ponged) = mpsc::channel(1);
    let other = tokio::spawn(async move {
        while let Some(round) = pinged.recv().await {
            if pong.send(round).await.is_err() {
                return;
            }
        }
    });
    let begun = Instant::now();
    for round in 0..rounds {
        if ping.send(round).await.is_err() || ponged.recv().await != Some(round) {
            break;
        }
    }
    let took = begun.elapsed();
    drop(ping);
    let _ended = other.await;
    took
}
