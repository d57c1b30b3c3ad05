//! Rolling and frozen captures.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::{Parked, isolated, test_name, thread_of};
use crate::snapshot::{Address, Snapshot, Unavailable};
use crate::targets::this_process::arch::STACK_NEEDED;
use crate::targets::this_process::memory::OwnMemory;
use crate::targets::this_process::stop_order::StopGroup;
use crate::targets::this_process::{examine, proc, sys};
use crate::targets::{Live, freeze, rolling};

#[test]
fn every_thread_has_registers_and_a_stack() {
    let parked: Vec<Parked> = (0..30).map(|n| Parked::new(1000 + n)).collect();
    for capture in [rolling().unwrap(), freeze().unwrap()] {
        for thread in &parked {
            thread.assert_captured(&capture);
        }
        let ourselves = thread_of(&capture, sys::gettid());
        let local = 0_u8;
        let here = Address::new((&raw const local) as u64);
        let registers = ourselves.registers.unwrap();
        assert!(registers.sp < here, "the signal was sent in a callee of this function");
        assert!(
            ourselves.stack.as_ref().unwrap().bytes.len() as u64 > here.offset_from(registers.sp).unwrap()
        );
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
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        sender.send(sys::gettid()).unwrap();
        spin();
    });
    let tid = receiver.recv().unwrap();
    let start = spin as *const () as u64;
    // At first the thread may not have called `spin` yet; in a debug build, it may be in a callee.
    let caught = (0..10_000).any(|_| {
        let capture = rolling().unwrap();
        let pc = thread_of(&capture, tid).registers.unwrap().pc.get();
        (start..start + 256).contains(&pc)
    });
    STOP.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    assert!(caught);
}

#[test]
fn a_live_snapshot_lists_threads_and_reads_memory() {
    let parked = Parked::new(77);
    let live = Live::now().unwrap();
    let thread = thread_of(&live, parked.tid);
    assert_eq!(thread.registers, Err(Unavailable::NotCaptured));
    assert_eq!(thread.name, "parked 77");
    assert_eq!(live.read_u64(parked.address), Some(77));
    assert_eq!(live.read_u64(Address::new(8)), None);
    assert!(!live.capture().consistent);
}

#[test]
fn stacks_of_frozen_threads_agree() {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    // Two threads take turns to increase a counter; each keeps the last number on its stack. At any moment the two numbers
    // differ by at most one; in copies of different moments they may differ more.
    fn take_turns(parity: u64, sender: &std::sync::mpsc::Sender<(i32, u64)>) {
        let mut mine = 0_u64;
        sender.send((sys::gettid(), (&raw const mine) as u64)).unwrap();
        while !STOP.load(Ordering::Relaxed) {
            if ROUND.load(Ordering::Acquire) % 2 == parity {
                // SAFETY: a local variable; volatile, so that each number is stored.
                unsafe { (&raw mut mine).write_volatile(ROUND.load(Ordering::Relaxed)) };
                ROUND.fetch_add(1, Ordering::Release);
            } else {
                std::thread::yield_now();
            }
        }
    }
    let (sender, receiver) = channel();
    let threads = [0, 1].map(|parity| {
        let sender = sender.clone();
        std::thread::spawn(move || take_turns(parity, &sender))
    });
    let places = [receiver.recv().unwrap(), receiver.recv().unwrap()];
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
            let at = address.checked_sub(stack.base.get())? as usize;
            Some(u64::from_le_bytes(stack.bytes.get(at..at + 8)?.try_into().unwrap()))
        });
        let [Some(a), Some(b)] = turns else {
            assert!(!capture.capture().consistent, "a thread is missing in a consistent capture");
            continue;
        };
        // Other tests' threads may be missing; these two are not.
        consistent += 1;
        assert!(a.abs_diff(b) <= 1, "{a} and {b} were never stored at the same moment");
        moved += u64::from(a != before);
        before = a;
    }
    STOP.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(consistent > 400 && moved > 100, "{consistent} captures, {moved} different");
}

/// std gives each thread an alternate stack, for its message about a stack overflow.
#[test]
fn alternate_signal_stacks_are_known() {
    let (sender, receiver) = channel();
    let (release, wait) = channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: plain data, which the call fills in.
        let stack = unsafe {
            let mut stack: libc::stack_t = std::mem::zeroed();
            assert_eq!(libc::sigaltstack(std::ptr::null(), &raw mut stack), 0);
            stack
        };
        let start = stack.ss_sp.addr() as u64;
        sender.send((sys::gettid(), start..start + stack.ss_size as u64)).unwrap();
        let _ = wait.recv();
    });
    let (tid, stack) = receiver.recv().unwrap();
    assert!(!stack.is_empty());
    for capture in [rolling().unwrap(), freeze().unwrap()] {
        assert_eq!(thread_of(&capture, tid).alternate_stack, Some(Address::range(stack.clone())));
    }
    drop(release);
    thread.join().unwrap();
}

