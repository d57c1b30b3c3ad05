//! Threads that cannot answer, and signals that are taken.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;

use super::{Parked, isolated, test_name, thread_of};
use crate::snapshot::linux::{proc::Stat, signal, sys};
use crate::snapshot::{Snapshot, SnapshotError, Unavailable, freeze, rolling};

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: plain data that sigemptyset makes valid.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

fn block(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: changes the calling thread's own mask.
    unsafe { assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()), 0) };
}

fn wait_for_state(tid: i32, state: u8) {
    while Stat::read(tid).map(|stat| stat.state) != Some(state) {
        std::thread::yield_now();
    }
}

#[test]
fn a_thread_that_blocks_the_signal_is_listed_with_the_reason() {
    let (tell, told) = channel();
    let (release, wait) = channel::<()>();
    let thread = std::thread::spawn(move || {
        block(&(1..=64).filter(|signal| ![32, 33].contains(signal)).collect::<Vec<_>>());
        tell.send(sys::gettid()).unwrap();
        let _ = wait.recv();
    });
    let tid = told.recv().unwrap();
    for capture in [rolling().unwrap(), freeze().unwrap()] {
        assert_eq!(thread_of(&capture, tid).registers, Err(Unavailable::SignalBlocked));
        assert!(!capture.capture().consistent);
    }
    drop(release);
    thread.join().unwrap();
}

#[test]
fn a_thread_in_sigwait_does_not_receive_our_signal() {
    let (tell, told) = channel();
    let ours = signal::ready(None).unwrap();
    let thread = std::thread::spawn(move || {
        block(&[ours, libc::SIGUSR2]);
        tell.send(sys::gettid()).unwrap();
        let set = set_of(&[ours, libc::SIGUSR2]);
        let mut received = 0;
        // SAFETY: waits for signals that it blocks.
        unsafe { libc::sigwait(&raw const set, &raw mut received) };
        received
    });
    let tid = told.recv().unwrap();
    wait_for_state(tid, b'S');
    for _ in 0..20 {
        let reason = thread_of(&rolling().unwrap(), tid).registers.unwrap_err();
        // Blocked for the moment between `send` and `sigwait`.
        assert!(matches!(reason, Unavailable::SigWait | Unavailable::SignalBlocked), "{reason:?}");
    }
    assert_eq!(thread_of(&rolling().unwrap(), tid).registers, Err(Unavailable::SigWait));
    sys::tgkill(sys::getpid(), tid, libc::SIGUSR2).unwrap();
    assert_eq!(thread.join().unwrap(), libc::SIGUSR2);
}

#[test]
fn a_sigwait_for_other_signals_is_captured_and_goes_on() {
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || {
        block(&[libc::SIGUSR2]);
        tell.send(sys::gettid()).unwrap();
        let set = set_of(&[libc::SIGUSR2]);
        let mut received = 0;
        // SAFETY: waits for a signal that it blocks.
        unsafe { libc::sigwait(&raw const set, &raw mut received) };
        received
    });
    let tid = told.recv().unwrap();
    wait_for_state(tid, b'S');
    assert!(thread_of(&rolling().unwrap(), tid).registers.is_ok());
    wait_for_state(tid, b'S');
    sys::tgkill(sys::getpid(), tid, libc::SIGUSR2).unwrap();
    assert_eq!(thread.join().unwrap(), libc::SIGUSR2);
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

fn handle(signal: i32) {
    // SAFETY: the handler only counts.
    unsafe { assert_ne!(libc::signal(signal, count as *const () as libc::sighandler_t), libc::SIG_ERR) };
}

#[test]
fn a_handler_of_the_programs_own_keeps_its_signal() {
    isolated(test_name!(a_handler_of_the_programs_own_keeps_its_signal), || {
        let parked = Parked::new(1);
        handle(libc::SIGURG);
        parked.assert_captured(&rolling().unwrap());
        assert_eq!(signal::ready(None), Ok(libc::SIGRTMAX()));
        // Taken away later: the next one is found.
        handle(libc::SIGRTMAX());
        parked.assert_captured(&freeze().unwrap());
        assert_eq!(signal::ready(None), Ok(libc::SIGRTMAX() - 1));
        assert_eq!(HANDLED.load(Ordering::Relaxed), 0, "no signal of ours reached the program");
        // SAFETY: the program's own signal, to itself.
        unsafe { libc::raise(libc::SIGURG) };
        assert_eq!(HANDLED.load(Ordering::Relaxed), 1);

        for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            handle(signal);
        }
        assert_eq!(rolling().unwrap_err(), SnapshotError::NoSignal);
    });
}

#[test]
fn a_child_of_the_programs_own_has_no_capture_to_answer() {
    isolated(test_name!(a_child_of_the_programs_own_has_no_capture_to_answer), || {
        let ours = signal::ready(None).unwrap();
        assert!(freeze().unwrap().capture().consistent);
        // SAFETY: the child takes one signal and ends, without libc.
        let pid = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                let _ = sys::tgkill(sys::getpid(), sys::gettid(), ours);
                sys::exit(7);
            }
            pid
        };
        let mut status = 0;
        // SAFETY: our own child.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
        assert!(freeze().unwrap().capture().consistent);
    });
}

#[test]
fn a_thread_in_vfork_is_given_up_and_its_late_signal_does_no_harm() {
    isolated(test_name!(a_thread_in_vfork_is_given_up_and_its_late_signal_does_no_harm), || {
        static PARENT: AtomicU32 = AtomicU32::new(0);
        static CHILD_MAY_END: AtomicBool = AtomicBool::new(false);
        let thread = std::thread::spawn(|| {
            PARENT.store(sys::gettid() as u32, Ordering::Release);
            // SAFETY: the child shares our memory and only waits and ends, without libc; this thread
            // sleeps uninterruptibly meanwhile.
            unsafe {
                let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
                let stack = vec![0_u8; 64 << 10].leak().as_mut_ptr_range().end.wrapping_sub(64);
                extern "C" fn child(_: *mut libc::c_void) -> i32 {
                    while !CHILD_MAY_END.load(Ordering::Acquire) {
                        sys::futex_wait(&PARENT, PARENT.load(Ordering::Relaxed), 1_000_000);
                    }
                    sys::exit(0)
                }
                let pid = libc::clone(child, stack.cast(), flags, std::ptr::null_mut());
                assert!(pid > 0);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        });
        let tid = loop {
            match PARENT.load(Ordering::Acquire) {
                0 => std::thread::yield_now(),
                tid => break tid as i32,
            }
        };
        wait_for_state(tid, b'D');
        let parked = Parked::new(5);
        for capture in [rolling().unwrap(), freeze().unwrap()] {
            assert_eq!(thread_of(&capture, tid).registers, Err(Unavailable::Uninterruptible));
            parked.assert_captured(&capture);
            assert!(capture.capture().pause_us < 200_000, "{:?}", capture.capture());
        }
        CHILD_MAY_END.store(true, Ordering::Release);
        thread.join().unwrap();
        parked.assert_captured(&rolling().unwrap());
    });
}
