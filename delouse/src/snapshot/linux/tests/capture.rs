//! Rolling and frozen captures.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;

use super::{Parked, thread_of};
use crate::snapshot::linux::sys;
use crate::snapshot::{Live, Snapshot, Unavailable, freeze, rolling};

#[test]
fn every_thread_is_shown_with_registers_and_stack() {
    let parked: Vec<Parked> = (0..30).map(|n| Parked::new(1000 + n)).collect();
    for capture in [rolling().unwrap(), freeze().unwrap()] {
        for thread in &parked {
            thread.assert_captured(&capture);
        }
        let ourselves = thread_of(&capture, sys::gettid());
        let local = 0_u8;
        let here = (&raw const local) as u64;
        let registers = ourselves.registers.unwrap();
        assert!(registers.sp < here, "a callee of ours sent itself the signal");
        assert!(ourselves.stack.as_ref().unwrap().bytes.len() as u64 > here - registers.sp);
        assert!(capture.capture().pause_us > 0);
        assert!(capture.threads().is_sorted_by_key(|thread| thread.tid));
    }
}

#[test]
fn a_busy_thread_is_caught_in_its_function() {
    static STOP: AtomicBool = AtomicBool::new(false);
    #[inline(never)]
    extern "C" fn spin() {
        while !STOP.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || {
        tell.send(sys::gettid()).unwrap();
        spin();
    });
    let tid = told.recv().unwrap();
    let start = spin as *const () as u64;
    // It may be on its way into `spin` at first, and in callees of a debug build.
    let caught = (0..10_000).any(|_| {
        let capture = rolling().unwrap();
        let pc = thread_of(&capture, tid).registers.unwrap().pc;
        (start..start + 256).contains(&pc)
    });
    STOP.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    assert!(caught);
}

#[test]
fn the_plain_list_disturbs_nobody_and_reads_memory() {
    let parked = Parked::new(77);
    let live = Live::now().unwrap();
    let thread = thread_of(&live, parked.tid);
    assert_eq!(thread.registers, Err(Unavailable::NotCaptured));
    assert_eq!(thread.name, "parked 77");
    assert_eq!(live.read_u64(parked.address), Some(77));
    assert_eq!(live.read_u64(8), None);
    assert!(!live.capture().consistent);
}

#[test]
fn stacks_of_frozen_threads_agree() {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    // Two threads take turns; each keeps the number of its turn on its stack. At any one moment the two
    // numbers differ by at most one; in copies of different moments they may be far apart.
    fn take_turns(parity: u64, tell: &std::sync::mpsc::Sender<(i32, u64)>) {
        let mut mine = 0_u64;
        tell.send((sys::gettid(), (&raw const mine) as u64)).unwrap();
        while !STOP.load(Ordering::Relaxed) {
            if ROUND.load(Ordering::Acquire) % 2 == parity {
                // SAFETY: a local variable; volatile, so that the capture sees every turn.
                unsafe { (&raw mut mine).write_volatile(ROUND.load(Ordering::Relaxed)) };
                ROUND.fetch_add(1, Ordering::Release);
            } else {
                std::thread::yield_now();
            }
        }
    }
    let (tell, told) = channel();
    let threads = [0, 1].map(|parity| {
        let tell = tell.clone();
        std::thread::spawn(move || take_turns(parity, &tell))
    });
    let places = [told.recv().unwrap(), told.recv().unwrap()];
    while ROUND.load(Ordering::Relaxed) < 2 {
        std::thread::yield_now();
    }
    let mut moved = 0;
    let mut consistent = 0;
    let mut before = 0;
    for _ in 0..500 {
        let capture = freeze().unwrap();
        let turns = places.map(|(tid, address)| {
            let stack = thread_of(&capture, tid).stack.as_ref()?;
            let at = address.checked_sub(stack.base)? as usize;
            Some(u64::from_le_bytes(stack.bytes.get(at..at + 8)?.try_into().unwrap()))
        });
        let [Some(a), Some(b)] = turns else {
            assert!(!capture.capture().consistent, "a thread is missing and nobody says so");
            continue;
        };
        // Threads of other tests come and go, and may not answer; these two did.
        consistent += 1;
        assert!(a.abs_diff(b) <= 1, "{a} and {b} were never true together");
        moved += u64::from(a != before);
        before = a;
    }
    STOP.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(consistent > 400 && moved > 100, "{consistent} captures, {moved} different");
}
