//! What is captured, and that the process does not notice it.

use std::path::Path;
use std::sync::OnceLock;

use super::super::{AttachOptions, attach, attach_known};
use super::harness::{PATIENT, Target, image_of};
use crate::debuginfo::symbols::Symbols;
use crate::snapshot::{Address, Snapshot};
use crate::threads::stacks::stacks;

#[test]
fn an_idle_process_is_captured_with_all_stacks() {
    let mut target = Target::start("asleep");
    for name in ["parked", "in-sleep", "in-read", "in-epoll", "in-accept", "in-poll"] {
        target.wait_until_asleep(name);
    }
    let before = target.inventory();
    let image = image_of(&target);
    assert_eq!(image.executable(), std::env::current_exe().unwrap());
    let (stacks, _) = stacks(&image, &Symbols::new());
    for stack in &stacks {
        assert_eq!(stack.unavailable, None, "{stack:?}");
        let functions: Vec<_> = stack.frames.iter().filter_map(|frame| frame.function.as_deref()).collect();
        if stack.name.starts_with("in-") || stack.name == "parked" {
            let scenario = functions.iter().any(|name| name.contains("scenarios::"));
            assert!(scenario, "{}: {functions:?}", stack.name);
        }
    }
    let parked: Vec<_> = image.threads().iter().filter(|thread| thread.name == "parked").collect();
    assert_eq!(parked.len(), 2);
    for thread in parked {
        let registers = thread.registers.unwrap();
        assert!(registers.futex.is_some());
        assert!(is_control_block(&image, registers.tls), "{registers:?}");
    }
    let epoll = image.threads().iter().find(|thread| thread.name == "in-epoll").unwrap();
    let tls = epoll.registers.unwrap().tls;
    assert!(is_control_block(&image, tls), "found without a stop: {tls:?}");
    drop(image);
    assert_eq!(target.inventory(), before);
    assert_eq!(target.check()["interrupted"], "0");
    target.finish();
}

/// Whether a thread pointer leads to a control block of glibc.
fn is_control_block(image: &dyn Snapshot, tls: Address) -> bool {
    let word = |address: Address| image.read_u64(address).unwrap();
    if cfg!(target_arch = "x86_64") {
        // `%fs:0` is its own address.
        return word(tls) == tls.get();
    }
    // The thread locals of this program follow the two words of the control block, of which the first is the vector.
    let block = word(Address::new(word(tls) + 16));
    block - tls.get() >= 16 && block - tls.get() < 4096
}

#[test]
fn a_busy_process_is_captured_again_and_again_and_notices_nothing() {
    let _alone = super::harness::alone();
    let rounds = super::harness::times("DELOUSE_ATTACHES", 300);
    let mut target = Target::start("busy");
    drop(image_of(&target));
    target.check();
    let before = target.inventory();
    let (mut stopped, mut moved) = (0, 0);
    for round in 0..rounds {
        let image = image_of(&target);
        for twin in 0..2 {
            let [low, high] =
                ["low", "high"].map(|page| image.read_u64(target.address(&format!("{page}{twin}"))).unwrap());
            assert!(low == high || low == high + 1, "round {round}: {low} {high}");
        }
        let running = image.threads().iter().filter(|thread| thread.name == "twin");
        stopped += running.clone().filter(|thread| thread.registers.is_ok()).count();
        moved += running.filter(|thread| thread.stack.is_some()).count();
    }
    // A thread that gets no processor does not stop in time.
    let captured = 2 * rounds;
    println!(
        "{rounds} images, none torn; of {captured} running threads, {stopped} have registers, {moved} are newer"
    );
    assert!(stopped * 6 >= captured, "of {captured} captures of running threads, {stopped} have registers");
    assert!(moved <= stopped / 2, "of {stopped}, {moved} are newer than the image");
    let after = target.check();
    assert_eq!(after["interrupted"], "0", "epoll_wait returned EINTR");
    assert_ne!((after["echoes"].as_str(), after["sums"].as_str()), ("0", "0"));
    assert_eq!(target.inventory(), before);
    target.finish();
}