/// A thread that is interrupted in another handler, on its alternate stack, may have little of it left.
#[test]
fn the_handler_needs_no_more_stack_than_it_checks_for() {
    isolated(test_name!(the_handler_needs_no_more_stack_than_it_checks_for), || {
        const UNTOUCHED: u8 = 0xa5;
        static BEGINS: AtomicU64 = AtomicU64::new(0);
        extern "C" fn on_usr2(_: libc::c_int, _: *mut libc::siginfo_t, ucontext: *mut libc::c_void) {
            BEGINS.store(ucontext.addr() as u64, Ordering::Relaxed);
        }
        let (sender, receiver) = channel();
        let (release, wait) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut stack = vec![UNTOUCHED; 64 << 10];
            // SAFETY: the stack outlives its use: it is replaced before it is dropped. The handler stores a number.
            unsafe {
                let mut before: libc::stack_t = std::mem::zeroed();
                let ours =
                    libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
                assert_eq!(libc::sigaltstack(&raw const ours, &raw mut before), 0);
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_usr2 as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()), 0);
                // The kernel's part of the frame has the same size for every signal.
                assert_eq!(libc::raise(libc::SIGUSR2), 0);
                sender.send(sys::gettid()).unwrap();
                let _ = wait.recv();
                assert_eq!(libc::sigaltstack(&raw const before, std::ptr::null_mut()), 0);
            }
            let unused = stack.iter().take_while(|byte| **byte == UNTOUCHED).count();
            BEGINS.load(Ordering::Relaxed) - (stack.as_ptr().addr() + unused) as u64
        });
        let tid = receiver.recv().unwrap();
        for capture in [rolling().unwrap(), freeze().unwrap()] {
            assert!(thread_of(&capture, tid).registers.is_ok());
        }
        drop(release);
        let used = thread.join().unwrap();
        println!("{used} bytes");
        assert!((200..=STACK_NEEDED).contains(&used), "{used} bytes");
    });
}

/// The stop of a program with hundreds of threads depends on its active threads only.
#[test]
fn sleepers_are_stopped_first_and_resumed_last() {
    isolated(test_name!(sleepers_are_stopped_first_and_resumed_last), || {
        static STOP: AtomicBool = AtomicBool::new(false);
        let (sender, receiver) = channel();
        let started = |work: Box<dyn FnOnce() + Send>| {
            let sender = sender.clone();
            let thread = std::thread::spawn(move || {
                sender.send(sys::gettid()).unwrap();
                work();
            });
            (receiver.recv().unwrap(), thread)
        };
        let (keep, kept) = channel::<()>();
        let (give, given) = channel::<()>();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let others = [
            started(Box::new(|| {
                while !STOP.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })),
            started(Box::new(|| {
                while !STOP.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                }
            })),
            started(Box::new(move || {
                while kept.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {}
            })),
        ];
        let sleepers = [
            started(Box::new(move || {
                let ended = given.recv_timeout(Duration::from_secs(100_000));
                assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
            })),
            started(Box::new(move || assert_eq!(reader.read(&mut [0]).unwrap(), 0))),
        ];
        let (sleeps_for_hours, _) = started(Box::new(|| std::thread::sleep(Duration::from_secs(100_000))));
        let parked: Vec<Parked> = (0..200).map(Parked::new).collect();

        let memory = OwnMemory::open().unwrap();
        let group = |tid| StopGroup::classify(proc::call_of(tid), &memory);
        let asleep = sleepers.iter().map(|(tid, _)| *tid).chain(parked.iter().map(|thread| thread.tid));
        for tid in asleep.chain([sleeps_for_hours]) {
            // Wait until the threads sleep.
            let begun = Instant::now();
            while group(tid) != StopGroup::Sleeper {
                assert!(begun.elapsed() < Duration::from_secs(60), "{tid}: {:?}", proc::call_of(tid));
                std::thread::yield_now();
            }
        }
        for _ in 0..1000 {
            others.iter().for_each(|(tid, _)| assert_eq!(group(*tid), StopGroup::Active));
        }
        assert!(examine::count_active().unwrap() >= others.len());
        for _ in 0..20 {
            let capture = freeze().unwrap();
            assert!(capture.capture().held_us > capture.capture().pause_us, "{:?}", capture.capture());
            parked.iter().for_each(|thread| thread.assert_captured(&capture));
        }
        STOP.store(true, Ordering::Relaxed);
        drop((keep, give, writer));
        others.into_iter().chain(sleepers).for_each(|(_, thread)| thread.join().unwrap());
    });
}
