//! An HTTP server that writes to its memory all the time: `write_load MEGABYTES PAGES`.
//!
//! Each request writes a word to PAGES pages, at random, of MEGABYTES of memory, which it has touched before: after a fork, the
//! first write to each of them is a page fault, in which the kernel copies the page. Prints `serving on ADDRESS`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use tokio::net::TcpListener;

/// Words of 8 bytes in a page of 4096.
const PAGE: usize = 512;

struct Memory {
    words: Vec<AtomicU64>,
    pages: usize,
    seed: AtomicU64,
}

#[delouse::main(worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|number| number.parse::<usize>().ok());
    let (megabytes, pages) = (numbers.next().unwrap_or(50), numbers.next().unwrap_or(64));
    let words = (0..(megabytes << 20) / 8).map(|word| AtomicU64::new(word as u64 | 1)).collect();
    let memory = Arc::new(Memory { words, pages, seed: AtomicU64::new(1) });
    let app = Router::new().route("/write", get(write)).with_state(memory);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("serving on {}", listener.local_addr()?);
    axum::serve(listener, app).await
}

async fn write(State(memory): State<Arc<Memory>>) -> String {
    // Splitmix64: which pages, without a lock.
    let mut at = memory.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
    let mut sum = 0u64;
    for _ in 0..memory.pages {
        at = (at ^ at >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        at ^= at >> 27;
        let page = (at as usize) % (memory.words.len() / PAGE).max(1);
        if let Some(word) = memory.words.get(page * PAGE) {
            sum = sum.wrapping_add(word.fetch_add(1, Relaxed));
        }
    }
    sum.to_string()
}
