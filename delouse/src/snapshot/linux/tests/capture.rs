//! Rolling and frozen captures.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::{Parked, isolated, test_name, thread_of};
use crate::snapshot::linux::handler::STACK_NEEDED;
use crate::snapshot::linux::memory::OwnMemory;
use crate::snapshot::linux::turn::Turn;
use crate::snapshot::linux::{examine, proc, sys};
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

/// std gives each of its threads one, for its message about a stack that overflowed.
#[test]
fn alternate_signal_stacks_are_known() {
    let (tell, told) = channel();
    let (release, wait) = channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: plain data, which the call fills in.
        let stack = unsafe {
            let mut stack: libc::stack_t = std::mem::zeroed();
            assert_eq!(libc::sigaltstack(std::ptr::null(), &raw mut stack), 0);
            stack
        };
        let start = stack.ss_sp.addr() as u64;
        tell.send((sys::gettid(), start..start + stack.ss_size as u64)).unwrap();
        let _ = wait.recv();
    });
    let (tid, stack) = told.recv().unwrap();
    assert!(!stack.is_empty());
    for capture in [rolling().unwrap(), freeze().unwrap()] {
        assert_eq!(thread_of(&capture, tid).alternate_stack, Some(stack.clone()));
    }
    drop(release);
    thread.join().unwrap();
}

/// A thread that is interrupted in a handler of its own, on an alternate stack, may have little left of that.
#[test]
fn the_handler_takes_no_more_stack_than_it_asks_for() {
    isolated(test_name!(the_handler_takes_no_more_stack_than_it_asks_for), || {
        const UNTOUCHED: u8 = 0xa5;
        static BEGINS: AtomicU64 = AtomicU64::new(0);
        extern "C" fn on_usr2(_: libc::c_int, _: *mut libc::siginfo_t, ucontext: *mut libc::c_void) {
            BEGINS.store(ucontext.addr() as u64, Ordering::Relaxed);
        }
        let (tell, told) = channel();
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
                // What the kernel puts there first is the same for every signal.
                assert_eq!(libc::raise(libc::SIGUSR2), 0);
                tell.send(sys::gettid()).unwrap();
                let _ = wait.recv();
                assert_eq!(libc::sigaltstack(&raw const before, std::ptr::null_mut()), 0);
            }
            let unused = stack.iter().take_while(|byte| **byte == UNTOUCHED).count();
            BEGINS.load(Ordering::Relaxed) - (stack.as_ptr().addr() + unused) as u64
        });
        let tid = told.recv().unwrap();
        for capture in [rolling().unwrap(), freeze().unwrap()] {
            assert!(thread_of(&capture, tid).registers.is_ok());
        }
        drop(release);
        let used = thread.join().unwrap();
        println!("{used} bytes");
        assert!((200..=STACK_NEEDED).contains(&used), "{used} bytes");
    });
}

/// A program with hundreds of threads of which a few run stands still for as long as these do.
#[test]
fn who_sleeps_is_stopped_first_and_goes_on_last() {
    isolated(test_name!(who_sleeps_is_stopped_first_and_goes_on_last), || {
        static STOP: AtomicBool = AtomicBool::new(false);
        let (tell, told) = channel();
        let started = |work: Box<dyn FnOnce() + Send>| {
            let tell = tell.clone();
            let thread = std::thread::spawn(move || {
                tell.send(sys::gettid()).unwrap();
                work();
            });
            (told.recv().unwrap(), thread)
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
        let turn = |tid| Turn::of(proc::call_of(tid), &memory);
        let asleep = sleepers.iter().map(|(tid, _)| *tid).chain(parked.iter().map(|thread| thread.tid));
        for tid in asleep.chain([sleeps_for_hours]) {
            // They take their time to where they sleep.
            let begun = Instant::now();
            while turn(tid) != Turn::Sleeper {
                assert!(begun.elapsed() < Duration::from_secs(60), "{tid}: {:?}", proc::call_of(tid));
                std::thread::yield_now();
            }
        }
        for _ in 0..1000 {
            others.iter().for_each(|(tid, _)| assert_eq!(turn(*tid), Turn::Other));
        }
        assert!(examine::count_of_others().unwrap() >= others.len());
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
