//! Forked images.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Parked, thread_of};
use crate::snapshot::linux::sys;
use crate::snapshot::{
    Image, Limits, Snapshot, SnapshotError, Unavailable, fork, fork_with_threads, freeze_fork_thaw,
};

/// Tests run side by side in one process, whose memory is not what is tested.
pub(super) const FORCED: Limits = Limits { budget: std::time::Duration::ZERO, force: true };

#[test]
fn an_image_stays_as_it_was() {
    let mut memory = vec![1_u8; 1 << 20];
    let address = memory.as_ptr() as u64;
    let image = fork(FORCED).unwrap();
    memory.fill(2);
    let mut read = vec![0; memory.len()];
    assert_eq!(image.read(address, &mut read), read.len());
    assert!(read.iter().all(|&byte| byte == 1));
    assert!(memory.iter().all(|&byte| byte == 2));
    assert!(image.mapping(address).unwrap().write);
    assert_eq!(image.read(8, &mut read), 0);
    assert_eq!(image.read(u64::MAX - 3, &mut read), 0);
    assert_eq!(thread_of(&image, sys::gettid()).registers, Err(Unavailable::NotCaptured));
    image.intact().unwrap();
}

#[test]
fn a_killed_child_is_an_error_and_no_hang() {
    let word = Box::new(5_u64);
    let address = (&raw const *word) as u64;
    let image = fork(FORCED).unwrap();
    assert_eq!(image.read_u64(address), Some(5));
    // SAFETY: kills our own child.
    unsafe { libc::kill(image.pid(), libc::SIGKILL) };
    let lost = loop {
        match image.intact() {
            Ok(()) => std::thread::yield_now(),
            Err(lost) => break lost,
        }
    };
    assert_eq!(lost, SnapshotError::ImageLost("something killed it"));
    assert_eq!(image.read_u64(address), None);
}

#[test]
fn a_forgotten_child_ends_by_itself() {
    let why = |image: &Image| loop {
        match image.intact() {
            Ok(()) => std::thread::yield_now(),
            Err(SnapshotError::ImageLost(why)) => break why,
            Err(other) => panic!("{other}"),
        }
    };
    let image = fork(FORCED).unwrap();
    image.control().deadline.store(0, Ordering::Relaxed);
    assert_eq!(why(&image), "it took longer than 30 s to read");

    // A cgroup whose memory.stat tells of more than the ceiling.
    let stat = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&stat, b"anon 8192\nfile 0\n", 0).unwrap();
    let image = fork(FORCED).unwrap();
    image.control().cgroup_ceiling.store(8191, Ordering::Relaxed);
    image.control().cgroup.store(std::os::fd::AsRawFd::as_raw_fd(&stat), Ordering::Relaxed);
    assert_eq!(why(&image), "memory ran short while it was read");

    let image = fork(FORCED).unwrap();
    image.control().parent.store(1, Ordering::Relaxed);
    assert_eq!(why(&image), "its program ended");
}

#[test]
fn registers_come_with_an_image_where_asked_for() {
    let parked: Vec<Parked> = (0..10).map(|n| Parked::new(2000 + n)).collect();
    let rolled = fork_with_threads(FORCED).unwrap();
    let frozen = freeze_fork_thaw(FORCED).unwrap();
    for thread in &parked {
        thread.assert_captured(&rolled);
        thread.assert_captured(&frozen);
        assert!(thread_of(&rolled, thread.tid).stack.is_some());
        assert!(thread_of(&frozen, thread.tid).stack.is_none());
    }
    let ourselves = thread_of(&frozen, sys::gettid()).registers.unwrap();
    assert!(frozen.mapping(ourselves.pc).unwrap().execute);
    assert!(frozen.read_u64(ourselves.sp).is_some());
}

#[test]
fn memory_and_threads_are_of_one_moment() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static PAIR: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
    let counter = std::thread::spawn(|| {
        while !STOP.load(Ordering::Relaxed) {
            // The first is never behind, and never ahead by more than one.
            PAIR[0].fetch_add(1, Ordering::SeqCst);
            PAIR[1].fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut values = std::collections::HashSet::new();
    for round in 0..250 {
        let image = if round % 2 == 0 { fork(FORCED) } else { freeze_fork_thaw(FORCED) }.unwrap();
        let [first, second] = [&PAIR[0], &PAIR[1]].map(|word| image.read_u64(word.as_ptr() as u64).unwrap());
        assert!(first == second || first == second + 1, "{first} {second}");
        values.insert(first);
        image.intact().unwrap();
    }
    STOP.store(true, Ordering::Relaxed);
    counter.join().unwrap();
    assert!(values.len() > 100, "the counter went on: {}", values.len());
}
