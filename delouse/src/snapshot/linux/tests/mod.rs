//! The engine against real threads and processes.

/// xorshift64*: numbers for fuzzing, the same in every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

mod capture;
mod core;
mod figures;
mod forked;
mod huge_pages;
mod process;
mod signals;
mod torture;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::snapshot::{Snapshot, Thread};

/// A thread that waits in `park_here` until it is dropped, with a word of its own on its stack.
pub(super) struct Parked {
    pub(super) tid: i32,
    pub(super) marker: u64,
    /// Where the word is.
    pub(super) address: u64,
    release: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Parked {
    pub(super) fn new(marker: u64) -> Self {
        let (tell, told) = channel();
        let (release, wait) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("parked {marker}"))
            .spawn(move || park_here(marker, &tell, &wait))
            .unwrap();
        let (tid, address) = told.recv().unwrap();
        Self { tid, marker, address, release: Some(release), thread: Some(thread) }
    }

    /// Panics unless the capture shows this thread as it is.
    pub(super) fn assert_captured(&self, snapshot: &dyn Snapshot) {
        let thread = thread_of(snapshot, self.tid);
        let registers = thread.registers.expect("registers");
        assert_eq!(thread.name, format!("parked {}", self.marker));
        assert!(registers.sp < self.address, "the marker's frame is an outer one");
        assert!(registers.tls != 0);
        let code = snapshot.mapping(registers.pc).expect("pc is mapped");
        assert!(code.execute, "{code:?}");
        let word = match &thread.stack {
            Some(stack) => {
                assert_eq!(stack.base, registers.sp);
                let at = (self.address - stack.base) as usize;
                u64::from_le_bytes(stack.bytes[at..at + 8].try_into().unwrap())
            }
            None => snapshot.read_u64(self.address).unwrap(),
        };
        assert_eq!(word, self.marker);
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        drop(self.release.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking());
    }
}

#[inline(never)]
fn park_here(marker: u64, tell: &Sender<(i32, u64)>, wait: &Receiver<()>) {
    let word = std::hint::black_box(marker);
    tell.send((super::sys::gettid(), (&raw const word) as u64)).unwrap();
    let _ = wait.recv();
    std::hint::black_box(&word);
}

pub(super) fn thread_of(snapshot: &dyn Snapshot, tid: i32) -> &Thread {
    snapshot.threads().iter().find(|thread| thread.tid == tid).expect("thread is listed")
}

/// Runs `body` in a process of its own, where it may change signals, users and limits: the test binary
/// again, with this test alone. `test` is the test's full name.
pub(super) fn isolated(test: &str, body: impl FnOnce()) {
    const MARK: &str = "DELOUSE_ISOLATED_TEST";
    if std::env::var_os(MARK).is_some_and(|name| name == test) {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, test)
        .output()
        .unwrap();
    let text =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{test}: {:?}\n{text}", output.status);
}

/// The name of the function that the test is.
macro_rules! test_name {
    ($name:ident) => {
        concat!(module_path!(), "::", stringify!($name)).split_once("::").unwrap().1
    };
}
pub(super) use test_name;
