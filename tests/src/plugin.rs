//! A shared library with a tokio runtime of its own, as an extension module of Python is: its host is no Rust program.

use std::time::Duration;

async fn fetch() {
    tokio::time::sleep(Duration::from_secs(86_400)).await;
}

async fn compute() {
    loop {
        std::hint::spin_loop();
    }
}

#[delouse::main(worker_threads = 2)]
async fn run() {
    tokio::spawn(fetch());
    tokio::spawn(compute());
    std::future::pending::<()>().await;
}

/// Called by the host once; the runtime lives on a thread of its own.
#[unsafe(no_mangle)]
pub extern "C" fn start() {
    std::thread::spawn(run);
}
