//! What the benchmarks measure with.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Runs `work`, and returns the most anonymous memory that the process had meanwhile, in bytes.
///
/// # Panics
/// Where there is no such process.
pub fn watched<T>(pid: u32, work: impl FnOnce() -> T) -> (T, u64) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Relaxed) {
                most = most.max(anonymous(pid));
                thread::sleep(Duration::from_millis(1));
            }
            most
        });
        let result = work();
        over.store(true, Relaxed);
        (result, watcher.join().expect("it only reads"))
    })
}

/// Anonymous memory of a process, in bytes.
///
/// # Panics
/// Where there is no such process.
#[must_use]
pub fn anonymous(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// The one in the middle, and the longest.
///
/// # Panics
/// Where there are none.
#[must_use]
pub fn median_and_worst(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

/// Milliseconds or microseconds.
#[must_use]
pub fn show(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..=9_999 => format!("{micros} µs"),
        _ => format!("{:.1} ms", time.as_secs_f64() * 1e3),
    }
}
