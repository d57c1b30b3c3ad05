//! The engine against real threads and processes.

mod capture;
mod core;
mod figures;
mod forked;
mod huge_pages;
mod process;
mod signals;
mod stress;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::snapshot::{Address, Snapshot, Thread};

/// A thread that waits in `park_here` until this is dropped, with the word `marker` on its stack.
pub(super) struct Parked {
    pub(super) tid: i32,
    pub(super) marker: u64,
    /// Address of the word.
    pub(super) address: Address,
    release: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Parked {
    pub(super) fn new(marker: u64) -> Self {
        let (sender, receiver) = channel();
        let (release, wait) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("parked {marker}"))
            .spawn(move || park_here(marker, &sender, &wait))
            .unwrap();
        let (tid, address) = receiver.recv().unwrap();
        Self { tid, marker, address: Address::new(address), release: Some(release), thread: Some(thread) }
    }

    /// Asserts that the capture has this thread's name, registers and stack.
    pub(super) fn assert_captured(&self, snapshot: &dyn Snapshot) {
        let thread = thread_of(snapshot, self.tid);
        let registers = thread.registers.expect("registers");
        assert_eq!(thread.name, format!("parked {}", self.marker));
        assert!(registers.sp < self.address, "the marker is in an outer frame");
        assert!(registers.tls != Address::default());
        let code = snapshot.mapping(registers.pc).expect("pc is mapped");
        assert!(code.execute, "{code:?}");
        let word = match &thread.stack {
            Some(stack) => {
                assert_eq!(stack.base, registers.sp);
                let at = self.address.offset_from(stack.base).unwrap() as usize;
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
fn park_here(marker: u64, sender: &Sender<(i32, u64)>, wait: &Receiver<()>) {
    let word = std::hint::black_box(marker);
    sender.send((super::sys::gettid(), (&raw const word) as u64)).unwrap();
    let _ = wait.recv();
    std::hint::black_box(&word);
}

pub(super) fn thread_of(snapshot: &dyn Snapshot, tid: i32) -> &Thread {
    snapshot.threads().iter().find(|thread| thread.tid == tid).expect("thread is listed")
}

/// Runs `body` in its own process, where it may change signals, users and limits: starts the test binary again with only
/// this test. `test` is the test's full name.
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

/// The full name of a test function.
macro_rules! test_name {
    ($name:ident) => {
        concat!(module_path!(), "::", stringify!($name)).split_once("::").unwrap().1
    };
}
pub(super) use test_name;
