//! Programs that handle SIGQUIT themselves, before or after delouse, one that calls `delouse::dump()`, and one that panics.

use tokio::signal::unix::{SignalKind, signal};

fn main() -> std::io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("handles_it") => handles_it(),
        Some("handled_it_before") => {
            let runtime = tokio::runtime::Runtime::new()?;
            let _inside = runtime.enter();
            let signals = signal(SignalKind::quit())?;
            println!("served {}", delouse::init().address().is_some());
            runtime.block_on(count(signals));
            Ok(())
        }
        Some("dumps") => dumps(),
        Some("dumps_without_server") => {
            println!("dumped {:?}", delouse::dump());
            Ok(())
        }
        Some("panics") => {
            std::panic::set_hook(Box::new(|_| println!("the program's own hook")));
            panics();
            Ok(())
        }
        other => {
            eprintln!("no such way: {other:?}");
            Ok(())
        }
    }
}

#[delouse::main(worker_threads = 1)]
async fn handles_it() -> std::io::Result<()> {
    count(signal(SignalKind::quit())?).await;
    Ok(())
}

async fn count(mut signals: tokio::signal::unix::Signal) {
    println!("ready");
    for number in 1.. {
        signals.recv().await;
        println!("quit {number} is mine");
    }
}

#[delouse::main(worker_threads = 2)]
async fn dumps() -> std::io::Result<()> {
    let _waits = tokio::spawn(waits_for_ever());
    // One poll of it is over.
    let _done = tokio::spawn(tokio::task::yield_now()).await;
    let asked = tokio::spawn(asks());
    println!("dumped {:?}", asked.await?);
    Ok(())
}

async fn asks() -> Result<(), delouse::DumpError> {
    delouse::dump()
}

async fn waits_for_ever() {
    tokio::sync::Notify::new().notified().await;
}

#[delouse::main(worker_threads = 2)]
async fn panics() {
    let ended = tokio::spawn(fails()).await;
    println!("a panic: {}", ended.is_err_and(|error| error.is_panic()));
}

async fn fails() {
    tokio::task::yield_now().await;
    fails_inside().await;
}

async fn fails_inside() {
    panic!("as the test wants");
}
