//! Measures and prints the cost of captures. A short form runs with the tests. The long form:
//!
//! ```text
//! DELOUSE_FIGURES=1 cargo test --release -p delouse --features debug --lib figures -- --nocapture
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::forked::FORCED;
use super::{Parked, isolated, test_name};
use crate::snapshot::Snapshot;
use crate::targets::this_process::engine::{self, STACK_LIMIT};
use crate::targets::this_process::hold::Hold;
use crate::targets::{core_dump, core_writer, fork, freeze_fork_thaw};

/// The longest gap between wake-ups of a thread that repeatedly sleeps for a millisecond.
static LONGEST_GAP: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

fn tick() {
    let mut last = Instant::now();
    while !STOP.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
        let gap = last.elapsed().as_micros() as u64;
        LONGEST_GAP.fetch_max(gap, Ordering::Relaxed);
        last = Instant::now();
    }
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}

/// Prints the median and the worst of `rounds` runs, and the ticker's longest gap meanwhile.
fn row(what: &str, rounds: usize, mut run: impl FnMut() -> Duration) -> Duration {
    LONGEST_GAP.store(0, Ordering::Relaxed);
    let values: Vec<_> = (0..rounds).map(|_| run()).collect();
    let worst = values.iter().copied().max().unwrap();
    let middle = median(values);
    let gap = LONGEST_GAP.load(Ordering::Relaxed);
    println!(
        "{what:44} median {middle:>10.1?}  worst {worst:>10.1?}  longest gap of a 1 ms ticker {gap:>6} us"
    );
    middle
}

#[test]
fn figures() {
    let long = std::env::var_os("DELOUSE_FIGURES").is_some();
    let print = || {
        let ticker = std::thread::spawn(tick);
        let (counts, rounds, megabytes): (&[usize], _, &[usize]) =
            if long { (&[10, 200, 1000], 40, &[50, 1024]) } else { (&[10], 5, &[50]) };
        row("nothing", rounds, || {
            std::thread::sleep(Duration::from_millis(10));
            Duration::ZERO
        });
        for &threads in counts {
            let parked: Vec<_> = (0..threads).map(|n| Parked::new(n as u64)).collect();
            let mut means = Vec::new();
            let per_thread =
                row(&format!("{threads} threads, rolling, in a handler (median)"), rounds, || {
                    let in_handlers = engine::capture(Hold::Separately, STACK_LIMIT).unwrap().in_handlers;
                    means.push(in_handlers.iter().sum::<Duration>() / in_handlers.len() as u32);
                    median(in_handlers)
                });
            println!("{:44} median {:>10.1?}", "  mean, with those that were preempted in it", median(means));
            assert!(long || per_thread < Duration::from_millis(1), "{per_thread:?}");
            row(&format!("{threads} threads, rolling, the whole capture"), rounds, || {
                let started = Instant::now();
                assert!(engine::capture(Hold::Separately, STACK_LIMIT).unwrap().threads.len() > threads);
                started.elapsed()
            });
            for (what, limit) in [("stacks copied", STACK_LIMIT), ("registers only", 0)] {
                let mut held = Vec::new();
                row(&format!("{threads} threads, frozen, {what}, stop"), rounds, || {
                    let capture =
                        engine::capture(Hold::Together(&mut |held| held.capturing_thread.capture()), limit);
                    let pause = capture.unwrap().pause;
                    held.push(pause.longest);
                    pause.program
                });
                println!("{:44} median {:>10.1?}", "  of which sleepers are held for longer", median(held));
            }
            let mut held = Vec::new();
            row(&format!("{threads} threads, freeze-fork-thaw, stop"), rounds, || {
                let image = freeze_fork_thaw(FORCED).unwrap();
                held.push(Duration::from_micros(image.capture().held_us));
                Duration::from_micros(image.capture().pause_us)
            });
            println!("{:44} median {:>10.1?}", "  of which sleepers are held for longer", median(held));
            drop(parked);
        }
        for &megabytes in megabytes {
            let mut block = vec![1_u8; megabytes << 20];
            let len = block.len();
            // SAFETY: our own block; advice does not change its contents.
            unsafe {
                let page = crate::targets::this_process::page_size();
                let start = block.as_mut_ptr().wrapping_add(page - block.as_ptr() as usize % page);
                libc::madvise(start.cast(), len - 2 * page, libc::MADV_NOHUGEPAGE);
            }
            block.chunks_mut(4096).for_each(|page| page[0] = 2);
            let parked: Vec<_> = (0..10).map(Parked::new).collect();
            row(&format!("{megabytes} MB, fork, stop"), rounds / 2, || {
                Duration::from_micros(fork(FORCED).unwrap().capture().pause_us)
            });
            row(&format!("{megabytes} MB, freeze-fork-thaw, stop"), rounds / 2, || {
                Duration::from_micros(freeze_fork_thaw(FORCED).unwrap().capture().pause_us)
            });
            row(&format!("{megabytes} MB, core written to nowhere"), 2, || {
                let image = freeze_fork_thaw(FORCED).unwrap();
                let started = Instant::now();
                let stats = core_dump::write(&image, &mut std::io::sink()).unwrap();
                assert!(stats.bytes > len as u64);
                started.elapsed()
            });
            row(&format!("{megabytes} MB, estimate of a core"), 2, || {
                let started = Instant::now();
                assert!(core_writer::estimate().unwrap().bytes > len as u64);
                started.elapsed()
            });
            drop(parked);
        }
        STOP.store(true, Ordering::Relaxed);
        ticker.join().unwrap();
    };
    if long { print() } else { isolated(test_name!(figures), print) }
}
