//! Threads that cannot handle the signal, and signals that the program handles.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::forked::FORCED;
use super::{Parked, isolated, test_name, thread_of};
use crate::host::proc_text;
use crate::snapshot::{Snapshot, Unavailable};
use crate::targets::this_process::engine::{self, before_window};
use crate::targets::this_process::hold::Hold;
use crate::targets::this_process::proc::{self, Stat};
use crate::targets::this_process::{signal, sys};
use crate::targets::{SnapshotError, fork, freeze, rolling};

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

/// Whether a signal is pending for the thread.
fn is_pending(tid: i32, signal: i32) -> bool {
    let mut buf = [0; 4096];
    let status = proc::read_of_thread(tid, c"status", &mut buf).unwrap();
    proc::mask_has(
        proc_text::hexadecimal(proc_text::status_field(status, b"SigPnd:").unwrap()).unwrap(),
        signal,
    )
}

fn wait_for_state(tid: i32, state: u8) {
    while Stat::read(tid).map(|stat| stat.state) != Some(state) {
        std::thread::yield_now();
    }
}

#[test]
fn a_thread_that_blocks_the_signal_is_listed_with_the_reason() {
    let (sender, receiver) = channel();
    let (release, wait) = channel::<()>();
    let thread = std::thread::spawn(move || {
        block(&(1..=64).filter(|signal| ![32, 33].contains(signal)).collect::<Vec<_>>());
        sender.send(sys::gettid()).unwrap();
        let _ = wait.recv();
    });
    let tid = receiver.recv().unwrap();
    for capture in [rolling().unwrap(), freeze().unwrap()] {
        assert_eq!(thread_of(&capture, tid).registers, Err(Unavailable::SignalBlocked));
        assert!(!capture.capture().consistent);
    }
    drop(release);
    thread.join().unwrap();
}

#[test]
fn a_thread_in_sigwait_does_not_receive_the_signal() {
    let (sender, receiver) = channel();
    let ours = signal::ready(None).unwrap();
    let thread = std::thread::spawn(move || {
        block(&[ours, libc::SIGUSR2]);
        sender.send(sys::gettid()).unwrap();
        let set = set_of(&[ours, libc::SIGUSR2]);
        let mut received = 0;
        // SAFETY: waits for signals that it blocks.
        unsafe { libc::sigwait(&raw const set, &raw mut received) };
        received
    });
    let tid = receiver.recv().unwrap();
    wait_for_state(tid, b'S');
    for _ in 0..20 {
        let reason = thread_of(&rolling().unwrap(), tid).registers.unwrap_err();
        // Between `send` and `sigwait`, the thread blocks the signal.
        assert!(matches!(reason, Unavailable::SigWait | Unavailable::SignalBlocked), "{reason:?}");
    }
    assert_eq!(thread_of(&rolling().unwrap(), tid).registers, Err(Unavailable::SigWait));
    sys::tgkill(sys::getpid(), tid, libc::SIGUSR2).unwrap();
    assert_eq!(thread.join().unwrap(), libc::SIGUSR2);
}

#[test]
fn a_sigwait_for_other_signals_is_captured_and_continues() {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        block(&[libc::SIGUSR2]);
        sender.send(sys::gettid()).unwrap();
        let set = set_of(&[libc::SIGUSR2]);
        let mut received = 0;
        // SAFETY: waits for a signal that it blocks.
        unsafe { libc::sigwait(&raw const set, &raw mut received) };
        received
    });
    let tid = receiver.recv().unwrap();
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

/// As a profiler's signals do.
#[test]
fn an_image_is_intact_for_a_thread_that_signals_interrupt() {
    isolated(test_name!(an_image_is_intact_for_a_thread_that_signals_interrupt), || {
        static OVER: AtomicBool = AtomicBool::new(false);
        handle(libc::SIGUSR2);
        let tid = sys::gettid();
        let image = fork(FORCED).unwrap();
        let sender = std::thread::spawn(move || {
            while !OVER.load(Ordering::Relaxed) {
                sys::tgkill(sys::getpid(), tid, libc::SIGUSR2).unwrap();
            }
        });
        // Nothing reads the image, which ends it after a while: on a busy machine before that many signals have come.
        let begun = Instant::now();
        while HANDLED.load(Ordering::Relaxed) < 20_000 && begun.elapsed() < Duration::from_secs(15) {
            image.intact().unwrap();
        }
        assert!(HANDLED.load(Ordering::Relaxed) > 0);
        OVER.store(true, Ordering::Relaxed);
        sender.join().unwrap();
    });
}

