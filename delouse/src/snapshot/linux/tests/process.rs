//! What a capture must not do to the process: lose threads, leave zombies, leak, fail badly.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::forked::FORCED;
use super::{Parked, isolated, test_name};
use crate::snapshot::{
    Limits, Snapshot, SnapshotError, Unavailable, fork, freeze, freeze_fork_thaw, rolling,
};

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn children() -> String {
    let mut all = String::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        all += &std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    }
    all
}

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn threads_that_are_born_and_die_lose_nobody_and_hold_nobody_up() {
    isolated(test_name!(threads_that_are_born_and_die_lose_nobody_and_hold_nobody_up), || {
        static STOP: AtomicBool = AtomicBool::new(false);
        static BORN: AtomicU32 = AtomicU32::new(0);
        let parked: Vec<Parked> = (0..20).map(Parked::new).collect();
        let breeders: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    while !STOP.load(Ordering::Relaxed) {
                        let child = std::thread::spawn(|| std::hint::black_box(vec![1_u8; 10_000]).len());
                        assert_eq!(child.join().unwrap(), 10_000);
                        BORN.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let (mut pauses, mut captured, mut blocked) = (Vec::new(), 0, 0);
        for round in 0..200 {
            let capture = if round % 2 == 0 { rolling() } else { freeze() }.unwrap();
            for thread in &parked {
                thread.assert_captured(&capture);
            }
            // Those that are just being made or ended block signals, on busy processors for many
            // milliseconds; whoever lives was captured above.
            for thread in capture.threads() {
                match thread.registers {
                    Ok(_) => captured += 1,
                    Err(Unavailable::SignalBlocked) => blocked += 1,
                    Err(Unavailable::Exited | Unavailable::Uninterruptible) => {}
                    Err(reason) => panic!("{reason:?} {thread:?}"),
                }
            }
            pauses.push(capture.capture().pause_us);
        }
        STOP.store(true, Ordering::Relaxed);
        breeders.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(BORN.load(Ordering::Relaxed) > 200, "threads were born meanwhile");
        assert!(blocked * 4 < captured, "{blocked} blocked, {captured} captured");
        pauses.sort_unstable();
        assert!(pauses[100] < 100_000, "as a rule nobody waits for the deadline: {pauses:?}");
    });
}

#[test]
fn two_hundred_forks_leave_nothing_behind() {
    isolated(test_name!(two_hundred_forks_leave_nothing_behind), || {
        let word = Box::new(3_u64);
        let one = |round: usize| {
            let image =
                if round.is_multiple_of(4) { freeze_fork_thaw(FORCED) } else { fork(FORCED) }.unwrap();
            assert_eq!(image.read_u64((&raw const *word) as u64), Some(3));
        };
        (0..20).for_each(one);
        let (files, memory) = (open_files(), resident_kilobytes());
        (0..200).for_each(one);
        assert_eq!(open_files(), files);
        assert_eq!(children(), "");
        let grown = resident_kilobytes().saturating_sub(memory);
        assert!(grown < 1024, "{grown} kB more after 200 forks");
    });
}

#[test]
fn sockets_behave_while_an_image_lives() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    let image = fork(FORCED).unwrap();
    drop(server);
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(std::io::Read::read(&mut &client, &mut [0]).unwrap(), 0, "the peer sees the end");
    drop((listener, client));
    let again = (0..1000).find_map(|_| TcpListener::bind(address).ok());
    assert!(again.is_some(), "the port is free again");
    image.intact().unwrap();
}

#[test]
fn without_permission_for_its_memory_file_the_child_hands_it_out() {
    isolated(test_name!(without_permission_for_its_memory_file_the_child_hands_it_out), || {
        let parked = Parked::new(9);
        let block: Vec<u32> = (0..200_000).collect();
        // A process that changes its user is not dumpable any more: root's files in /proc are shut to it.
        // SAFETY: process of its own.
        unsafe {
            if libc::getuid() == 0 {
                assert_eq!(libc::setgid(65534), 0);
                assert_eq!(libc::setuid(65534), 0);
            }
            assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 0), 0);
        }
        let image = freeze_fork_thaw(FORCED).unwrap();
        assert!(image.reads_by_pipe());
        parked.assert_captured(&image);
        let mut bytes = vec![0; block.len() * 4];
        assert_eq!(image.read(block.as_ptr() as u64, &mut bytes), bytes.len());
        assert!(bytes.chunks(4).zip(&block).all(|(read, word)| read == word.to_le_bytes()));
        assert_eq!(image.read(16, &mut bytes), 0);
        let end = image.mapping(parked.address).unwrap().range.end;
        // As far as the mapping goes, unless another follows at once.
        let follows = image.mapping(end).is_some_and(|next| next.read);
        assert!(follows || image.read(end - 100, &mut bytes) == 100);

        let mut core = Vec::new();
        crate::snapshot::core_writer::write(&image, &mut core).unwrap();
        assert!(core.len() > bytes.len());
        // Live, too.
        parked.assert_captured(&rolling().unwrap());
        // SAFETY: kills our own child.
        unsafe { libc::kill(image.pid(), libc::SIGKILL) };
        while image.intact().is_ok() {
            std::thread::yield_now();
        }
        assert_eq!(image.read(block.as_ptr() as u64, &mut bytes), 0);
    });
}

#[test]
fn a_fork_that_is_refused_is_an_error_and_nobody_stands_still() {
    isolated(test_name!(a_fork_that_is_refused_is_an_error_and_nobody_stands_still), || {
        let parked = Parked::new(11);
        // The limit counts processes of a user and does not apply to root.
        // SAFETY: process of its own.
        unsafe {
            if libc::getuid() == 0 {
                assert_eq!(libc::setgid(65534), 0);
                assert_eq!(libc::setuid(65534), 0);
                assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
            }
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            assert_eq!(libc::setrlimit(libc::RLIMIT_NPROC, &raw const none), 0);
        }
        let files = open_files();
        assert_eq!(fork(FORCED).unwrap_err(), SnapshotError::Fork(libc::EAGAIN));
        assert_eq!(freeze_fork_thaw(FORCED).unwrap_err(), SnapshotError::Fork(libc::EAGAIN));
        assert_eq!(open_files(), files);
        parked.assert_captured(&freeze().unwrap());
    });
}

#[test]
fn above_the_budget_nothing_is_forked() {
    let limits = Limits { budget: Duration::ZERO, force: false };
    assert!(matches!(fork(limits), Err(SnapshotError::OverBudget { .. })));
    assert!(matches!(freeze_fork_thaw(limits), Err(SnapshotError::OverBudget { .. })));
}

#[test]
fn two_clients_at_once_both_get_everything() {
    let parked: Vec<Parked> = (0..10).map(|n| Parked::new(500 + n)).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..30 {
                    let capture = rolling().unwrap();
                    parked.iter().for_each(|thread| thread.assert_captured(&capture));
                }
            });
        }
    });
}