/// Also a wait with a timeout, which is another system call after the first stop.
#[test]
fn a_thread_that_only_waits_is_the_same_in_each_capture() {
    let target = Target::start("asleep");
    target.wait_until_asleep("parked");
    let known = OnceLock::new();
    let capture = || {
        let image = attach_known(target.pid(), &PATIENT, &known).unwrap();
        let parked = image.threads().iter().filter(|thread| thread.name == "parked");
        let waits =
            parked.map(|thread| (thread.tid, thread.cpu.unwrap(), thread.registers.unwrap().futex.unwrap()));
        waits.collect::<Vec<_>>()
    };
    // On a busy machine, a thread may take long until it sleeps again.
    let mut before = capture();
    let equal = (0..20).any(|_| {
        let now = capture();
        now == std::mem::replace(&mut before, now.clone())
    });
    assert!(before.len() == 2 && before.iter().all(|(.., futex)| futex.timed), "{before:?}");
    assert!(equal, "{before:?}");
    target.finish();
}

/// As in a runtime with one thread: all its threads wait for I/O.
#[test]
fn a_process_without_a_thread_in_a_futex_is_captured() {
    for (scenario, most) in [("in-epoll", 0), ("in-epoll-timed", 40)] {
        let mut target = Target::start(scenario);
        let before = target.inventory();
        for _ in 0..20 {
            let image = image_of(&target);
            let first = image.threads().iter().find(|thread| thread.tid == target.pid() as i32).unwrap();
            assert!(first.registers.is_ok(), "{first:?}");
        }
        // Each capture makes two calls: it forks the image, and waits for its end.
        let interrupted: u64 = target.check()["interrupted"].parse().unwrap();
        assert!(interrupted <= most, "{scenario}: {interrupted} times EINTR");
        assert_eq!(target.inventory(), before);
        target.finish();
    }
}

#[test]
fn without_a_pause_memory_is_read_live_and_that_is_noted() {
    let target = Target::start("parked 3");
    target.wait_until_asleep("parked");
    let before = target.inventory();
    let live = attach(target.pid(), &AttachOptions { pause: false, ..PATIENT }).unwrap();
    assert!(!live.capture().consistent);
    assert!(live.capture().notes.iter().any(|note| note.contains("--no-pause")), "{:?}", live.capture());
    let parked = live.threads().iter().filter(|thread| thread.name == "parked");
    assert!(parked.filter(|thread| thread.registers.is_ok() && thread.stack.is_some()).count() >= 3);
    assert_eq!(target.inventory(), before);
    drop(live);
    target.finish();
}

#[test]
fn a_pause_that_would_be_too_long_is_not_made() {
    let target = Target::start("memory 64");
    let options = AttachOptions { max_pause: std::time::Duration::from_millis(1), ..PATIENT };
    let live = attach(target.pid(), &options).unwrap();
    assert!(!live.capture().consistent);
    let note = live.capture().notes.join(" ");
    assert!(note.contains("more than the 1 ms allowed"), "{note}");
    // Its threads are stopped one by one instead.
    assert!(live.threads().iter().all(|thread| thread.registers.is_ok()), "{:?}", live.threads());
    drop(live);
    target.finish();
}

#[test]
fn a_deleted_and_replaced_executable_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("program");
    crate::isolation::copy_program(&copy);
    let usual = Target::command("parked 2");
    let mut command = std::process::Command::new(&copy);
    command.args(usual.get_args()).env(super::harness::SCENARIO, "parked 2");
    let target = Target::spawn(&mut command);
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(&copy, "another build").unwrap();
    let image = image_of(&target);
    assert_eq!(image.executable(), Path::new(&format!("/proc/{}/exe", target.pid())));
    assert!(image.executable_name().to_string_lossy().ends_with("program (deleted)"));
    let length = std::fs::metadata(image.executable()).unwrap().len();
    assert_eq!(length, std::fs::metadata(std::env::current_exe().unwrap()).unwrap().len());
    let code = image.mappings().iter().find(|m| m.execute && m.inode != 0).unwrap();
    assert_eq!(code.path.as_deref(), Some(image.executable()));
    drop(image);
    target.finish();
}
