//! delouse and tokio-console in one program.

use std::net::TcpListener;
use std::time::Duration;

fn main() {
    // Prints a free port for the test: the console does not report which port it took.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let Ok(address) = free else { return };
    console_subscriber::Builder::default().server_addr(address).init();
    println!("console on {address}");
    run();
}

#[delouse::main]
async fn run() {
    let heart = tokio::spawn(beat());
    let _forever = heart.await;
}

async fn beat() {
    loop {
        println!("beat");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
