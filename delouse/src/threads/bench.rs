//! Measures the cost of `/stacktrace/rust` and prints it. Run with
//! `cargo test --release -p delouse --features debug threads::bench -- --nocapture`.

use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::stacks::stacks;
use crate::debuginfo::symbols::Symbols;
use crate::snapshot::Snapshot;
use crate::targets::rolling;

const THREADS: usize = 200;

fn rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

fn at_depth<R>(depth: usize, last: &mut dyn FnMut() -> R) -> R {
    if depth == 0 { last() } else { std::hint::black_box(at_depth(std::hint::black_box(depth - 1), last)) }
}

/// Threads that wait in two ways, at different stack depths.
#[test]
fn two_hundred_threads() {
    let arrived = Arc::new(Barrier::new(THREADS + 1));
    let pair = Arc::new((Mutex::new(false), Condvar::new()));
    let mut senders = Vec::new();
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let (arrived, pair) = (arrived.clone(), pair.clone());
            let (sender, receiver) = mpsc::channel::<()>();
            senders.push(sender);
            std::thread::spawn(move || {
                arrived.wait();
                at_depth(n % 20, &mut || {
                    if n % 2 == 0 {
                        let _ = receiver.recv();
                    } else {
                        drop(pair.1.wait_while(pair.0.lock().unwrap(), |done| !*done).unwrap());
                    }
                });
            })
        })
        .collect();
    arrived.wait();

    let symbols = Symbols::new();
    let answer = || {
        let start = Instant::now();
        let snapshot = rolling().unwrap();
        let captured = start.elapsed();
        let (threads, _) = stacks(&snapshot, &symbols);
        let unwound = start.elapsed();
        let text = crate::report::threads::text(&threads, snapshot.capture(), false);
        let json = serde_json::to_string(&threads).unwrap();
        let frames: usize = threads.iter().map(|t| t.frames.len()).sum();
        (
            captured,
            unwound - captured,
            start.elapsed() - unwound,
            start.elapsed(),
            threads.len(),
            frames,
            text.len() + json.len(),
        )
    };
    let before = rss_kb();
    let (capture, stacks, report, total, ..) = answer();
    println!(
        "cold: capture {capture:?}, stacks {stacks:?}, report {report:?}, whole {total:?}; +{} kB",
        rss_kb() - before
    );
    let mut warm: Vec<_> = (0..20).map(|_| answer()).collect();
    warm.sort_by_key(|w| w.3);
    let (capture, stacks, report, total, count, frames, bytes) = warm[warm.len() / 2];
    println!(
        "warm: {count} threads, {frames} frames, {bytes} bytes: capture {capture:?}, stacks {stacks:?}, report {report:?}, whole {total:?} (worst {:?})",
        warm[warm.len() - 1].3
    );
    let loaded = rss_kb();
    assert!(symbols.loaded() >= 2, "the test and libc");
    symbols.trim(Duration::from_secs(3600));
    assert!(symbols.loaded() >= 2, "still in use");
    symbols.trim(Duration::ZERO);
    assert_eq!(symbols.loaded(), 0);
    println!("trim: {} kB of {} kB released", loaded.saturating_sub(rss_kb()), loaded.saturating_sub(before));
    if !cfg!(debug_assertions) {
        assert!(total < Duration::from_millis(50), "{total:?}");
    }

    *pair.0.lock().unwrap() = true;
    pair.1.notify_all();
    drop(senders);
    for thread in threads {
        thread.join().unwrap();
    }
}
