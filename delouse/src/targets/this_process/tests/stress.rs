//! Captures of a program whose threads do everything that captures have been known to break.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::forked::FORCED;
use super::{Parked, isolated, test_name, thread_of};
use crate::snapshot::{Snapshot, Unavailable};
use crate::targets::{core_dump, fork_with_threads, freeze, freeze_fork_thaw, rolling};

static STOP: AtomicBool = AtomicBool::new(false);
static DONE: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

fn again_and_again(which: usize, work: impl Fn() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !STOP.load(Ordering::Relaxed) {
            work();
            DONE[which].fetch_add(1, Ordering::Relaxed);
        }
    })
}

fn panic_and_catch() {
    struct Dropped;
    impl Drop for Dropped {
        fn drop(&mut self) {
            std::hint::black_box(vec![1_u8; 100]);
        }
    }
    let caught = std::panic::catch_unwind(|| {
        let _dropped = Dropped;
        std::panic::resume_unwind(Box::new(5));
    });
    assert!(caught.is_err());
}

fn load_and_unload() {
    // SAFETY: a library of the C library's own, without state.
    unsafe {
        let library = libc::dlopen(c"libutil.so.1".as_ptr(), libc::RTLD_NOW);
        if !library.is_null() {
            libc::dlclose(library);
        }
    }
}

fn map_and_unmap() {
    // SAFETY: a mapping of this function's own.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let base = libc::mmap(std::ptr::null_mut(), 1 << 16, access, flags, -1, 0);
        assert_ne!(base, libc::MAP_FAILED);
        base.cast::<u8>().write(1);
        libc::munmap(base, 1 << 16);
    }
}

#[test]
fn captures_and_the_program_survive_each_other() {
    isolated(test_name!(captures_and_the_program_survive_each_other), || {
        // DELOUSE_STRESS sets the number of rounds.
        let rounds = std::env::var("DELOUSE_STRESS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
        let parked: Vec<Parked> = (0..30).map(Parked::new).collect();
        let mut threads = vec![
            again_and_again(0, panic_and_catch),
            again_and_again(1, load_and_unload),
            again_and_again(2, map_and_unmap),
            again_and_again(3, || {
                std::hint::black_box((0..100).map(|n| vec![0_u8; n * 100]).collect::<Vec<_>>());
            }),
            again_and_again(4, || {
                let status = std::process::Command::new("true").status();
                assert!(status.unwrap().success(), "the program's own child failed");
            }),
        ];
        threads.push(again_and_again(0, panic_and_catch));
        let (mut worst, mut missed) = (0, 0);
        for round in 0..rounds {
            let live;
            let image;
            let snapshot: &dyn Snapshot = match round % 4 {
                0 | 1 => {
                    live = if round % 4 == 0 { rolling() } else { freeze() }.unwrap();
                    &live
                }
                kind => {
                    image =
                        if kind == 2 { fork_with_threads(FORCED) } else { freeze_fork_thaw(FORCED) }.unwrap();
                    if round % 20 == 3 {
                        core_dump::write(&image, &mut std::io::sink()).unwrap();
                    }
                    &image
                }
            };
            for thread in &parked {
                // A page fault may have to wait for `mmap` calls of other threads, and the capture gives up on the thread:
                // it is listed without registers, and the capture is not consistent.
                if round % 2 == 1
                    && thread_of(snapshot, thread.tid).registers == Err(Unavailable::Uninterruptible)
                {
                    assert!(!snapshot.capture().consistent);
                    missed += 1;
                } else {
                    thread.assert_captured(snapshot);
                }
            }
            worst = worst.max(snapshot.capture().pause_us);
        }
        STOP.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let done = DONE.each_ref().map(|count| count.load(Ordering::Relaxed));
        println!("{rounds} captures, worst pause {worst} us, {missed} stacks missed, meanwhile {done:?}");
        // At most one in ten, on busy processors; usually none.
        assert!(missed <= rounds * parked.len() / 10, "{missed} stacks of {rounds} captures");
        assert!(done.iter().all(|&count| count > 0), "every kind of thread continued: {done:?}");
        assert!(Duration::from_micros(worst) < Duration::from_secs(1));
    });
}
