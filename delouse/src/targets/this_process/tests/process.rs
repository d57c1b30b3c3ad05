//! Effects that a capture must not have on the process: missing threads, zombies, leaks, wrong errors.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::forked::FORCED;
use super::{Parked, isolated, test_name};
use crate::host::descriptor_reserve;
use crate::snapshot::{Address, Snapshot, Unavailable};
use crate::targets::this_process::{forker, page_size, sys};
use crate::targets::{Limits, SnapshotError, fork, fork_with_threads, freeze, freeze_fork_thaw, rolling};

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
fn started_and_exiting_threads_are_captured_in_time() {
    isolated(test_name!(started_and_exiting_threads_are_captured_in_time), || {
        static STOP: AtomicBool = AtomicBool::new(false);
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let parked: Vec<Parked> = (0..20).map(Parked::new).collect();
        let breeders: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    while !STOP.load(Ordering::Relaxed) {
                        let child = std::thread::spawn(|| std::hint::black_box(vec![1_u8; 10_000]).len());
                        assert_eq!(child.join().unwrap(), 10_000);
                        STARTED.fetch_add(1, Ordering::Relaxed);
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
            // Threads that start or exit block signals, on busy processors for many milliseconds. Long-lived threads were
            // checked above.
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
        assert!(STARTED.load(Ordering::Relaxed) > 200, "threads were started meanwhile");
        assert!(blocked * 4 < captured, "{blocked} blocked, {captured} captured");
        pauses.sort_unstable();
        assert!(pauses[100] < 100_000, "most captures end before the deadline: {pauses:?}");
    });
}

#[test]
fn two_hundred_forks_leave_nothing_behind() {
    isolated(test_name!(two_hundred_forks_leave_nothing_behind), || {
        let word = Box::new(3_u64);
        let one = |round: usize| {
            let image =
                if round.is_multiple_of(4) { freeze_fork_thaw(FORCED) } else { fork(FORCED) }.unwrap();
            assert_eq!(image.read_u64(Address::new((&raw const *word) as u64)), Some(3));
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
fn an_image_does_not_keep_sockets_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    let image = fork(FORCED).unwrap();
    drop(server);
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(
        std::io::Read::read(&mut &client, &mut [0]).unwrap(),
        0,
        "the peer sees the end of the connection"
    );
    drop((listener, client));
    let again = (0..1000).find_map(|_| TcpListener::bind(address).ok());
    assert!(again.is_some(), "the port is free again");
    image.intact().unwrap();
}

/// The files that a process has open, as far as this user may see them.
fn files_of(pid: i32) -> Option<Vec<String>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    Some(
        entries
            .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.display().to_string()))
            .collect(),
    )
}

fn assert_no_files_of_the_program(image: &crate::targets::ForkedImage) {
    match files_of(image.pid()) {
        Some(files) => assert!(files.iter().all(|file| file.ends_with("/memory.stat")), "{files:?}"),
        None => skipped!("the child's files are not shown to this user"),
    }
}

/// A file that the program closes is closed, even while an image exists.
#[test]
fn an_image_has_no_file_of_the_programs_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_reader, _writer) = std::io::pipe().unwrap();
    let images = [fork(FORCED).unwrap(), freeze_fork_thaw(FORCED).unwrap()];
    images.iter().for_each(assert_no_files_of_the_program);
    drop(listener);
}