#[test]
fn the_programs_handlers_stay_installed() {
    isolated(test_name!(the_programs_handlers_stay_installed), || {
        let parked = Parked::new(1);
        handle(libc::SIGURG);
        parked.assert_captured(&rolling().unwrap());
        assert_eq!(signal::ready(None), Ok(libc::SIGRTMAX()));
        // The program replaces the handler: another signal is used.
        handle(libc::SIGRTMAX());
        parked.assert_captured(&freeze().unwrap());
        assert_eq!(signal::ready(None), Ok(libc::SIGRTMAX() - 1));
        assert_eq!(HANDLED.load(Ordering::Relaxed), 0, "the program's handler was called for no capture");
        // SAFETY: the program's own signal, to itself.
        unsafe { libc::raise(libc::SIGURG) };
        assert_eq!(HANDLED.load(Ordering::Relaxed), 1);

        for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            handle(signal);
        }
        assert_eq!(rolling().unwrap_err(), SnapshotError::NoSignal);
    });
}

/// The program installs a handler between the check and the installation of delouse's handler.
#[test]
fn a_handler_that_is_installed_meanwhile_is_not_lost() {
    isolated(test_name!(a_handler_that_is_installed_meanwhile_is_not_lost), || {
        extern "C" fn ours(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        let ours = ours as *const () as libc::sighandler_t;
        // SAFETY: handlers that do nothing, or count.
        unsafe {
            let mut theirs: libc::sigaction = std::mem::zeroed();
            theirs.sa_sigaction = count as *const () as libc::sighandler_t;
            theirs.sa_flags = libc::SA_NODEFER;
            libc::sigaddset(&raw mut theirs.sa_mask, libc::SIGUSR2);
            assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const theirs, std::ptr::null_mut()), 0);
            assert!(!signal::install(libc::SIGUSR1, ours));
            let mut now: libc::sigaction = std::mem::zeroed();
            assert_eq!(libc::sigaction(libc::SIGUSR1, std::ptr::null(), &raw mut now), 0);
            assert_eq!(now.sa_sigaction, theirs.sa_sigaction);
            assert_eq!(now.sa_flags & libc::SA_NODEFER, libc::SA_NODEFER);
            assert_eq!(libc::sigismember(&raw const now.sa_mask, libc::SIGUSR2), 1);
            // The signal is free, or has delouse's handler already.
            assert!(signal::install(libc::SIGUSR2, ours) && signal::install(libc::SIGUSR2, ours));
            libc::raise(libc::SIGUSR1);
        }
        assert_eq!(HANDLED.load(Ordering::Relaxed), 1);
        // The same while the handler of SIGQUIT restores the default action.
        handle(libc::SIGQUIT);
        sys::reset_action(libc::SIGQUIT, ours);
        // SAFETY: a signal that is handled.
        unsafe { libc::raise(libc::SIGQUIT) };
        assert_eq!(HANDLED.load(Ordering::Relaxed), 2);
    });
}

/// A late signal of an earlier capture is handled when the next capture knows the thread, but has not closed the gate yet.
#[test]
fn a_late_signal_does_not_prevent_that_a_thread_is_held() {
    isolated(test_name!(a_late_signal_does_not_prevent_that_a_thread_is_held), || {
        static TID: AtomicU32 = AtomicU32::new(0);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static STOP: AtomicBool = AtomicBool::new(false);
        static ENTERED: AtomicU32 = AtomicU32::new(0);
        let thread = std::thread::spawn(|| {
            TID.store(sys::gettid() as u32, Ordering::Release);
            while !STOP.load(Ordering::Relaxed) {
                COUNT.fetch_add(1, Ordering::Relaxed);
            }
        });
        while COUNT.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        let send_late = || {
            let tid = TID.load(Ordering::Acquire) as i32;
            sys::tgkill(sys::getpid(), tid, signal::ready(None).unwrap()).unwrap();
            ENTERED.fetch_add(1, Ordering::Relaxed);
            // The signal is handled, and the thread continues.
            while is_pending(tid, signal::ready(None).unwrap()) {
                std::thread::yield_now();
            }
            let before = COUNT.load(Ordering::Relaxed);
            while COUNT.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
        };
        *before_window::HOOK.lock().unwrap() = Some(send_late);
        let mut counts = [0; 2];
        let captured = engine::capture(
            Hold::Together(&mut |held| {
                held.capturing_thread.capture();
                let word = AtomicU32::new(0);
                counts[0] = COUNT.load(Ordering::Relaxed);
                sys::futex_wait(&word, 0, 20_000_000);
                counts[1] = COUNT.load(Ordering::Relaxed);
            }),
            0,
        )
        .unwrap();
        *before_window::HOOK.lock().unwrap() = None;
        STOP.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        assert_eq!(ENTERED.load(Ordering::Relaxed), 1);
        let tid = TID.load(Ordering::Relaxed) as i32;
        let shown = captured.threads.iter().find(|thread| thread.tid == tid).unwrap();
        assert!(captured.complete && shown.registers.is_ok(), "{shown:?}");
        assert_eq!(counts[0], counts[1], "the thread ran while it was held");
    });
}

#[test]
fn the_handler_does_nothing_in_a_child_that_the_program_forked() {
    isolated(test_name!(the_handler_does_nothing_in_a_child_that_the_program_forked), || {
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
