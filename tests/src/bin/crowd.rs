//! As many idle tasks as its first argument says, with three different stacks of eight functions.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::Notify;

async fn deep(depth: u32) {
    match depth {
        0 => Notify::new().notified().await,
        _ => deeper(depth - 1).await,
    }
}

fn deeper(depth: u32) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(deep(depth))
}

async fn timed() {
    let wait = deep(5);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(86_400), wait).await;
}

async fn either() {
    tokio::select! {
        () = deep(4) => {}
        () = std::future::pending() => {}
    }
}

#[tokio::main]
async fn main() {
    let count: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    for n in 0..count {
        match n % 3 {
            0 => tokio::spawn(deep(7)),
            1 => tokio::spawn(timed()),
            _ => tokio::spawn(either()),
        };
    }
    println!("{count} tasks");
    let mut rest = String::new();
    let _ = std::io::stdin().read_line(&mut rest);
    std::process::exit(0);
}