/// Locks a file by flock(2). Returns false if it is locked already.
fn is_lockable(file: &std::fs::File) -> bool {
    // SAFETY: a call without memory of ours.
    unsafe { libc::flock(std::os::fd::AsRawFd::as_raw_fd(file), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// A shared mapping keeps a file open, and with it the locks of its descriptor.
#[test]
fn an_image_does_not_keep_the_lock_of_a_file_that_was_mapped() {
    // A process that another test starts has the descriptor, too, until it executes its program.
    isolated(test_name!(an_image_does_not_keep_the_lock_of_a_file_that_was_mapped), || {
        let path = tempfile::NamedTempFile::new().unwrap();
        let file = path.reopen().unwrap();
        file.set_len(page_size() as u64).unwrap();
        assert!(is_lockable(&file));
        // SAFETY: fresh mappings of a file of one page, of which none but this test knows.
        let [shared, private] = unsafe {
            [libc::MAP_SHARED, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS].map(|flags| {
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
                let base = libc::mmap(std::ptr::null_mut(), page_size(), access, flags, fd, 0);
                assert_ne!(base, libc::MAP_FAILED);
                base.cast::<u64>().write(77);
                base
            })
        };
        let images = [fork(FORCED).unwrap(), freeze_fork_thaw(FORCED).unwrap()];
        // SAFETY: mapped above.
        unsafe { libc::munmap(shared, page_size()) };
        drop(file);
        assert!(is_lockable(&path.reopen().unwrap()));
        for image in &images {
            image.intact().unwrap();
            assert_eq!(image.read_u64(Address::new(private as u64)), Some(77));
            assert_eq!(image.read_u64(Address::new(shared as u64)), None);
        }
        // SAFETY: as above.
        unsafe { libc::munmap(private, page_size()) };
    });
}

/// The thread that forks closes copies of the program's lowest descriptors. That must not release record locks, which belong
/// to the process.
#[test]
fn record_locks_of_the_program_stay() {
    isolated(test_name!(record_locks_of_the_program_stay), || {
        let file = tempfile::tempfile().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: plain numbers, for which zeroes are valid.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as _;
        // SAFETY: reads one `flock`.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETLK, &raw const lock) }, 0);
        fork(FORCED).unwrap().intact().unwrap();
        // SAFETY: the child asks, and ends, without libc's own locks.
        let status = unsafe {
            let child = libc::fork();
            if child == 0 {
                let asked = libc::fcntl(fd, libc::F_GETLK, &raw mut lock);
                sys::exit(if asked == 0 && lock.l_type == libc::F_WRLCK as i16 { 7 } else { 1 });
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            status
        };
        assert_eq!(libc::WEXITSTATUS(status), 7, "another process could have the lock");
    });
}

#[test]
fn the_last_free_descriptors_are_left_to_the_program() {
    isolated(test_name!(the_last_free_descriptors_are_left_to_the_program), || {
        limit_files(100);
        let mut held = Vec::new();
        let left = loop {
            match descriptor_reserve::acquire() {
                Ok(_) => held.push(std::fs::File::open("/dev/null").unwrap()),
                Err(left) => break left,
            }
        };
        for still in (0..left).rev() {
            held.push(std::fs::File::open("/dev/null").unwrap());
            assert_eq!(descriptor_reserve::acquire().map(drop), Err(still));
        }
        assert_eq!(left, 15);
        assert!(std::fs::File::open("/dev/null").is_err());
    });
}

/// Opens files until no more can be opened.
fn open_all() -> Vec<std::fs::File> {
    std::iter::repeat_with(|| std::fs::File::open("/dev/null")).map_while(Result::ok).collect()
}

fn limit_files(most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: of a process of the test's own.
    unsafe { assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0) };
}

#[test]
fn a_capture_opens_its_files_instead_of_the_reserve() {
    isolated(test_name!(a_capture_opens_its_files_instead_of_the_reserve), || {
        limit_files(200);
        descriptor_reserve::open();
        let mut held = open_all();
        assert_eq!(count_descriptors(), 200);
        for _ in 0..3 {
            let files = descriptor_reserve::acquire().unwrap();
            assert_eq!(descriptor_reserve::acquire().map(drop), Err(8), "the reserve is in use");
            // The program has as many descriptors as before, and those of the reserve are free.
            let image = fork_with_threads(FORCED).unwrap();
            let another = fork(FORCED).unwrap();
            another.intact().unwrap();
            drop((image, another, files));
            assert!(std::fs::File::open("/dev/null").is_err());
        }
        // If enough descriptors are free, the reserve is not used.
        held.truncate(held.len() - 16);
        let _files = descriptor_reserve::acquire().unwrap();
        assert_eq!(open_all().len(), 16);
    });
}

/// The number of open descriptors, counted without opening another one.
fn count_descriptors() -> usize {
    // SAFETY: asks about numbers.
    (0..200).filter(|&number| unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0).count()
}

/// Daemons close all descriptors, and so do runtimes of other languages before they execute a program.
#[test]
fn files_that_the_program_closed_are_not_closed_again() {
    isolated(test_name!(files_that_the_program_closed_are_not_closed_again), || {
        limit_files(200);
        descriptor_reserve::open();
        // SAFETY: of a process of the test's own, in which none but the reserve's are open from there on.
        unsafe { assert_eq!(libc::close_range(3, libc::c_uint::MAX, 0), 0) };
        let held = open_all();
        assert_eq!(descriptor_reserve::acquire().map(drop), Err(0));
        descriptor_reserve::close();
        assert!(held.iter().all(|file| file.metadata().is_ok()));
        drop(held);
        drop(descriptor_reserve::acquire().unwrap());
        let held = open_all();
        let lent = descriptor_reserve::acquire().expect("the reserve was reopened");
        drop(held);
        // The same while a capture uses the reserve: no file of the program is duplicated.
        // SAFETY: as above.
        unsafe { assert_eq!(libc::close_range(3, libc::c_uint::MAX, 0), 0) };
        let mut held = open_all();
        held.truncate(held.len() - 20);
        let open = count_descriptors();
        drop(lent);
        assert_eq!(count_descriptors(), open);
        drop(held);
        // With a low limit there is no reserve.
        descriptor_reserve::close();
        let open = count_descriptors();
        limit_files(100);
        descriptor_reserve::open();
        assert_eq!(count_descriptors(), open);
    });
}

/// For kernels that do not let a process open the `/proc` files of its children.
#[test]
fn a_child_that_shares_files_closes_those_of_the_program() {
    isolated(test_name!(a_child_that_shares_files_closes_those_of_the_program), || {
        let one = fork(FORCED).unwrap();
        forker::share_files();
        let files = open_files();
        let parked = Parked::new(21);
        for image in [fork_with_threads(FORCED), freeze_fork_thaw(FORCED)] {
            let image = image.unwrap();
            parked.assert_captured(&image);
            assert!(!image.reads_by_pipe());
            assert_no_files_of_the_program(&image);
        }
        parked.assert_captured(&freeze().unwrap());
        assert_eq!(open_files(), files);
        one.intact().unwrap();
    });
}

/// The kernel kills an image when the thread that forked it exits: when the process ends or executes another program.
#[test]
fn an_image_ends_with_the_program() {
    isolated(test_name!(an_image_ends_with_the_program), || {
        let image = fork(FORCED).unwrap();
        let pid = image.pid();
        // SAFETY: replaces this process; the image's owner goes with all else.
        let error = unsafe {
            let line = format!(
                "while kill -0 {pid} && ! grep -q '^State:.Z' /proc/{pid}/status; do :; done; echo 1 passed"
            );
            let line = std::ffi::CString::new(line).unwrap();
            let arguments = [c"sh".as_ptr(), c"-c".as_ptr(), line.as_ptr(), std::ptr::null()];
            libc::execv(c"/bin/sh".as_ptr(), arguments.as_ptr());
            std::io::Error::last_os_error()
        };
        panic!("{error}");
    });
}

#[test]
fn without_permission_for_its_memory_file_the_child_serves_its_memory() {
    isolated(test_name!(without_permission_for_its_memory_file_the_child_serves_its_memory), || {
        let parked = Parked::new(9);
        let block: Vec<u32> = (0..200_000).collect();
        // A process that changes its user is not dumpable any more: its files in /proc belong to root.
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
        assert_eq!(image.read(Address::new(block.as_ptr() as u64), &mut bytes), bytes.len());
        assert!(bytes.chunks(4).zip(&block).all(|(read, word)| read == word.to_le_bytes()));
        assert_eq!(image.read(Address::new(16), &mut bytes), 0);
        let end = image.mapping(parked.address).unwrap().range.end;
        // A read ends with the mapping, unless another mapping follows directly.
        let follows = image.mapping(end).is_some_and(|next| next.read);
        assert!(follows || image.read(end.checked_sub(100).unwrap(), &mut bytes) == 100);

        let mut core = Vec::new();
        crate::targets::core_dump::write(&image, &mut core).unwrap();
        assert!(core.len() > bytes.len());
        // The same with a live snapshot.
        parked.assert_captured(&rolling().unwrap());
        // SAFETY: kills our own child.
        unsafe { libc::kill(image.pid(), libc::SIGKILL) };
        while image.intact().is_ok() {
            std::thread::yield_now();
        }
        assert_eq!(image.read(Address::new(block.as_ptr() as u64), &mut bytes), 0);
    });
}

#[test]
fn a_refused_fork_is_an_error_and_holds_no_thread() {
    isolated(test_name!(a_refused_fork_is_an_error_and_holds_no_thread), || {
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
fn concurrent_captures_are_both_complete() {
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
