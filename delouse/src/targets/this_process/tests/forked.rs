//! Forked images.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Parked, isolated, test_name, thread_of};
use crate::snapshot::{Address, Snapshot, Unavailable};
use crate::targets::this_process::fork_cost::Watch;
use crate::targets::this_process::image::fork_watched;
use crate::targets::this_process::{page_size, sys};
use crate::targets::{ForkedImage, Limits, SnapshotError, fork, fork_with_threads, freeze_fork_thaw};

/// Tests run concurrently in one process, whose size must not make forks fail.
pub(super) const FORCED: Limits = Limits { budget: std::time::Duration::ZERO, force: true };

#[test]
fn an_image_does_not_change() {
    let mut memory = vec![1_u8; 1 << 20];
    let address = Address::new(memory.as_ptr() as u64);
    let image = fork(FORCED).unwrap();
    memory.fill(2);
    let mut read = vec![0; memory.len()];
    assert_eq!(image.read(address, &mut read), read.len());
    assert!(read.iter().all(|&byte| byte == 1));
    assert!(memory.iter().all(|&byte| byte == 2));
    assert!(image.mapping(address).unwrap().write);
    assert_eq!(image.read(Address::new(8), &mut read), 0);
    assert_eq!(image.read(Address::new(u64::MAX - 3), &mut read), 0);
    assert_eq!(thread_of(&image, sys::gettid()).registers, Err(Unavailable::NotCaptured));
    image.intact().unwrap();
}

#[test]
fn reads_of_a_killed_child_fail_and_do_not_hang() {
    let word = Box::new(5_u64);
    let address = Address::new((&raw const *word) as u64);
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
    assert_eq!(lost, SnapshotError::ImageLost("its process was killed"));
    assert_eq!(image.read_u64(address), None);
}

#[test]
fn a_child_exits_by_itself() {
    let why = |image: &ForkedImage| loop {
        match image.intact() {
            Ok(()) => std::thread::yield_now(),
            Err(SnapshotError::ImageLost(why)) => break why,
            Err(other) => panic!("{other}"),
        }
    };
    let image = fork(FORCED).unwrap();
    image.control().deadline.store(0, Ordering::Relaxed);
    assert_eq!(why(&image), "it was not read for 30 s, or reading it took longer than 5 min");

    // It stays while it is read.
    let image = fork(FORCED).unwrap();
    image.control().deadline.store(1, Ordering::Relaxed);
    while image.control().deadline.load(Ordering::Relaxed) == 1 {
        image.read_u64(Address::new(0));
    }
    let seconds = |deadline: &AtomicU64| deadline.load(Ordering::Relaxed) / 1_000_000_000;
    let left = seconds(&image.control().latest) - seconds(&image.control().deadline);
    assert!((260..=270).contains(&left), "{left}");

    // A cgroup whose memory.stat reports more than the ceiling.
    let stat = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&stat, b"anon 8192\nfile 0\n").unwrap();
    fork_watched(&Watch::with_file(stat.path(), 8192)).intact().unwrap();
    let image = fork_watched(&Watch::with_file(stat.path(), 8191));
    assert_eq!(why(&image), "memory ran short while it was read");

    let image = fork(FORCED).unwrap();
    image.control().parent.store(1, Ordering::Relaxed);
    assert_eq!(why(&image), "its program ended");
}

#[test]
fn an_image_with_threads_has_registers() {
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
            // The first counter is never behind, and never ahead by more than one.
            PAIR[0].fetch_add(1, Ordering::SeqCst);
            PAIR[1].fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut values = std::collections::HashSet::new();
    for round in 0..250 {
        let image = if round % 2 == 0 { fork(FORCED) } else { freeze_fork_thaw(FORCED) }.unwrap();
        let [first, second] =
            [&PAIR[0], &PAIR[1]].map(|word| image.read_u64(Address::new(word.as_ptr() as u64)).unwrap());
        assert!(first == second || first == second + 1, "{first} {second}");
        values.insert(first);
        image.intact().unwrap();
    }
    STOP.store(true, Ordering::Relaxed);
    counter.join().unwrap();
    assert!(values.len() > 100, "the counter did not advance: {}", values.len());
}

/// Matches of a search, together with those in the ranges that it leaves to be read.
fn found(
    image: &ForkedImage,
    range: std::ops::Range<u64>,
    wanted: std::ops::RangeInclusive<u64>,
) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut visit = |address: Address, word| found.push((address.get(), word));
    let rest = image.search(Address::range(range), &wanted, &mut visit);
    for at in rest.into_iter().flat_map(|part| Address::words(&part).step_by(8)) {
        found.extend(
            image.read_u64(Address::new(at)).filter(|word| wanted.contains(word)).map(|word| (at, word)),
        );
    }
    found.sort_unstable();
    found
}

#[test]
fn a_search_finds_every_word_and_no_other() {
    const WORDS: usize = 3 << 20;
    let mut words = vec![0_u64; WORDS];
    for (at, word) in words.iter_mut().enumerate() {
        // In some batches every word matches, in others none, in most a few.
        let dense = at >> 19 == 2;
        *word = if dense || at % 1009 == 7 { 1_000_000 + at as u64 } else { at as u64 % 1000 };
    }
    let expected: Vec<(u64, u64)> =
        words.iter().filter(|word| **word >= 1000).map(|word| ((&raw const *word) as u64, *word)).collect();
    let start = words.as_ptr() as u64;
    let image = fork(FORCED).unwrap();
    words.fill(0);
    assert_eq!(found(&image, start..start + 8 * WORDS as u64, 1000..=u64::MAX), expected);
    // Without the first and the last page.
    let inside = |(at, _): &&(u64, u64)| (start + 8 * 1007..start + (20 << 20)).contains(at);
    let part: Vec<(u64, u64)> = expected.iter().filter(inside).copied().collect();
    assert_eq!(found(&image, start + 8 * 1007..start + (20 << 20), 1000..=u64::MAX), part);
    assert_eq!(found(&image, start..start + 8 * WORDS as u64, 5000..=900_000), []);
    image.intact().unwrap();
}

/// Pages that were never written, a guard page, unmapped memory.
#[test]
fn a_search_skips_memory_that_is_not_present() {
    let page = page_size();
    let len = 256 * page;
    // SAFETY: fresh mappings, of which two pages are written and another one may be made a guard.
    let base = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let base = libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0);
        assert_ne!(base, libc::MAP_FAILED);
        libc::madvise(base, len, libc::MADV_NOHUGEPAGE);
        // MADV_GUARD_INSTALL, Linux 6.13 and later.
        libc::madvise(base.byte_add(20 * page), page, 102);
        base.byte_add(10 * page).cast::<u64>().write(77);
        base.byte_add(200 * page + 8).cast::<u64>().write(78);
        base as u64
    };
    let image = fork(FORCED).unwrap();
    let range = base..base + len as u64;
    let expected = [(base + 10 * page as u64, 77), (base + 200 * page as u64 + 8, 78)];
    let mut seen = Vec::new();
    let mut visit = |address: Address, word| seen.push((address.get(), word));
    let rest = image.search(Address::range(range.clone()), &(77..=78), &mut visit);
    assert_eq!(seen, expected);
    assert!(
        rest.iter().map(Address::words).map(|part| part.end - part.start).sum::<u64>() <= page as u64,
        "{rest:?}"
    );
    image.intact().unwrap();
    // SAFETY: kills our own child; unmaps what was mapped above.
    unsafe {
        libc::kill(image.pid(), libc::SIGKILL);
        libc::munmap(base as *mut _, len);
    }
    while image.intact().is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(found(&image, range, 77..=78), []);
}

/// A debugger that follows forks may stop it.
#[test]
fn a_search_does_not_wait_for_a_stopped_child() {
    let memory = vec![7_u64; 1 << 20];
    let start = memory.as_ptr() as u64;
    let range = start..start + (8 << 20);
    let image = fork(FORCED).unwrap();
    // SAFETY: stops our own child.
    unsafe { libc::kill(image.pid(), libc::SIGSTOP) };
    let mut seen = 0;
    let rest = image.search(Address::range(range.clone()), &(7..=7), &mut |_, _| seen += 1);
    let left: u64 = rest.iter().map(Address::words).map(|part| (part.end - part.start) / 8).sum();
    assert_eq!(seen + left, 1 << 20, "every word is found or left to be read");
    assert!(left > 0);
    // SAFETY: lets it go on.
    unsafe { libc::kill(image.pid(), libc::SIGCONT) };
    let rest = image.search(Address::range(range.clone()), &(7..=7), &mut |_, _| {});
    assert_eq!(rest, [Address::range(range.clone())], "the child is not used again");
    assert_eq!(image.read_u64(Address::new(start)), Some(7));
    assert_eq!(found(&fork(FORCED).unwrap(), range, 7..=7).len(), 1 << 20, "other children are");
}

/// Memory may fault although its mapping is readable.
#[test]
fn after_a_child_crashes_in_a_search_no_child_searches() {
    isolated(test_name!(after_a_child_crashes_in_a_search_no_child_searches), || {
        let memory = vec![5_u64; 1 << 20];
        let start = memory.as_ptr() as u64;
        let range = start..start + (8 << 20);
        let searched = |image: &ForkedImage| {
            image.search(Address::range(range.clone()), &(5..=5), &mut |_, _| {}).is_empty()
        };
        assert!(searched(&fork(FORCED).unwrap()));
        // SAFETY: a fresh mapping, which is written and then closed.
        let closed = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(std::ptr::null_mut(), 1 << 20, access, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            base.cast::<u8>().write_bytes(1, 1 << 20);
            assert_eq!(libc::mprotect(base, 1 << 20, libc::PROT_NONE), 0);
            base as u64
        };
        let image = fork(FORCED).unwrap();
        image.search_regardless(closed..closed + (1 << 20));
        assert_eq!(image.intact(), Err(SnapshotError::ImageLost("its process was killed")));
        let image = fork(FORCED).unwrap();
        assert!(!searched(&image));
        assert_eq!(image.read_u64(Address::new(start)), Some(5));
        image.intact().unwrap();
    });
}
